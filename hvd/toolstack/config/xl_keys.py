"""The keys that xl has and hvd does not, so that a reader of xl's manual is told so and not corrected."""

_GUESTS = """
    type builder pool maxvcpus cpus_soft cpu_weight cap vnuma on_soft_reset ramdisk cmdline root extra bootloader
    bootloader_args firmware pvshim pvshim_path pvshim_cmdline pvshim_extra tsc_mode localtime rtc_timeoffset
    device_tree passthrough dtdev iomem ioports irqs max_event_channels max_grant_frames max_grant_version
    max_maptrack_frames nomigrate init_seclabel xend_suspend_evtchn_compat vmtrace_buf_kb vpmu e820_host tee
    gic_version vuart mca_caps msr_relaxed
"""
_DEVICES = """
    vtpm p9 pvcalls vfb channel rdm rdm_mem_boundary usbctrl usbdev pci pci_permissive pci_msitranslate pci_seize
    pci_power_mgmt gfx_passthru vdispl vsnd vkb virtio
"""
_MACHINES = """
    boot hdtype hap oos shadow_memory bios bios_path_override pae acpi acpi_s3 acpi_s4 acpi_laptop_slate apic nx hpet
    altp2m altp2mhvm nestedhvm cpuid acpi_firmware smbios_firmware ms_vm_genid timer_mode vpt_align mmio_hole
    xen_platform_pci viridian videoram stdvga vga vnc vnclisten vncdisplay vncunused vncpasswd keymap sdl opengl
    display xauthority nographic spice spicehost spiceport spicetls_port spicedisable_ticketing spicepasswd
    spiceagent_mouse spicevdagent spice_clipboard_sharing spiceusbredirection spice_image_compression
    spice_streaming_video serial soundhw vkb_device usb usbversion usbdevice vendor_device
"""
_DEVICE_MODELS = """
    device_model_version device_model_override device_model_args device_model_args_pv device_model_args_hvm
    device_model_user dm_restrict device_model_stubdomain_override device_model_stubdomain_seclabel
    stubdomain_kernel stubdomain_ramdisk stubdomain_cmdline stubdomain_memory
"""
_NOT_IN_THE_MANUAL = """
    blkdev_start device_model extratime firmware_override latency period pvh slice vncviewer
"""
"""Of xl.cfg(5) too: xl reads them, for old files' sake."""
_LATER = "assisted_xapic assisted_x2apic llc_colors sve"
"""Those of Xens after 4.17."""
_DISKS = "script backendtype specification colo colo-host colo-port colo-export active-disk hidden-disk"
XL_KEYS_NOT_HERE = frozenset(
    " ".join((_GUESTS, _DEVICES, _MACHINES, _DEVICE_MODELS, _NOT_IN_THE_MANUAL, _LATER, _DISKS)).split()
)
"""Of xl.cfg(5) and its disk lines."""
