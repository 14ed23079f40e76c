"""What is said of a domain's sandbox, by whoever configures it and by the domain: it is refused, or makes settings
that a process can be born with, and one line of a log."""

from __future__ import annotations

from collections.abc import Sequence

from hvd.broker import sandboxes
from hvd.broker.domain import Domain
from hvd.broker.errors import Refused
from hvd.domains.sandbox.limits import of_all_processes
from hvd.domains.sandbox.needs import Needs
from hvd.transport.codec import BadMessage, pack_request, unpack_request
from hvd.transport.errors import LocalError
from hvd.transport.ids import DomId
from hvd.transport.messages import DomainConfig, DomctlCreate, SandboxReport
from hvd.transport.sandbox import ACTIONS, LAYERS, Kind, in_force, split_path
from tests.fuzz.python.choices import Choices

NAMES_MAX = 6
LINE_MAX = len(LAYERS) * (sandboxes.REASON_MAX + 40) + 400


def play(data: bytes) -> None:
    choices = Choices(data)
    config = _config(choices)
    try:
        config = unpack_request(pack_request(DomctlCreate(config), 1, 0, 0))[3].config
        sandboxes.check(config)
    except (LocalError, BadMessage):
        return
    except Refused as refusal:
        assert str(refusal) and "\n" not in str(refusal)
        return
    domain = Domain(DomId(choices.below(3)), config, config.name, created_ns=0)
    _check_settings(domain)
    _check_report(choices, domain)


def _word(choices: Choices, known: Sequence[str]) -> str:
    """One that means something, or, seldom, any other."""
    return choices.text(12) if choices.below(16) == 1 else choices.pick(known)


def _layers(choices: Choices) -> list[str]:
    return [_word(choices, list(LAYERS)) for _ in range(choices.below(NAMES_MAX))]


def _config(choices: Choices) -> DomainConfig:
    paths = [("" if choices.below(16) == 1 else "/") + choices.text(20) for _ in range(choices.below(NAMES_MAX))]
    return DomainConfig(
        "d", choices.pick(("hvd:idle", "/kernels/k.py", "k")), memory=choices.number(2), driver_domain=choices.flag(),
        sandbox=_word(choices, ["", *Kind]), seccomp=_word(choices, ACTIONS), paths=paths, sandbox_off=_layers(choices),
        sandbox_require=_layers(choices),
    )  # fmt: skip


def _check_settings(domain: Domain) -> None:
    settings = sandboxes.settings(domain)
    kind = Kind(settings["kind"])
    assert set(settings["off"]) | set(settings["require"]) <= set(LAYERS)
    assert len(settings["off"]) == len(set(settings["off"]))
    assert ("network" in settings["off"]) or kind is not Kind.NETWORK
    certificate = {"domid": domain.domid, "kernel": domain.config.kernel, "run_dir": "/run/hvd",
                   "endpoint": "domains/1.1", "sandbox": settings}  # fmt: skip
    needs = Needs(certificate, kind)
    asked = {path: writable for path, writable in map(split_path, domain.config.paths) if writable}
    assert set(needs.writable) - {"/run/hvd/log"} == set(asked), "what is writable was said to be"
    assert all(path.startswith("/") for path in (*needs.writable, *needs.readable))
    assert all(number > 0 for number in of_all_processes(kind, memory_kib=settings["memory_kib"]).values())


def _check_report(choices: Choices, domain: Domain) -> None:
    """A domain that was taken over before it reported says what it likes, once."""
    untrusted = {_word(choices, list(LAYERS)): choices.text(200) for _ in range(choices.below(NAMES_MAX))}
    try:
        report = unpack_request(pack_request(SandboxReport(untrusted), 1, 0, 0))[3]
    except (LocalError, BadMessage):
        return
    line = sandboxes.take_report(domain, report.lacking)
    assert len(line) <= LINE_MAX and line.isprintable(), "a domain writes other lines into the hypervisor's console"
    assert domain.refused.isprintable()
    described = sandboxes.describe(domain)
    assert set(described["in_force"]) | set(described["lacking"]) == set(LAYERS)
    assert described["in_force"] == in_force(described["lacking"])
    try:
        sandboxes.take_report(domain, {})
    except Refused:
        return
    raise AssertionError("it was believed twice")
