"""A domain's configuration as `xl list -l` prints it: libxl_domain_config in libxl's JSON (libxl_types.idl, 4.17)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hvd.toolstack.cluster import DomainInfo
from hvd.transport.messages import DeviceConfig, DomainConfig

KIB_OF_MIB = 1024


def domain_json(info: DomainInfo, config: DomainConfig) -> dict[str, Any]:
    """{domid, config} of a domain that there is."""
    known = replace(config, name=info.name, uuid=info.uuid, seclabel=info.seclabel)
    described = config_json(known)
    described["b_info"]["max_memkb"] = info.memory_static_max_kib
    described["b_info"]["target_memkb"] = info.memory_target_kib
    return {"domid": int(info.domid), "config": described}


def config_json(config: DomainConfig) -> dict[str, Any]:
    """What `xl create -n` prints; keys with libxl's default values are left out, as libxl does."""
    described: dict[str, Any] = {
        "c_info": {
            "type": "pv", "name": config.name,
            **({"uuid": config.uuid} if config.uuid else {}),
            "run_hotplug_scripts": "True",
            **({"driver_domain": "True"} if config.driver_domain else {}),
            **({"ssid_label": config.seclabel} if config.seclabel else {}),
        },
        "b_info": {
            "max_vcpus": config.vcpus,
            "avail_vcpus": list(range(config.vcpus)),
            **({"vcpu_hard_affinity": [config.cpus] * config.vcpus} if config.cpus else {}),
            "max_memkb": max(config.memory, config.maxmem) * KIB_OF_MIB,
            "target_memkb": config.memory * KIB_OF_MIB,
            "kernel": config.kernel,
            **({"cmdline": " ".join(config.args)} if config.args else {}),
            "sched_params": {},
            "type.pv": {},
        },
    }  # fmt: skip
    disks = [_disk(device) for device in config.devices if device.kind == "vbd"]
    if disks:
        described["disks"] = disks
    for key in ("on_poweroff", "on_reboot", "on_watchdog", "on_crash"):
        described[key] = getattr(config, key).replace("-", "_")
    return described


def _disk(device: DeviceConfig) -> dict[str, Any]:
    keys = device.backend_keys
    return {
        "backend_domname": device.backend,
        "pdev_path": keys.get("params", ""),
        "vdev": keys.get("dev", ""),
        "format": "raw",
        "removable": int(keys.get("removable", "0")),
        "readwrite": int(keys.get("mode", "w").startswith("w")),
        "is_cdrom": int(keys.get("device-type") == "cdrom"),
    }
