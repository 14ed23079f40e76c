"""The sub-commands that xl has and that need no more than its words: what each prints is what xl prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hvd.toolstack.cli.command import AsJson, DefConfig, MaybeNames, Name, Settings, command, described_by, whole_number
from hvd.toolstack.cli.completion import buttons, disk_names, domain_names, link_states, network_names, vif_numbers


@command("hvd vcpu-list", "hvd vcpu-list ivi")
def vcpu_list(names: MaybeNames = None, json: AsJson = False) -> None:
    """Show the CPU that each domain's process was on last, its time, and the CPUs it may run on."""
    from hvd.toolstack.cli import inspect

    inspect.vcpu_list(names or [], as_json=json)


@command("hvd vm-list")
def vm_list(json: AsJson = False) -> None:
    """Show the guests with their UUIDs."""
    from hvd.toolstack.cli import inspect

    inspect.vm_list(as_json=json)


@command("hvd uptime", "hvd uptime -s ivi")
def uptime(
    names: MaybeNames = None,
    short: Annotated[bool, typer.Option("-s", help="One short line for each, without a heading.")] = False,
    json: AsJson = False,
) -> None:
    """Show how long domains have run, in their own time: what they were paused does not count."""
    from hvd.toolstack.cli import inspect

    inspect.uptime(names or [], short=short, as_json=json)


@command("hvd domid ivi")
def domid(name: Name, json: AsJson = False) -> None:
    """Print the domid of a domain's name."""
    from hvd.toolstack.cli import inspect

    inspect.domid(name, as_json=json)


@command("hvd domname 2")
def domname(
    domid: Annotated[int, typer.Argument(metavar="DOMID", parser=whole_number(0))], json: AsJson = False
) -> None:
    """Print the name of a domid."""
    from hvd.toolstack.cli import inspect

    inspect.domname(domid, as_json=json)


@command("hvd rename ivi cockpit")
def rename(name: Name, new_name: Annotated[str, typer.Argument(metavar="NEW-NAME")], json: AsJson = False) -> None:
    """Give a domain another name. Its console's log goes on under the old one until it starts again."""
    from hvd.toolstack.cli import reconfigure

    reconfigure.rename(name, new_name, as_json=json)


@command("hvd config-update ivi ivi.cfg", "hvd config-update ivi ivi.cfg 'memory=128; vcpus=2'")
def config_update(
    context: typer.Context,
    name: Name,
    *,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="An xl.cfg.")] = None,
    settings: Settings = None,
    defconfig: DefConfig = None,
    json: AsJson = False,
) -> None:
    """Replace what a domain's next start is made of. Of the one that runs the rates of its vifs change, no more."""
    from hvd.toolstack.cli import reconfigure

    file, settings = described_by(context, file, defconfig, settings)
    if file is None:
        raise typer.BadParameter("give the FILE of an xl.cfg")
    reconfigure.config_update(name, file, settings, as_json=json)


@command("hvd dump-core ivi ivi.core", "hvd dump-core ivi ivi.core && gdb -batch -ex bt .venv/bin/python ivi.core")
def dump_core(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Replaced if it is there, when the core is whole.")],
    json: AsJson = False,
) -> None:
    """Write an ELF core of a domain that runs, for gdb. It stands still meanwhile, and then goes on."""
    from hvd.toolstack.cli import change

    change.dump_core(name, file, as_json=json)


Mem = Annotated[str, typer.Argument(metavar="MEM", help="MiB, or with t, g, m, k or b behind it, as 512m or 1g.")]


@command("hvd mem-set ivi 48", "hvd mem-set ivi 48m && hvd events ivi --kind memory --since 0 --no-follow")
def mem_set(name: Name, mem: Mem, json: AsJson = False) -> None:
    """Ask a domain to do with so much memory, at most `maxmem`; it keeps what it cannot spare, and its console says so.

    `hvd list` shows what it does with. The target outlives restarts.
    """
    from hvd.toolstack.cli import memory

    memory.mem_set(name, mem, as_json=json)


@command("hvd mem-max ivi 64m")
def mem_max(name: Name, mem: Mem, json: AsJson = False) -> None:
    """Bound what a domain may use of memory until it starts again: no less than its target; more than its `maxmem` is
    of no use to it.
    """
    from hvd.toolstack.cli import memory

    memory.mem_max(name, mem, as_json=json)


@command("hvd trigger ivi power", "hvd trigger ivi nmi")
def trigger(
    name: Name,
    button: Annotated[str, typer.Argument(metavar="power|reset|nmi", autocompletion=buttons)],
    vcpu: Annotated[
        int, typer.Argument(metavar="VCPU", parser=whole_number(0), help="As in xl; a domain is one process.")
    ] = 0,
    json: AsJson = False,
) -> None:
    """Press a domain's button: power asks it to power off, reset boots it again at once, nmi crashes it."""
    from hvd.toolstack.cli import reconfigure

    reconfigure.trigger(name, button, vcpu, as_json=json)


@command("hvd sysrq ivi h", "hvd sysrq ivi t && hvd logs ivi")
def sysrq(
    name: Name,
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="h has the domain list those it knows.")],
    json: AsJson = False,
) -> None:
    """Send a domain's kernel a magic letter: it answers on its console, when it next waits."""
    from hvd.toolstack.cli import reconfigure

    reconfigure.sysrq(name, letter, as_json=json)


@command("hvd block-attach ivi map.img,raw,xvdb,w", "hvd block-attach ivi vdev=xvdb backend=storage target=map.img")
def block_attach(
    name: Name,
    spec: Annotated[list[str], typer.Argument(metavar="DISK...", help="As in xl's `disk`; several parts are joined.")],
    json: AsJson = False,
) -> None:
    """Give a domain one more disk while it runs."""
    from hvd.toolstack.cli import reconfigure

    reconfigure.block_attach(name, spec, as_json=json)


@command("hvd block-detach ivi xvdb", "hvd block-detach --force ivi 51728")
def block_detach(
    name: Name,
    devid: Annotated[
        str, typer.Argument(metavar="DEVID", help="The disk's name or number.", autocompletion=disk_names)
    ],
    force: Annotated[bool, typer.Option("--force", "-f", help="Without asking: what still uses it fails.")] = False,
    json: AsJson = False,
) -> None:
    """Take a disk from a domain. One that is in use is not taken, unless by force."""
    from hvd.toolstack.cli import reconfigure

    reconfigure.block_detach(name, devid, force=force, as_json=json)


@command("hvd block-list ivi")
def block_list(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", autocompletion=domain_names)], json: AsJson = False
) -> None:
    """Show domains' disks: device number, backend, state, event channel, ring."""
    from hvd.toolstack.cli import inspect

    inspect.block_list(names, as_json=json)


@command("hvd network-attach ivi bridge=cabin", "hvd network-attach ivi mac=00:16:3e:01:02:03 bridge=cabin rate=10Mb/s")
def network_attach(
    name: Name,
    spec: Annotated[list[str], typer.Argument(metavar="VIF...", help="As in xl's `vif`; several parts are joined.")],
    json: AsJson = False,
) -> None:
    """Give a domain one more vif while it runs, under the rules of the network that it joins.

    Of a program it is an interface, whose name is printed.
    """
    from hvd.toolstack.cli import reconfigure

    reconfigure.network_attach(name, spec, as_json=json)


@command("hvd network-detach ivi 0", "hvd network-detach --force ivi 00:16:3e:01:02:03")
def network_detach(
    name: Name,
    devid: Annotated[
        str, typer.Argument(metavar="DEVID", help="The vif's number or MAC address.", autocompletion=vif_numbers)
    ],
    force: Annotated[bool, typer.Option("--force", "-f", help="Without asking: what still uses it fails.")] = False,
    json: AsJson = False,
) -> None:
    """Take a vif from a domain."""
    from hvd.toolstack.cli import reconfigure

    reconfigure.network_detach(name, devid, force=force, as_json=json)


@command("hvd network-list ivi")
def network_list(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", autocompletion=domain_names)], json: AsJson = False
) -> None:
    """Show domains' vifs: number, backend, MAC address, state, event channel, rings."""
    from hvd.toolstack.cli import inspect

    inspect.network_list(names, as_json=json)


@command("hvd networks", "hvd networks cabin", "hvd networks --json | jq '.[] | {name, vifs: [.vifs[].name]}'")
def networks(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NETWORK...", help="With its rules and vifs.", autocompletion=network_names),
    ] = None,
    json: AsJson = False,
) -> None:
    """Show the cluster's networks: switch, MTU, rules, VLANs, uplink, and the vifs that are in each."""
    from hvd.toolstack.cli import networks as shown

    shown.networks(names or [], as_json=json)


@command("hvd network-link ivi 0 down", "hvd network-link ivi 0 up")
def network_link(
    name: Name,
    devid: Annotated[
        str, typer.Argument(metavar="DEVID", help="The vif's number or MAC address.", autocompletion=vif_numbers)
    ],
    state: Annotated[str, typer.Argument(metavar="up|down", autocompletion=link_states)],
    json: AsJson = False,
) -> None:
    """Pull the cable out of a domain's vif, or put it in: both ends see it, and packets are lost meanwhile."""
    from hvd.toolstack.cli import reconfigure

    reconfigure.network_link(name, devid, state, as_json=json)
