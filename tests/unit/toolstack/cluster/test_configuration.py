"""What a machine is given to boot from: every domain behind those it needs, and nothing that does not fit together."""

from pathlib import Path

import msgpack
import pytest

from hvd.toolstack.cluster.configuration import plan_from_domains, plan_from_file
from hvd.toolstack.config import ConfigError
from hvd.toolstack.config.policy_file import load_policy
from hvd.transport.codec import decode
from hvd.transport.messages import BootConfig, DeviceConfig, DomainConfig, NetworkConfig
from hvd.transport.xsm import OPEN_POLICY


def booted(configuration: bytes) -> list[DomainConfig]:
    domains: list[DomainConfig] = boot_config(configuration).domains
    return domains


def boot_config(configuration: bytes) -> BootConfig:
    decoded: BootConfig = decode(BootConfig, msgpack.unpackb(configuration), "configuration")
    return decoded


def names(configuration: bytes) -> list[str]:
    return [config.name for config in booted(configuration)]


def test_a_machine_is_told_of_networks_and_of_the_devices_that_it_is_to_open(tmp_path):
    lan, other = '[[network]]\nname = "lan"\nmtu = 9000\nuplink = "tap0"\n', '[[network]]\nname = "b"\n'
    (tmp_path / "c.toml").write_text(lan + other)
    plan = plan_from_file(tmp_path / "c.toml")
    assert [network.name for network in boot_config(plan.configuration).networks] == ["lan", "b"]
    assert plan.order(tmp_path, temporary=False).uplinks == [("tap0", 9000)]


def test_dom0_is_always_there_and_first():
    assert names(plan_from_domains([], "alone").configuration) == ["Domain-0"]


def test_domains_boot_behind_what_they_need():
    guest = DomainConfig("guest", "hvd:idle", after=["late"], devices=[DeviceConfig("echo", 0, "driver")])
    late = DomainConfig("late", "hvd:idle")
    driver = DomainConfig("driver", "hvd:driver_domain", driver_domain=True)
    order = names(plan_from_domains([guest, late, driver], "three").configuration)
    assert order[0] == "Domain-0"
    assert order.index("guest") > max(order.index("late"), order.index("driver"))


@pytest.mark.parametrize("name", ["dom0", "Domain-0"])
def test_a_domain_named_domain_0_says_what_dom0_is(name):
    dom0, guest = booted(
        plan_from_domains([DomainConfig("g", "hvd:idle"), DomainConfig(name, "hvd:idle")], "two").configuration
    )
    assert (dom0.name, dom0.kernel) == ("Domain-0", "hvd:idle")
    assert guest.name == "g"


def test_dom0_may_be_called_by_its_short_name():
    device = DeviceConfig("echo", 0, "dom0")
    _, guest = booted(
        plan_from_domains([DomainConfig("g", "hvd:idle", after=["dom0"], devices=[device])], "x").configuration
    )
    assert guest.after == ["Domain-0"]
    assert guest.devices[0].backend == "Domain-0"


def test_a_kernel_is_found_from_the_current_directory(monkeypatch, tmp_path):
    (tmp_path / "k.py").write_text("def main(guest): pass\n")
    monkeypatch.chdir(tmp_path)
    _, guest = booted(plan_from_domains([DomainConfig("g", "k.py")], "x").configuration)
    assert Path(guest.kernel) == tmp_path / "k.py"


@pytest.mark.parametrize(
    ("domains", "expected"),
    [
        ([DomainConfig("a b", "hvd:idle")], "name: expected 1 to 64 letters"),
        ([DomainConfig("a", "hvd:idle"), DomainConfig("a", "hvd:idle")], "expected a name of its own"),
        ([DomainConfig("a", "/nowhere/k.py")], "No such file"),
        ([DomainConfig("a", "hvd:idle", after=["b"])], 'after[0]: expected the name of a domain, found "b"'),
        ([DomainConfig("a", "hvd:idle", after=["b"]), DomainConfig("b", "hvd:idle", after=["a"])], "an order to start"),
        ([DomainConfig("a", "hvd:idle", devices=[DeviceConfig("echo", 0, "b")]), DomainConfig("b", "hvd:idle")],
         "expected a driver domain"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused_by_name(domains, expected):
    with pytest.raises(ConfigError) as caught:
        plan_from_domains(domains, "x")
    assert expected in str(caught.value)


def test_every_mistake_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        plan_from_domains([DomainConfig("a b", "hvd:idle", after=["c"]), DomainConfig("d", "/nowhere/k.py")], "x")
    assert len(caught.value.problems) == 3


def test_a_paused_domain_holds_back_those_behind_it():
    device = DeviceConfig("echo", 0, "driver")
    plan = plan_from_domains(
        [
            DomainConfig("driver", "hvd:driver_domain", driver_domain=True, paused=True),
            DomainConfig("user", "hvd:idle", devices=[device]),
            DomainConfig("friend", "hvd:idle", after=["user"]),
            DomainConfig("other", "hvd:idle"),
        ],
        "x",
    )
    assert plan.held_back == {"driver", "user", "friend"}


def test_a_file_becomes_the_same_plan(tmp_path):
    (tmp_path / "pair.toml").write_text('[[domain]]\nname = "one"\nkernel = "hvd:idle"\n')
    plan = plan_from_file(tmp_path / "pair.toml")
    assert plan.name == "pair"
    assert names(plan.configuration) == ["Domain-0", "one"]


def test_a_cluster_that_names_no_policy_has_the_open_one():
    boot = boot_config(plan_from_domains([], "alone").configuration)
    assert (boot.policy, boot.enforcing) == (OPEN_POLICY, True)


def test_the_policy_and_the_mode_of_a_file_are_in_the_plan(tmp_path):
    domain = '[[domain]]\nname = "one"\nkernel = "hvd:idle"\nseclabel = "safety_t"\n'
    (tmp_path / "c.toml").write_text(f'policy = "silo"\nflask = "permissive"\n{domain}')
    boot = boot_config(plan_from_file(tmp_path / "c.toml").configuration)
    assert (boot.policy, boot.enforcing) == (load_policy("silo"), False)
    assert [config.seclabel for config in boot.domains] == ["", "safety_t"]


def test_the_policy_that_is_given_stands_in_the_place_of_the_files(tmp_path):
    (tmp_path / "c.toml").write_text('policy = "silo"\n')
    plan = plan_from_file(tmp_path / "c.toml", load_policy("cockpit"))
    assert boot_config(plan.configuration).policy == load_policy("cockpit")


def test_a_label_that_the_policy_lacks_is_refused_by_name():
    with pytest.raises(ConfigError) as caught:
        plan_from_domains([DomainConfig("g", "hvd:idle", seclabel="safty_t")], "x")
    assert 'seclabel: expected a label of the policy default: dom0_t' in str(caught.value)
    assert 'found "safty_t"; did you mean "safety_t"?' in str(caught.value)


NET = DomainConfig("net", "hvd:driver_domain", driver_domain=True)
CABIN = NetworkConfig("cabin", "net", 1400, False, False, ["allow  ether=arp", "allow from=a to=uplink"], "tap0")


def guest(name: str, backend: str = "net", **keys: str) -> DomainConfig:
    return DomainConfig(name, "hvd:idle", devices=[DeviceConfig("vif", 0, backend, keys)])


def test_networks_that_a_program_describes_are_those_of_a_file(tmp_path):
    (tmp_path / "c.toml").write_text('''
        [[network]]
        name = "cabin"
        backend = "net"
        mtu = 1400
        antispoof = false
        default = "deny"
        rules = ["allow  ether=arp", "allow from=a to=uplink"]
        uplink = "tap0"
        [[network]]
        name = "lan"
        [[domain]]
        name = "net"
        kernel = "hvd:driver_domain"
        driver_domain = true
        [[domain]]
        name = "a"
        kernel = "hvd:idle"
    ''')
    file = plan_from_file(tmp_path / "c.toml")
    built = plan_from_domains([NET, DomainConfig("a", "hvd:idle")], "c",
                              networks=[CABIN, NetworkConfig("lan", "dom0")])  # fmt: skip
    assert boot_config(built.configuration) == boot_config(file.configuration)
    assert built.uplinks == file.uplinks == [("tap0", 1400)]


G = DomainConfig("g", "hvd:idle")


@pytest.mark.parametrize(
    ("networks", "guests", "expected"),
    [
        ([NetworkConfig("a b", "net")], [], "Cluster.build: network[0].name: expected 1 to 64 letters"),
        ([NetworkConfig("x", "nett")], [],
         'network[0] "x".backend: expected the name of a domain, found "nett"; did you mean "net"?'),
        ([NetworkConfig("x", "g")], [G], 'network[0] "x".backend: expected a driver domain, found "g", which is none'),
        ([NetworkConfig("x", "net"), NetworkConfig("x", "net")], [], 'network[1] "x".name: expected a name of its own'),
        ([NetworkConfig("x", "net", 67)], [], 'network[0] "x".mtu: expected a whole number from 68 to 9000, found 67'),
        ([NetworkConfig("x", "net", rules=["allow", "permit"])], [],
         'network[0] "x".rules[1]: expected a rule of a network, found a rule begins with allow or deny'),
        ([NetworkConfig("x", "net", rules=["allow from=h"])], [G],
         'rules[0]: expected the name of a domain, found "h"'),
        ([NetworkConfig("x", "net", uplink="tap 0")], [], "uplink: expected the name of a TAP device"),
        ([NetworkConfig("x", "net", uplink="t"), NetworkConfig("y", "net", uplink="t")], [],
         'network[1] "y".uplink: expected a TAP device of its own'),
        ([NetworkConfig("x", "net")], [guest("g", bridge="y")],
         'domain[1] "g".devices[0]: expected a network of the cluster (x), found "y"'),
        ([NetworkConfig("x", "net")], [guest("g")], 'expected a network of the cluster (x), found "xenbr0"'),
        ([NetworkConfig("x", "dom0")], [guest("g", bridge="x")],
         'expected Domain-0, which has the network x, found "net"'),
        ([], [guest(name, mac="00:16:3e:00:00:09") for name in ("g", "h")],
         'domain[2] "h".devices[0].mac: expected an address of its own, found "00:16:3e:00:00:09", as in'),
    ],
)  # fmt: skip
def test_what_is_wrong_with_networks_and_their_vifs_is_told_as_of_a_file(networks, guests, expected):
    with pytest.raises(ConfigError) as caught:
        plan_from_domains([NET, *guests], "x", networks=networks)
    assert expected in str(caught.value)
