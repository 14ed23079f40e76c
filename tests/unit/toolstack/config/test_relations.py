"""What must hold between domains: names, backends, shared images, an order to start in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hvd.toolstack.config import ClusterConfig, Problem


def domain(name: str, *lines: str, driver: bool = False) -> str:
    """The text of one domain."""
    flag = ["driver_domain = true"] if driver else []
    return "\n".join(["[[domain]]", f'name = "{name}"', 'kernel = "guest.py"', *flag, *lines, ""])


def echo(backend: str) -> str:
    return f'[[domain.device]]\ntype = "echo"\nbackend = "{backend}"'


def test_the_start_order_puts_backends_and_predecessors_first(cluster: Callable[[str], ClusterConfig]) -> None:
    config = cluster(
        domain("telematics", 'after = ["ivi", "dom0"]')
        + domain("ivi", 'disk = ["a.img,,xvda,rw,backend=storage"]')
        + domain("storage", echo("power"), driver=True)
        + domain("power", driver=True)
    )
    assert config.start_order == ("power", "storage", "ivi", "telematics")
    assert [each.name for each in config.domains] == ["telematics", "ivi", "storage", "power"]


def test_a_chain_longer_than_the_interpreters_stack_is_ordered(cluster: Callable[[str], ClusterConfig]) -> None:
    chain = [domain(f"d{number}", f'after = ["d{number + 1}"]') for number in range(999)]
    config = cluster("".join(chain) + domain("d999"))
    assert config.start_order == tuple(f"d{number}" for number in range(999, -1, -1))


def test_a_name_twice_is_told_with_where_it_was_first(problem: Callable[[str], Problem]) -> None:
    told = problem(domain("a") + domain("b") + domain("a"))
    assert (told.key, told.line) == ('domain[2] "a".name', 8)
    assert told.found == '"a", the name of domain[0] "a"'


def test_a_domain_called_dom0_is_not_taken_for_it(problem: Callable[[str], Problem]) -> None:
    assert problem(domain("Domain-0", echo("dom0"))).key == 'domain[0] "Domain-0".name'


def test_an_unknown_predecessor_is_told_with_the_nearest_name(problem: Callable[[str], Problem]) -> None:
    told = problem(domain("storage") + domain("b", 'after = ["storage", "storag"]'))
    assert (told.key, told.hint) == ('domain[1] "b".after[1]', 'did you mean "storage"?')


def test_an_unknown_backend_is_told_with_the_nearest_name(problem: Callable[[str], Problem]) -> None:
    told = problem(domain("storage", driver=True) + domain("b", 'disk = ["a.img,,xvda,r,backend=strage"]'))
    assert (told.key, told.hint) == ('domain[1] "b".disk[0].backend', 'did you mean "storage"?')


@pytest.mark.parametrize("device", ['disk = ["a.img,,xvda,r,backend=storage"]', echo("storage")])
def test_a_backend_is_a_driver_domain(problem: Callable[[str], Problem], device: str) -> None:
    told = problem(domain("storage") + domain("b", device))
    assert told.key.endswith("[0].backend")
    assert (told.expected, told.hint) == ("a driver domain", 'give domain[0] "storage" driver_domain = true')


def test_two_domains_that_wait_for_each_other_are_told_as_a_cycle(problem: Callable[[str], Problem]) -> None:
    told = problem(domain("a", 'after = ["b"]') + domain("b", 'after = ["a"]'))
    assert told.found in {"a → b → a", "b → a → b"}
    assert told.line in {4, 8}


def test_a_cycle_may_go_through_a_backend_and_reads_in_the_order_of_waiting(problem: Callable[[str], Problem]) -> None:
    told = problem(
        domain("a", 'after = ["b"]')
        + domain("b", echo("c"))
        + domain("c", 'after = ["a"]', driver=True)
        + domain("d", 'after = ["a"]')
    )
    assert told.found in {"a → b → c → a", "b → c → a → b", "c → a → b → c"}


def test_a_domain_cannot_wait_for_itself(problem: Callable[[str], Problem]) -> None:
    assert problem(domain("a", 'after = ["a"]')).found == "a → a"


def test_every_separate_cycle_is_told(problems: Callable[[str], list[Problem]]) -> None:
    pairs = [("a", "b"), ("c", "d"), ("e", "f")]
    text = "".join(domain(x, f'after = ["{y}"]') + domain(y, f'after = ["{x}"]') for x, y in pairs)
    assert len(problems(text)) == 3


def test_a_device_of_a_domain_is_there_once(problem: Callable[[str], Problem]) -> None:
    told = problem(domain("a", 'disk = ["a.img,,xvda", "b.img,,d0p0"]'))
    assert (told.key, told.found) == ('domain[0] "a".disk[1].vdev', '"d0p0", as in domain[0] "a".disk[0]')


def test_two_domains_may_name_their_disks_alike(cluster: Callable[[str], ClusterConfig]) -> None:
    cluster(domain("a", 'disk = ["a.img,,xvda"]') + domain("b", 'disk = ["b.img,,xvda"]'))


def test_an_image_has_one_writer_whatever_path_leads_to_it(problem: Callable[[str], Problem], directory: Path) -> None:
    (directory / "link.img").symlink_to("a.img")
    told = problem(domain("a", 'disk = ["a.img,,xvda,w"]') + domain("b", 'disk = ["link.img,,xvda,w"]'))
    assert (told.key, told.expected) == ('domain[1] "b".disk[0].target', "an image with one writer")
    assert 'domain[0] "a".disk[0] writes too' in told.found


def test_one_domain_may_not_write_an_image_as_two_disks(problem: Callable[[str], Problem]) -> None:
    assert problem(domain("a", 'disk = ["a.img,,xvda,w", "a.img,,xvdb,w"]')).key == 'domain[0] "a".disk[1].target'


def test_an_image_may_be_read_beside_its_writer(cluster: Callable[[str], ClusterConfig]) -> None:
    cluster(
        "".join(domain(name, f'disk = ["a.img,,xvda,{mode}"]') for name, mode in [("a", "w"), ("b", "r"), ("c", "r")])
    )


def logged(paths: str) -> str:
    guest = domain("ivi", 'disk = [{target="a.img", vdev="xvda", backend="storage", write_log="logs/disk.log"}]')
    return guest + domain("storage", f"paths = {paths}", driver=True)


@pytest.mark.parametrize("paths", ['["logs/disk.log:w"]', '["logs:w"]'])
def test_a_log_of_writes_is_a_file_that_the_backend_may_write(
    cluster: Callable[[str], ClusterConfig], tmp_path: Path, paths: str
) -> None:
    (tmp_path / "logs").mkdir()
    (device,) = cluster(logged(paths)).domain("ivi").devices
    assert device.backend_keys["hvd-write-log"] == str(tmp_path / "logs" / "disk.log")


@pytest.mark.parametrize("paths", ["[]", '["logs"]', '["a.img:w"]'])
def test_a_log_that_its_backend_may_not_write_is_told_with_what_to_do(
    problem: Callable[[str], Problem], tmp_path: Path, paths: str
) -> None:
    (tmp_path / "logs").mkdir()
    told = problem(logged(paths))
    assert (told.key, told.expected) == ('domain[0] "ivi".disk[0].write_log', "a file that its backend may write")
    assert told.hint.startswith('give domain[1] "storage" paths = ["')
