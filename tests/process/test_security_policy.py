"""The policies that ship, between real domains: what is denied, what is logged, what a broker's death leaves."""

from __future__ import annotations

import ast
import errno
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.cluster import Cluster, Domain, DomainState
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId
from hvd.transport.limits import AVC_BURST_MAX
from hvd.transport.messages import DeviceConfig, DomainConfig
from tests.progress import without_progress
from tests.waiting import wait_for

DEADLINE_S = 60.0
AGENT = '''
import errno
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOMID_SELF, DomId


def main(guest):
    """Does what dom0 writes into data/ask, "NUMBER:EXPRESSION", and writes what came of it into data/NUMBER."""
    store, call, grants, seen = guest.runtime.store, guest.runtime.hypercalls.call, guest.runtime.grants, []
    heard, kept = [], {}

    def keep(name, value):
        kept[name] = value
        return value

    def flood(count, message):
        denied = 0
        for _ in range(count):
            try:
                call(message)
            except HypercallError:
                denied += 1
        return denied

    def answer(path):
        number, _, expression = store.read_text("data/ask").partition(":")
        if not number or number in seen:
            return
        seen.append(number)
        try:
            result = eval(expression, globals() | locals() | {"guest": guest, "call": call, "store": store,
                "grants": grants, "keep": keep, "kept": kept, "heard": heard, "flood": flood})
        except HypercallError as error:
            result = errno.errorcode[error.errno]
        store.write(f"data/{number}", repr(result))

    store.watch("data/ask", answer)
    guest.run_forever()
'''
NUMBERS = itertools.count(1)


@pytest.fixture
def agent(tmp_path: Path) -> Callable[..., DomainConfig]:
    """A domain that does as it is told."""
    (tmp_path / "agent.py").write_text(AGENT)

    def config(name: str, seclabel: str = "", **fields: Any) -> DomainConfig:
        return DomainConfig(name, str(tmp_path / "agent.py"), seclabel=seclabel, on_crash="preserve", **fields)

    return config


def tell(domain: Domain, expression: str) -> Any:
    """Have a domain evaluate an expression; the name of the errno if a hypercall in it was refused."""
    number = next(NUMBERS)
    home = f"/local/domain/{domain.domid}/data"
    cluster = domain._cluster
    cluster.call(m.StoreWrite(0, f"{home}/ask", f"{number}:{expression}".encode()))
    found: list[bytes] = []

    def answered() -> bool:
        info = domain.info()
        assert info.state is DomainState.RUNNING, info.last_death
        try:
            found[:] = [cluster.call(m.StoreRead(0, f"{home}/{number}"))]
        except HypercallError as error:
            assert error.errno == errno.ENOENT
        return bool(found)

    wait_for(answered, f"{domain.name} to evaluate {expression}")
    return ast.literal_eval(found[0].decode())


def open_port(owner: Domain, peer: Domain) -> Any:
    return tell(owner, f"keep('port', call(m.EvtchnAllocUnbound(DOMID_SELF, {peer.domid}))[0]['port'])")


def bind(peer: Domain, owner: Domain, port: Any) -> Any:
    return tell(peer, f"keep('port', call(m.EvtchnBindInterdomain({owner.domid}, {port}))[0]['port']) and 'bound'")


def share(owner: Domain, peer: Domain) -> Any:
    return tell(owner, f"keep('page', grants.share({peer.domid}, 1)).ref")


def map_page(peer: Domain, owner: Domain, ref: Any) -> Any:
    return tell(peer, f"keep('mapped', grants.map({owner.domid}, {ref})) and 'mapped'")


def publish(owner: Domain, peer: Domain) -> None:
    """A node that its owner lets a peer do everything with."""
    tell(owner, "store.write('data/note', 'hello')")
    tell(owner, f"call(m.StoreSetPerms(0, 'data/note', ['n{owner.domid}', 'b{peer.domid}']))")


def read_note(peer: Domain, owner: Domain) -> Any:
    return tell(peer, f"call(m.StoreRead(0, '/local/domain/{owner.domid}/data/note'))")


def write_note(peer: Domain, owner: Domain) -> Any:
    return tell(peer, f"call(m.StoreWrite(0, '/local/domain/{owner.domid}/data/note', b'x')) or 'written'")


def meets(one: Domain, other: Domain) -> dict[str, Any]:
    """Everything that one can try with another that lets it."""
    publish(other, one)
    port, ref = open_port(other, one), share(other, one)
    return {
        "create": port if isinstance(port, str) else "created",
        "bind": bind(one, other, port if isinstance(port, int) else 3),
        "setup": ref if isinstance(ref, str) else "granted",
        "map": map_page(one, other, ref if isinstance(ref, int) else 8),
        "read": read_note(one, other),
        "write": write_note(one, other),
    }


ALL_DONE = {"create": "created", "bind": "bound", "setup": "granted", "map": "mapped", "read": b"hello",
            "write": "written"}  # fmt: skip
ALL_DENIED = dict.fromkeys(ALL_DONE, "EACCES")


def denials(cluster: Cluster, **fields: object) -> list[str]:
    """The lines of the audit log with all of these fields."""
    words = {f"{name}={value}" for name, value in fields.items()}
    return [line for line in cluster.audit_log() if "avc:  denied" in line and words <= set(line.split())]


def denied_in(line: str) -> list[str]:
    return line.partition("{")[2].partition("}")[0].split()


@contextmanager
def running(domains: list[DomainConfig], policy: str) -> Iterator[tuple[Cluster, list[Domain]]]:
    with Cluster.build(domains, policy=policy) as cluster:
        yield cluster, [cluster.domain(config.name) for config in domains]


def kill_broker(cluster: Cluster) -> None:
    before = cluster.info()["broker_pid"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: cluster.info()["broker_pid"] != before, "another broker")


def test_under_the_default_policy_domains_meet_as_they_let_each_other(agent):
    with running([agent("one"), agent("other", "safety_t")], "default") as (cluster, (one, other)):
        assert meets(one, other) == ALL_DONE
        assert meets(other, one) == ALL_DONE
        assert cluster.audit_log() == []


def test_in_the_silo_guests_do_not_meet_and_each_reaches_its_driver_domain(agent):
    driver = DomainConfig("driver", "hvd:driver_domain", driver_domain=True)
    devices = [DeviceConfig("echo", 0, "driver")]
    domains = [agent("one", devices=devices), agent("other", "safety_t", devices=devices)]
    with Cluster.build([driver, *domains], policy="silo") as cluster:
        one, other = cluster.domain("one"), cluster.domain("other")
        assert cluster.audit_log() == []  # their devices have connected: rings, channels and nodes of the driver's
        assert meets(one, other) == ALL_DENIED
        assert meets(other, one) == ALL_DENIED
        for guest, peer, label, others in ((one, other, "domU_t", "safety_t"), (other, one, "safety_t", "domU_t")):
            classes = {"event": {"create", "bind"}, "grant": {"setup", "map_read", "map_write"},
                       "store": {"read", "write"}}  # fmt: skip
            for tclass, permissions in classes.items():
                lines = denials(cluster, domid=guest.domid, target=peer.domid, scontext=label, tcontext=others,
                                tclass=tclass, permissive=0)  # fmt: skip
                assert {word for line in lines for word in denied_in(line)} == permissions
        assert tell(one, "heard") == []


def test_in_the_silo_no_watch_no_transaction_and_no_node_of_dom0s_carries_a_word(agent):
    with running([agent("one"), agent("other")], "silo") as (cluster, (one, other)):
        publish(one, other)
        note = f"/local/domain/{one.domid}/data/note"
        cluster.call(m.StoreWrite(0, "/board", b""))
        cluster.call(m.StoreSetPerms(0, "/board", ["n0", f"w{one.domid}", f"r{other.domid}"]))
        tell(other, f"store.watch('{note}', heard.append)")
        tell(other, "store.watch('/board', heard.append)")
        tx = tell(other, "call(m.StoreTransactionStart())")
        assert tell(other, f"call(m.StoreRead({tx}, '{note}'))") == "EACCES"
        assert tell(one, "store.write('data/note', 'again')") is None
        assert tell(one, "store.write('/board', 'message')") is None
        assert tell(other, f"call(m.StoreTransactionEnd({tx}, True))") is None
        assert tell(other, "call(m.StoreRead(0, '/board'))") == "EACCES"
        assert tell(other, f"sorted(set(heard) - {{'/board', '{note}'}})") == []
        assert tell(other, "len(heard)") == 2  # each watch fires once when it is set


def test_in_the_cockpit_nothing_untrusted_reaches_the_safety_domain_nor_its_driver_domain(agent):
    domains = [agent("ivi"), agent("driver", driver_domain=True), agent("safety", "safety_t"),
               agent("safe-driver", "safety_driver_t", driver_domain=True)]  # fmt: skip
    with running(domains, "cockpit") as (cluster, (ivi, driver, safety, safe_driver)):
        assert meets(ivi, driver) == meets(driver, ivi) == ALL_DONE
        assert meets(safety, safe_driver) == meets(safe_driver, safety) == ALL_DONE
        assert cluster.audit_log() == []
        for untrusted in (ivi, driver):
            for safe in (safety, safe_driver):
                assert meets(untrusted, safe) == meets(safe, untrusted) == ALL_DENIED
        safety.pause()
        safety.unpause()
        assert tell(ivi, f"call(m.DomctlPause({safety.domid}))") == "EPERM"  # a privilege, which no policy gives


def test_a_guest_changes_neither_policy_nor_mode(agent):
    with running([agent("one"), agent("other")], "silo") as (cluster, (one, _)):
        table = "m.Policy('x', ['dom0_t', 'domU_t'], 'dom0_t', 'domU_t', 'domU_t', [4095] * 4, [3, 3])"
        for _ in range(2):
            assert tell(one, f"call(m.XsmLoad({table}))") == "EACCES"
            assert tell(one, "call(m.XsmSetenforce(False))") == "EACCES"
            assert tell(one, "call(m.XsmGetenforce())['policy']") == "silo"
            cluster.setenforce(False)
        assert len(denials(cluster, tclass="security", domid=one.domid, permissive=0)) == 4


def test_the_permissive_mode_lets_everything_pass_and_logs_it(agent):
    with running([agent("one"), agent("other")], "silo") as (cluster, (one, other)):
        cluster.setenforce(False)
        assert meets(one, other) == ALL_DONE
        assert not cluster.getenforce()
        assert {line.rpartition("tclass=")[2] for line in denials(cluster, permissive=1)} == {
            "event permissive=1", "grant permissive=1", "store permissive=1",
        }  # fmt: skip
        assert denials(cluster, permissive=0) == []
        assert [line for line in cluster.dmesg() if "avc:  denied  { bind }" in line]


def test_a_policy_that_is_loaded_decides_on_what_comes_and_leaves_what_there_is(agent):
    with running([agent("one"), agent("other")], "default") as (cluster, (one, other)):
        assert meets(one, other) == ALL_DONE
        cluster.load_policy("silo")
        assert cluster.info()["policy"] == "silo"
        assert tell(one, "kept['mapped'].view.__setitem__(slice(0, 4), b'data')") is None
        assert tell(other, "bytes(kept['page'].view[:4])") == b"data"
        assert meets(one, other) == ALL_DENIED
        assert tell(one, "grants.unmap(kept['mapped'])") is None
        assert tell(one, "call(m.EvtchnClose(kept['port']))") is None


def test_the_next_broker_has_policy_mode_labels_and_log(agent):
    with running([agent("one"), agent("other", "safety_t")], "default") as (cluster, (one, other)):
        cluster.load_policy("silo")
        kill_broker(cluster)
        assert meets(one, other) == ALL_DENIED
        before = cluster.dmesg(), cluster.audit_log()
        cluster.setenforce(False)
        kill_broker(cluster)
        assert not cluster.getenforce()
        assert cluster.info()["policy"] == "silo"
        assert other.info().seclabel == "safety_t"
        assert meets(one, other) == ALL_DONE
        assert cluster.dmesg()[: len(before[0])] == before[0]
        assert cluster.audit_log()[: len(before[1])] == before[1]
        other.kill()
        assert other.wait_state(DomainState.PRESERVED).seclabel == "safety_t"


COUNTER = """
def main(guest):
    disk, count = guest.disk(), 0
    while True:
        count += 1
        disk.write(0, count.to_bytes(8, "little") + bytes(504))
"""
WRITES = 500


def test_data_flows_under_a_policy_without_asking_it_while_who_would_be_asked_is_stopped(tmp_path):
    """0 policy calls on the data path: what is asked is asked of the broker, and nobody waits for it."""
    kernel, image = tmp_path / "counter.py", tmp_path / "counter.img"
    kernel.write_text(COUNTER)
    image.write_bytes(bytes(1 << 20))
    disk = DeviceConfig("vbd", 51712, "storage", {"params": str(image), "mode": "w", "dev": "xvda"})
    configs = [DomainConfig("storage", "hvd:driver_domain", driver_domain=True),
               DomainConfig("guest", str(kernel), devices=[disk])]  # fmt: skip

    def written() -> int:
        return int.from_bytes(image.read_bytes()[:8], "little")

    with Cluster.build(configs, policy="silo") as cluster:
        wait_for(lambda: written() > 0, "the first write")
        assert cluster.getenforce()
        machine, broker = (int(cluster.info()[name]) for name in ("machine_pid", "broker_pid"))
        os.kill(machine, signal.SIGSTOP)  # or it has another broker after a few seconds, which the writes may take
        os.kill(broker, signal.SIGSTOP)
        try:
            wait_for(lambda: Path(f"/proc/{broker}/stat").read_text().rpartition(")")[2].split()[0] == "T", "its stop")
            before = written()
            wait_for(lambda: written() >= before + WRITES, f"{WRITES} writes that ask nobody")
        finally:
            os.kill(broker, signal.SIGCONT)
            os.kill(machine, signal.SIGCONT)
        assert cluster.info()["broker_pid"] == broker


def test_a_machine_that_is_rebooted_has_the_policy_that_it_booted_with(agent):
    with running([agent("one", "safety_t")], "cockpit") as (cluster, _):
        cluster.load_policy("default")
        cluster.setenforce(False)
        cluster.reboot(grace_s=0, deadline_s=DEADLINE_S)
        assert (cluster.info()["policy"], cluster.getenforce()) == ("cockpit", True)
        assert cluster.domain("one").info().seclabel == "safety_t"


def test_a_cluster_file_says_in_which_mode_the_machine_boots(tmp_path):
    (tmp_path / "c.toml").write_text('policy = "silo"\nflask = "permissive"\n')
    with Cluster.load(tmp_path / "c.toml") as cluster:
        assert (cluster.info()["policy"], cluster.getenforce()) == ("silo", False)
    with Cluster.load(tmp_path / "c.toml", policy="cockpit") as cluster:
        assert (cluster.info()["policy"], cluster.getenforce()) == ("cockpit", False)


def test_a_domain_that_is_denied_without_end_fills_neither_log_nor_console(agent):
    with running([agent("one"), agent("other")], "silo") as (cluster, (one, other)):
        asked = 40 * AVC_BURST_MAX
        message = f"m.EvtchnBindInterdomain(DomId({other.domid}), 1)"
        assert tell(one, f"flood({asked}, {message})") == asked
        lines = len(denials(cluster, domid=one.domid))
        assert AVC_BURST_MAX <= lines < asked / 4
        assert meets(other, one)["read"] == "EACCES"
        assert denials(cluster, domid=other.domid, target=one.domid)
        one.kill()
        one.wait_state(DomainState.PRESERVED)
        wait_for(lambda: any("were not logged" in line for line in cluster.audit_log()), "the count")
        assert len([line for line in cluster.dmesg() if f"domid={one.domid} " in line]) < asked / 4


def test_a_domain_whose_label_the_policy_lacks_is_not_created(agent):
    with Cluster.build() as cluster:
        with pytest.raises(HypercallError, match="the policy 'default' has no label 'lost_t'") as refused:
            cluster.create(agent("one", "lost_t"))
        assert refused.value.errno == errno.EINVAL
        assert len(cluster.domains()) == 1


def hvd(run_dir: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hvd", *words]
    environment = {"HVD_RUN_DIR": str(run_dir), "PATH": "/bin:/usr/bin"}
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def test_the_commands_are_xls(tmp_path):
    run_dir = tmp_path / "run"
    (tmp_path / "c.toml").write_text(
        'policy = "silo"\n[[domain]]\nname = "one"\nkernel = "hvd:idle"\nseclabel = "safety_t"\n'
    )
    (tmp_path / "guest.cfg").write_text('name = "two"\nkernel = "hvd:idle"\nseclabel = "system_u:system_r:domU_t"\n')
    assert hvd(run_dir, "up", "-d", "c.toml", "--policy", "nowhere.toml", cwd=tmp_path).returncode == 2
    assert not run_dir.exists()
    try:
        assert hvd(run_dir, "up", "-d", "c.toml", cwd=tmp_path).returncode == 0
        assert hvd(run_dir, "getenforce").stdout == "Enforcing\n"
        assert hvd(run_dir, "setenforce", "0").returncode == 0
        assert hvd(run_dir, "getenforce", "--json").stdout == '{"policy": "silo", "enforcing": false}\n'
        assert hvd(run_dir, "setenforce", "late").returncode == 2
        assert hvd(run_dir, "loadpolicy", "slio").returncode == 2
        assert hvd(run_dir, "loadpolicy", "cockpit").stdout == "loaded the policy cockpit: 5 labels\n"
        (tmp_path / "small.toml").write_text(
            '[labels]\na = ""\n[defaults]\ndom0 = "a"\ndriver_domain = "a"\nguest = "a"\n'.replace('""', '"all"')
        )
        refused = hvd(run_dir, "loadpolicy", "small.toml", cwd=tmp_path)
        assert (refused.returncode, "lacks labels that domains have: dom0_t, safety_t" in refused.stderr) == (1, True)
        created = hvd(run_dir, "create", "guest.cfg", cwd=tmp_path)
        assert (created.returncode, without_progress(created.stderr)) == (0, "")
        assert hvd(run_dir, "create", "c.toml", cwd=tmp_path).returncode == 2
        table = hvd(run_dir, "list", "-Z").stdout.splitlines()
        assert table[0].endswith("Security Label")
        assert [line.split()[-1] for line in table[1:]] == ["dom0_t", "safety_t", "domU_t"]
        assert "Flask: permissive by domain 0" in hvd(run_dir, "logs", "_avc").stdout
    finally:
        hvd(run_dir, "down", "--grace", "0")


def test_the_names_of_domains_leave_the_audit_log_alone():
    with Cluster.build() as cluster:
        for name in ("_avc", "_avc.log"):
            with pytest.raises(HypercallError):
                cluster.create(DomainConfig(name, "hvd:idle"))
        assert DomId(0) in cluster.infos()
