"""Real programs on a cluster's networks: web server, ping, iperf3, DHCP and packet capture, each as Debian ships it.

Run as root, all of it is run once more as nobody. A test whose program is not on the machine is skipped.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.toolstack.cli import reconfigure
from hvd.toolstack.cluster import DomainState
from hvd.toolstack.cluster.sandbox_trial import lacking_here
from hvd.transport.hypercalls import HypercallError
from tests.nobody import passes_as_nobody_with_tap
from tests.process.lans import GET, MARKS, WEB, Lan, lan_in, needs, printed
from tests.waiting import wait_for

CONTENT_BYTES = 24 << 20
LARGE_BYTES, MARK_BYTES = 96 << 20, 16 << 20
"""More lies between two marks than sockets hold."""
COUNT = textwrap.dedent("""
    import hashlib, os, sys, time
    digest, seen = hashlib.sha256(), 0
    while part := sys.stdin.buffer.read1(1 << 16):
        digest.update(part)
        seen, before = seen + len(part), seen
        if seen >> 24 != before >> 24 and seen < int(sys.argv[2]):
            print("part", seen >> 24, flush=True)
            while os.path.getsize(sys.argv[1]) < seen >> 24:
                time.sleep(0.01)
    print(seen, digest.hexdigest(), flush=True)
""")
"""Behind each part that it tells of it waits until a file is as long as there are parts."""
BEAT = textwrap.dedent("""
    import socket, time
    everybody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    everybody.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    while True:
        try:
            everybody.sendto(b"beat", ("10.0.0.255", 9))
            print("beat")
        except OSError as error:
            print(error.strerror)
        time.sleep(0.01)
""")
LEASE = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
echo "lease of $ip by $serverid"
"""

pytestmark = MARKS


@pytest.fixture
def lan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lan]:
    yield from lan_in(tmp_path, monkeypatch)


@pytest.fixture
def known(lan: Lan) -> bytes:
    """What lies in the directory srv as the file known."""
    content = random.Random(7).randbytes(CONTENT_BYTES)
    lan.file("srv/known", content)
    return content


@needs("ip")
def test_a_programs_interface_is_its_domains_vif(lan: Lan) -> None:
    show = "ip -o link show eth0; ip -o addr show eth0; ip -o route show default; ip -6 -o route show default"
    vif = "mac=00:16:3e:00:00:07,mtu=1400,ip=10.0.0.7 10.1.0.7/16 fd00::7,gateway=10.1.9.1 fd00::1"
    lan.add("one", show, vif)
    cluster = lan.start()
    told = printed(cluster.domain("one"))
    assert "mtu 1400" in told and "00:16:3e:00:00:07" in told and ",UP,LOWER_UP" in told
    assert re.findall(r"inet6? (\S+) .*scope global", told) == ["10.0.0.7/24", "10.1.0.7/16", "fd00::7/64"]
    assert re.findall(r"default via (\S+) dev eth0", told) == ["10.1.9.1", "fd00::1"]


def test_a_program_whose_vif_is_taken_away_runs_on_without(lan: Lan) -> None:
    beat = lan.file("beat.py", BEAT.encode())
    lan.add("one", f"exec python3 -u {beat}", "ip=10.0.0.7", paths=[beat])
    cluster = lan.start()
    one = cluster.domain("one")
    wait_for(lambda: one.console_log().count("beat") >= 20, "its beats")
    reconfigure.network_detach("one", "0", force=False, as_json=False)
    wait_for(lambda: one.console_log().count("Network is unreachable") >= 20, "it to find no network")
    assert not one.info().devices
    assert one.state is DomainState.RUNNING and one.incarnation == 1


@needs("curl")
def test_curl_gets_from_a_web_server_in_another_domain_what_lies_there(lan: Lan, known: bytes) -> None:
    lan.add("web", WEB.format(directory=lan.directory / "srv"), "ip=10.0.0.2 fd00::2", paths=[lan.directory / "srv"])
    lan.add("client", f"for host in 10.0.0.2 [fd00::2]; do {GET} http://$host/known | sha256sum; done",
            "ip=10.0.0.3 fd00::3", after="web")  # fmt: skip
    cluster = lan.start()
    told = printed(cluster.domain("client"))
    assert re.findall(r"^(\w{64})  -", told, re.MULTILINE) == [hashlib.sha256(known).hexdigest()] * 2


@needs("curl")
def test_a_rule_of_the_network_holds_for_programs(lan: Lan, known: bytes) -> None:
    lan.add("web", WEB.format(directory=lan.directory / "srv"), "ip=10.0.0.2", paths=[lan.directory / "srv"])
    lan.add("client", f"{GET} -I http://10.0.0.2/known | head -n 1", "ip=10.0.0.3", after="web")
    lan.add("other", "curl -sS --connect-timeout 3 http://10.0.0.2 || echo refused", "ip=10.0.0.4", after="client")
    cluster = lan.start('rules = ["deny from=other proto=tcp to-port=80"]')
    assert "200 OK" in printed(cluster.domain("client"))
    assert "refused" in printed(cluster.domain("other"))


@needs("ping")
def test_ping_is_answered_in_both_families_and_with_large_packets(lan: Lan) -> None:
    lan.add("there", "exec sleep 1000", "ip=10.0.0.2 fd00::2,mtu=9000")
    each = "for host in 10.0.0.2 fd00::2; do ping -c 3 -i 0.2 -W 20 -s $size $host || exit; done"
    lan.add("here", f"for size in 56 8000; do {each}; done", "ip=10.0.0.3 fd00::3,mtu=9000", after="there")
    told = printed(lan.start("mtu = 9000").domain("here"))
    assert told.count("3 packets transmitted, 3 received, 0% packet loss") == 4


@needs("iperf3")
def test_iperf3_measures_either_way(lan: Lan) -> None:
    """Again while nobody listens yet, or the server has not done with the one before."""
    lan.add("server", "exec iperf3 -s", "ip=10.0.0.2")
    script = """
        for way in "" -R; do
            for try in $(seq 100); do iperf3 -c 10.0.0.2 -n 32M -P 2 $way && break; sleep 0.1; done
        done
    """
    lan.add("client", script, "ip=10.0.0.3", after="server")
    told = printed(lan.start().domain("client"))
    assert len(re.findall(r"\[SUM\].*bits/sec +receiver", told)) == 2, told


@needs("dnsmasq", "udhcpc", "ping")
def test_a_program_gets_its_address_by_dhcp(lan: Lan) -> None:
    lan.add("router", "exec dnsmasq -d -p 0 -i eth0 -F 10.0.0.50,10.0.0.50,1h --dhcp-authoritative -l /tmp/leases",
            "ip=10.0.0.1")  # fmt: skip
    script = lan.file("lease", LEASE.encode(), 0o755)
    lan.add("client", f"udhcpc -i eth0 -f -q -n -t 10 -s {script} && ping -c 1 -W 20 10.0.0.1", "mac=00:16:3e:00:00:09",
            paths=[script], after="router")  # fmt: skip
    cluster = lan.start()
    told = printed(cluster.domain("client"))
    assert "lease of 10.0.0.50 by 10.0.0.1" in told and " 0% packet loss" in told
    router = cluster.domain("router")
    wait_for(lambda: "DHCPACK(eth0) 10.0.0.50 00:16:3e:00:00:09" in router.console_log(), router.console_log)


@needs("tcpdump", "curl")
@pytest.mark.skipif("seccomp" in lacking_here(), reason="no seccomp here: no setgroups for tcpdump")
def test_tcpdump_sees_right_checksums_where_the_vif_leaves_none_to_others(lan: Lan, known: bytes) -> None:
    """The server leaves checksums and segmentation to whoever is last: here that is the switch."""
    lan.add("web", WEB.format(directory=lan.directory / "srv"), "ip=10.0.0.2", paths=[lan.directory / "srv"])
    script = f"""
        tcpdump -Z root -i eth0 -nn -v -c 400 tcp or udp >/tmp/seen 2>/tmp/words &
        until grep -q listening /tmp/words; do sleep 0.05; done
        {GET} http://10.0.0.2/known | sha256sum
        wait
        echo right $(grep -c "(correct)" /tmp/seen) wrong $(grep -c "incorrect" /tmp/seen)
        echo longest $(grep -o "length [0-9]*" /tmp/seen | sort -k 2 -n | tail -n 1)
    """
    lan.add("client", script, "ip=10.0.0.3,offload=0", after="web")
    told = printed(lan.start().domain("client"))
    assert hashlib.sha256(known).hexdigest() in told and "right 400 wrong 0" in told
    assert "longest length 1500" in told, told


@needs("curl")
def test_a_transfer_survives_deaths_of_the_network_driver_domain(lan: Lan) -> None:
    count, go, parts = lan.file("count.py", COUNT.encode()), lan.file("go", b""), LARGE_BYTES // MARK_BYTES
    content = random.Random(8).randbytes(LARGE_BYTES)
    lan.file("srv/known", content)
    lan.add("web", WEB.format(directory=lan.directory / "srv"), "ip=10.0.0.2", paths=[lan.directory / "srv"])
    lan.add("client", f"{GET} -N http://10.0.0.2/known | python3 {count} {go} {LARGE_BYTES}", "ip=10.0.0.3",
            paths=[count, go], after="web")  # fmt: skip
    cluster = lan.start()
    client, net = cluster.domain("client"), cluster.domain("net")
    for part in range(1, parts):
        wait_for(lambda part=part: f"part {part}\n" in client.console_log(), f"part {part}")  # type: ignore[misc]
        os.truncate(go, part)
        net.kill()
        net.wait_ready()
    assert printed(client).endswith(f"{LARGE_BYTES} {hashlib.sha256(content).hexdigest()}\n")
    assert net.incarnation == parts
    assert client.incarnation == cluster.domain("web").incarnation == 1


@needs("curl")
def test_another_rate_holds_for_a_transfer_that_is_under_way_and_another_address_is_refused(
    lan: Lan, known: bytes
) -> None:
    """At the first rate it would take seven hours."""
    lan.add("web", WEB.format(directory=lan.directory / "srv"), "ip=10.0.0.2,rate=1KB/s", paths=[lan.directory / "srv"])
    script = f"""
        {GET} -N -o /tmp/got http://10.0.0.2/known &
        until [ -s /tmp/got ]; do sleep 0.05; done
        echo begun
        wait
        sha256sum /tmp/got
    """
    lan.add("client", script, "ip=10.0.0.3", after="web")
    cluster = lan.start()
    client, web = cluster.domain("client"), cluster.domain("web")
    serve = WEB.format(directory=lan.directory / "srv")
    cfg = lan.file("web.cfg", f'''
        name = "web"
        kernel = "/bin/sh"
        args = ["-c", "{serve}"]
        paths = ["{lan.directory / "srv"}"]
        vif = ["ip=10.0.0.2{{vif}}"]
    '''.encode())  # fmt: skip
    template = cfg.read_text()
    cfg.write_text(template.format(vif=",mac=00:16:3e:00:00:0a"))
    wait_for(lambda: "begun" in client.console_log(), "the first bytes")
    with pytest.raises(HypercallError, match="vif 0 of domain web is plugged in, and the configuration has another"):
        reconfigure.config_update("web", cfg, as_json=False)
    cfg.write_text(template.format(vif=""))
    reconfigure.config_update("web", cfg, as_json=False)
    assert hashlib.sha256(known).hexdigest() in printed(client)
    assert web.incarnation == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="everything else here is as nobody already")
def test_all_of_it_holds_without_root() -> None:
    told = passes_as_nobody_with_tap(Path(__file__), timeout_s=580)
    assert "passed" in told and "failed" not in told
