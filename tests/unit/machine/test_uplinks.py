"""TAP devices as the machine opens them, in a network namespace of each test's own: all that are wanted, or none."""

import ctypes
import os
import socket
import subprocess
import threading

import pytest

from hvd.machine.uplinks import UplinkRefused, open_uplinks

CLONE_NEWNET = 0x40000000
DEADLINE_S = 20
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces as root"),
    pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="there is no /dev/net/tun for us"),
]


def in_namespace(act):
    """What `act` comes back with in a thread, and so a network namespace, of its own."""
    outcome = []

    def run():
        assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
        outcome.append(act())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE_S)
    return outcome[0]


def devices():
    return [name for _, name in socket.if_nameindex() if name != "lo"]


def close(held):
    for (descriptor,) in held.values():
        os.close(descriptor)


def test_devices_are_made_up_and_with_their_networks_mtu_and_go_with_their_descriptors():
    def act():
        held = open_uplinks([("a", 1500), ("b", 9000)])
        told = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout.splitlines()
        close(held)
        return list(held), told, devices()

    keys, told, left = in_namespace(act)
    assert keys == ["uplink:a", "uplink:b"] and left == []
    for name, mtu in (("a", 1500), ("b", 9000)):
        assert any(f"{name}: <" in line and ",UP" in line and f"mtu {mtu} " in line for line in told), told


def test_when_one_cannot_be_had_none_is_left():
    def act():
        with pytest.raises(UplinkRefused, match="uplink lo: Invalid argument: there is a device of this name that is"):
            open_uplinks([("a", 1500), ("lo", 1500)])
        return devices()

    assert in_namespace(act) == []


def test_one_that_was_there_is_left_as_it_is_and_stays():
    def act():
        subprocess.run(["ip", "tuntap", "add", "a", "mode", "tap"], check=True)
        held = open_uplinks([("a", 9000)])
        told = subprocess.run(["ip", "-o", "link", "show", "a"], check=True, capture_output=True, text=True).stdout
        with pytest.raises(UplinkRefused, match="uplink a: Device or resource busy: another program has it"):
            open_uplinks([("a", 1500)])
        close(held)
        return told, devices()

    told, left = in_namespace(act)
    assert "mtu 1500 " in told and ",UP" not in told and left == ["a"]


def test_without_the_device_file_that_is_told(monkeypatch):
    monkeypatch.setattr("hvd.machine.uplinks.TUN", "/nowhere/tun")
    with pytest.raises(UplinkRefused, match="uplink a: No such file or directory: there is no /dev/net/tun"):
        open_uplinks([("a", 1500)])


def test_none_are_wanted_by_most_clusters():
    assert open_uplinks([]) == {}
