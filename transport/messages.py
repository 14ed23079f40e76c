"""Every hypercall, declared once: its number and its bounded fields. codec.py turns them into bytes and back.

Numbers are Xen's hypercall number in the high byte and its sub-operation in the low one (public/xen.h, event_channel.h,
grant_table.h, sched.h, domctl.h, io/xs_wire.h); operations that Xen does not have start at 0x80. On the wire, msgpack:

    request  [version, sequence, events_acknowledged, descriptors_received, number, [field, ...]]
    reply    [sequence, errno, value or text, descriptors_that_follow]

A message never says who sends it: the endpoint that it arrives on does.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

from hvd.transport.faults import RATE_MOST
from hvd.transport.ids import DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.limits import COPY_SEGMENTS_MAX, DOMAINS_MAX, EXTENT_PAGES_MAX, LABELS_MAX, NETWORKS_MAX
from hvd.transport.records import field
from hvd.transport.records import light_dataclass as dataclass

WIRE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Most:
    """The largest value of a number, or the most bytes or items of anything else."""

    most: int


U32 = Annotated[int, Most(2**32 - 1)]
U63 = Annotated[int, Most(2**63 - 1)]
Name = Annotated[str, Most(64)]
Token = Annotated[str, Most(1022)]

HYPERCALLS: dict[int, type] = {}
M = TypeVar("M", bound=type)


def hypercall(number: int) -> Callable[[M], M]:
    """Register a message class under its number; it also learns it as `NUMBER`."""

    def register(message: M) -> M:
        if number in HYPERCALLS:
            raise ValueError(f"{message.__name__} and {HYPERCALLS[number].__name__} share number {number:#x}")
        HYPERCALLS[number] = message
        message.NUMBER = number  # type: ignore[attr-defined]
        return message

    return register


# ---- what a domain is made of ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """One device of a domain: the keys the toolstack writes into either end's XenStore directory."""

    kind: Name
    """The device's name in XenStore: vbd, echo, ... (its folder under device/ and backend/)."""
    devid: U32
    backend: Name
    """The name of the domain that hosts the backend."""
    backend_keys: dict[str, str] = field(default_factory=dict)
    frontend_keys: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often and how soon a domain that stopped is started again."""

    limit: U32 = 5
    window_ms: U32 = 10_000
    delay_ms: U32 = 100
    delay_max_ms: U32 = 30_000


@dataclass(frozen=True, slots=True)
class DomainConfig:
    """What `create` is told; the names are xl.cfg's where xl.cfg has one."""

    name: Name
    kernel: str
    """A Python file with `main(guest)`, the name of an entry point in the group `hvd.kernels`, or a program's path."""
    args: list[str] = field(default_factory=list)
    memory: U32 = 64
    vcpus: U32 = 1
    cpus: list[int] = field(default_factory=list)
    """Physical CPUs it may run on; empty: all."""
    driver_domain: bool = False
    spare: bool = False
    """Whether a process stands by to take over when this domain's dies."""
    service: Name = ""
    """What it serves under one name with others, of whom one is active at a time."""
    on_poweroff: Name = "destroy"
    on_reboot: Name = "restart"
    on_crash: Name = "restart"
    on_watchdog: Name = "restart"
    heartbeat_ms: U32 = 1000
    """How often it is looked at whether it hangs; 0: never."""
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    after: list[str] = field(default_factory=list)
    """Names of domains that must be ready before this one is started."""
    devices: list[DeviceConfig] = field(default_factory=list)
    paused: bool = False
    seclabel: Name = ""
    """Its label in the security policy; empty: the one that the policy has for its kind."""
    sandbox: Name = ""
    """A sandbox.Kind; empty: a driver domain's or a guest's, as `driver_domain` says."""
    seccomp: Name = "kill"
    """What a system call that the sandbox does not allow leads to: "kill" or "eperm"."""
    paths: list[str] = field(default_factory=list)
    """Files and directories of the host that it may read, and write if ":w" stands behind."""
    sandbox_off: list[str] = field(default_factory=list)
    """Layers it does without: to find out what one of them stops."""
    sandbox_require: list[str] = field(default_factory=list)
    """Layers without which it is not run."""
    uuid: Name = ""
    """Its UUID as text; empty: one that the machine makes for its domid."""
    maxmem: U32 = 0
    """MiB: as much as `mem-set` may give it while it runs; at least `memory`, which 0 stands for."""
    io_bps: U63 = 0
    """Bytes a second that its processes may read of each disk of the host, and as many that they may write; 0: any."""


# ---- what a machine boots from ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """A security policy, compiled: labels by number, and what one may do to another (transport/xsm.py has the bits)."""

    name: Name
    labels: Annotated[list[Name], Most(LABELS_MAX)]
    dom0: Name
    """The label of dom0 when its configuration names none, as the next two are."""
    driver_domain: Name
    guest: Name
    vectors: Annotated[list[U32], Most(LABELS_MAX * LABELS_MAX)]
    """For each label as the source, in order, for each label as the target: the permissions it has."""
    security: Annotated[list[U32], Most(LABELS_MAX)]
    """For each label: what it may do to the policy."""


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Domains that are supervised together (hvd/broker/supervision.py)."""

    name: Name
    members: Annotated[list[Name], Most(DOMAINS_MAX)]
    """Names of domains, or of other groups, in the order in which they start; each is in one group at most."""
    strategy: Name = "one_for_one"
    limit: U32 = 5
    """Restarts of the group within the window; 0: no limit."""
    window_ms: U32 = 10_000
    escalate: Name = "fail"
    """What follows when there are more."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What holds for every vif that names it as its `bridge` (docs/networks.md)."""

    name: Name
    backend: Name
    """The domain whose switch it is in."""
    mtu: U32 = 1500
    antispoof: bool = True
    """Of a vif that does not say."""
    allow_by_default: bool = True
    """What becomes of a packet that no rule fits."""
    rules: list[str] = field(default_factory=list)
    """Lines of transport/net_rules.py."""
    uplink: Name = ""
    """The host's TAP device that is a port of the switch; empty: there is none."""


@dataclass(frozen=True, slots=True)
class BootConfig:
    """All that a machine boots from, and boots from again."""

    policy: Policy
    enforcing: bool
    domains: Annotated[list[DomainConfig], Most(DOMAINS_MAX)]
    """dom0 first, each behind those it needs."""
    groups: Annotated[list[GroupConfig], Most(DOMAINS_MAX)] = field(default_factory=list)
    networks: Annotated[list[NetworkConfig], Most(NETWORKS_MAX)] = field(default_factory=list)


# ---- multicall (13) --------------------------------------------------------------------------------------------------


@hypercall(0x0D00)
@dataclass(frozen=True, slots=True)
class Multicall:
    """Several hypercalls in one message; reply [errno, value or text, descriptors] for each. One failing stops none.

    Each entry is the msgpack of [number, [field, ...]], as codec.pack_call makes it: XenStore operations, mapping and
    unmapping of grants, binding and closing of ports. The descriptors of all come in order, DESCRIPTORS_PER_MESSAGE
    of hvd/transport/descriptors.py at the most. A reply to fewer, at least one: those were carried out, and the others
    are to be asked for anew (`hvd.transport.multicall`). Xen's is preempted in the same way.
    """

    calls: Annotated[list[bytes], Most(64)]


# ---- sched_op (29), set_timer (15), memory_op (12), console_io (18), xen_version (17) --------------------------------


@hypercall(0x1D02)
@dataclass(frozen=True, slots=True)
class SchedShutdown:
    """End the calling domain for a SHUTDOWN_* reason; `text` is kept as the reason of its death. Does not return."""

    reason: U32
    text: str = ""


@hypercall(0x1D06)
@dataclass(frozen=True, slots=True)
class SchedWatchdog:
    """id 0: arm a new timer of `timeout_s`, reply its id; otherwise re-arm that one, or disarm it with timeout 0."""

    id: U32
    timeout_s: U32


@hypercall(0x0F00)
@dataclass(frozen=True, slots=True)
class SetTimer:
    """Raise VIRQ_TIMER once when the domain's system time reaches `deadline_ns`; 0 disarms."""

    deadline_ns: U63


@hypercall(0x1200)
@dataclass(frozen=True, slots=True)
class ConsoleIo:
    """Write text to the hypervisor's console (`hvd dmesg`), each line marked with the domid."""

    text: str


@hypercall(0x0C03)
@dataclass(frozen=True, slots=True)
class MemoryReservation:
    """Reply {current, maximum, static_max, used} of the caller in KiB (broker/domain.py, Memory); `used`: measured."""


@hypercall(0x0C80)
@dataclass(frozen=True, slots=True)
class MemorySetReservation:
    """The caller does with so many KiB from now on: XENMEM_decrease_reservation and populate_physmap in one.

    EINVAL for more than its maximum. What it uses beyond is its own affair: it is not asked again.
    """

    kib: U63


@hypercall(0x1100)
@dataclass(frozen=True, slots=True)
class XenVersion:
    """Reply {version, extraversion, page_size, domid, incarnation}."""


@hypercall(0x1D80)
@dataclass(frozen=True, slots=True)
class DomainReady:
    """The caller's devices are connected and it is doing what it is for; what comes `after` it may start."""


@hypercall(0x1D81)
@dataclass(frozen=True, slots=True)
class SandboxReport:
    """The layers that the caller's sandbox lacks, with the reasons: once, before any line of its kernel."""

    lacking: dict[str, str]


# ---- event_channel_op (32) -------------------------------------------------------------------------------------------


@hypercall(0x2006)
@dataclass(frozen=True, slots=True)
class EvtchnAllocUnbound:
    """Reply a new port of `dom` that `remote_dom` may bind. Descriptors, if `dom` calls: page, read, write end."""

    dom: DomId
    remote_dom: DomId


@hypercall(0x2000)
@dataclass(frozen=True, slots=True)
class EvtchnBindInterdomain:
    """Bind to a port that `remote_dom` holds open for the caller; reply the local port, which is raised at once.

    Descriptors: page, read, write end.
    """

    remote_dom: DomId
    remote_port: Port


@hypercall(0x2001)
@dataclass(frozen=True, slots=True)
class EvtchnBindVirq:
    """Reply a port that the hypervisor raises for `virq`. Descriptors: page, read end."""

    virq: U32


@hypercall(0x2003)
@dataclass(frozen=True, slots=True)
class EvtchnClose:
    """Close a local port; the other end becomes unbound and is woken."""

    port: Port


@hypercall(0x2004)
@dataclass(frozen=True, slots=True)
class EvtchnSend:
    """Raise the other end through the broker: for callers without the descriptors. Unbound: silently nothing."""

    port: Port


@hypercall(0x2005)
@dataclass(frozen=True, slots=True)
class EvtchnStatus:
    """Reply {status, remote_dom, remote_port, virq} of a port of `dom`, as EVTCHNSTAT_* numbers."""

    dom: DomId
    port: Port


@hypercall(0x200A)
@dataclass(frozen=True, slots=True)
class EvtchnReset:
    """Close every port of `dom` but its upcall port and the console it was born with, which it could not get back."""

    dom: DomId


# ---- grant_table_op (20) ---------------------------------------------------------------------------------------------


@hypercall(0x1480)
@dataclass(frozen=True, slots=True)
class GnttabAllocate:
    """Make an extent of zeroed pages that only `peer` can be granted. Reply its id. Descriptor: the memfd, writable.

    The owner maps it, then shares it: a read-only extent is sealed against further writers at its first share.
    """

    peer: DomId
    pages: Annotated[int, Most(EXTENT_PAGES_MAX)]
    readonly: bool = False


@hypercall(0x1481)
@dataclass(frozen=True, slots=True)
class GnttabShare:
    """Grant `count` pages of an extent from `first_page`; reply the first of `count` consecutive refs."""

    extent: ExtentId
    first_page: U32
    count: Annotated[int, Most(EXTENT_PAGES_MAX)]


@hypercall(0x1482)
@dataclass(frozen=True, slots=True)
class GnttabEndAccess:
    """Withdraw `count` refs from `ref`; EBUSY, and nothing is withdrawn, while one of them is mapped."""

    ref: GrantRef
    count: Annotated[int, Most(EXTENT_PAGES_MAX)]


@hypercall(0x1483)
@dataclass(frozen=True, slots=True)
class GnttabFree:
    """Give an extent back; EBUSY while any of its refs is granted."""

    extent: ExtentId


@hypercall(0x1400)
@dataclass(frozen=True, slots=True)
class GnttabMap:
    """Map `count` consecutive refs of `dom`, all of one share. count 0: every ref that was shared together with `ref`.

    Reply {handle, extent, ref, count, first_page, pages, readonly}: `first_page` is where `ref` lies in the extent.
    Descriptor: the extent, in the mode it was granted in; none if this incarnation was already handed it.
    """

    dom: DomId
    ref: GrantRef
    count: Annotated[int, Most(EXTENT_PAGES_MAX)]
    writable: bool


@hypercall(0x1401)
@dataclass(frozen=True, slots=True)
class GnttabUnmap:
    """Give a mapping back, by its handle."""

    handle: Handle


@hypercall(0x1484)
@dataclass(frozen=True, slots=True)
class GnttabUnmapNotify:
    """When this mapping ends, death included: zero the byte at `clear_offset` if `clear`, raise `port` (0: none)."""

    handle: Handle
    clear_offset: Annotated[int, Most(EXTENT_PAGES_MAX * 4096)]
    clear: bool
    port: Annotated[int, Most(131_071)]


@hypercall(0x1485)
@dataclass(frozen=True, slots=True)
class GnttabShareNotify:
    """The same for the granter's side: when the extent's owner gives it back or dies (gntalloc's unmap notify)."""

    extent: ExtentId
    clear_offset: Annotated[int, Most(EXTENT_PAGES_MAX * 4096)]
    clear: bool
    port: Annotated[int, Most(131_071)]


@dataclass(frozen=True, slots=True)
class CopyEnd:
    """One end of a grant copy: a ref of `dom`, or one of the caller's own refs when `dom` is DOMID_SELF."""

    dom: DomId
    ref: GrantRef
    offset: Annotated[int, Most(4095)]


@dataclass(frozen=True, slots=True)
class CopySegment:
    """At most one page, from source to destination."""

    source: CopyEnd
    destination: CopyEnd
    length: Annotated[int, Most(4096)]


@hypercall(0x1405)
@dataclass(frozen=True, slots=True)
class GnttabCopy:
    """Copy each segment; reply one GNTST_* status a segment (0 is done)."""

    segments: Annotated[list[CopySegment], Most(COPY_SEGMENTS_MAX)]


# ---- xsm_op (27) -----------------------------------------------------------------------------------------------------


@hypercall(0x1B01)
@dataclass(frozen=True, slots=True)
class XsmLoad:
    """Replace the security policy; EINVAL when it lacks a label that a domain has. What is bound or mapped stays so."""

    policy: Policy


@hypercall(0x1B02)
@dataclass(frozen=True, slots=True)
class XsmGetenforce:
    """Reply {policy, enforcing}: the policy's name, and whether what it denies is refused or only logged."""


@hypercall(0x1B03)
@dataclass(frozen=True, slots=True)
class XsmSetenforce:
    """Enforce the policy, or let pass what it denies and log it."""

    enforcing: bool


# ---- physdev_op (33) -------------------------------------------------------------------------------------------------


@hypercall(0x2180)
@dataclass(frozen=True, slots=True)
class PhysdevOpenMedium:
    """Open what the toolstack gave a device whose backend the caller hosts (its key `params`). Descriptor: the file.

    Read-only where the device's `mode` says so. Each call opens it afresh, in place of what was open for that device.
    """

    dom: DomId
    kind: Name
    devid: U32


@hypercall(0x2181)
@dataclass(frozen=True, slots=True)
class PhysdevOpenUplink:
    """The TAP device of a network whose switch the caller is. Reply the network's MTU. Descriptor: the device."""

    network: Name


# ---- XenStore (io/xs_wire.h numbers under 0x80) ----------------------------------------------------------------------


@hypercall(0x8001)
@dataclass(frozen=True, slots=True)
class StoreDirectory:
    """Reply the children's names. E2BIG for more than 4,096: XenStore's own DIRECTORY_PART lists those."""

    tx: U32
    path: str


@hypercall(0x8080)
@dataclass(frozen=True, slots=True)
class StoreReadAll:
    """Reply {name: value as bytes} of a directory's children, of the first 64 that the caller may read."""

    path: str


@hypercall(0x8002)
@dataclass(frozen=True, slots=True)
class StoreRead:
    """Reply the value as bytes."""

    tx: U32
    path: str


@hypercall(0x8003)
@dataclass(frozen=True, slots=True)
class StoreGetPerms:
    """Reply permissions as ["n5", "r0"]."""

    tx: U32
    path: str


@hypercall(0x8004)
@dataclass(frozen=True, slots=True)
class StoreWatch:
    """Watch a path and all below; fires once at once. Events arrive on the upcall socket."""

    path: str
    token: Token
    keys: bool = False
    """Whether events bring what StoreReadAll of the directory that this node is in would: nobody has to ask for it."""


@hypercall(0x8005)
@dataclass(frozen=True, slots=True)
class StoreUnwatch:
    """Stop watching."""

    path: str
    token: Token


@hypercall(0x8006)
@dataclass(frozen=True, slots=True)
class StoreTransactionStart:
    """Reply a transaction id."""


@hypercall(0x8007)
@dataclass(frozen=True, slots=True)
class StoreTransactionEnd:
    """Commit or drop; EAGAIN when another commit touched what this one read."""

    tx: U32
    commit: bool


@hypercall(0x800B)
@dataclass(frozen=True, slots=True)
class StoreWrite:
    """Write a value, creating parents."""

    tx: U32
    path: str
    value: bytes


@hypercall(0x800C)
@dataclass(frozen=True, slots=True)
class StoreMkdir:
    """Make an empty node, and its parents."""

    tx: U32
    path: str


@hypercall(0x800D)
@dataclass(frozen=True, slots=True)
class StoreRm:
    """Remove a node and all below."""

    tx: U32
    path: str


@hypercall(0x800E)
@dataclass(frozen=True, slots=True)
class StoreSetPerms:
    """Set permissions; the first entry names the owner."""

    tx: U32
    path: str
    perms: Annotated[list[str], Most(64)]


@hypercall(0x8090)
@dataclass(frozen=True, slots=True)
class StoreRing:
    """The caller's XenStore ring, made at the first asking (HVM_PARAM_STORE_PFN and _STORE_EVTCHN).

    Reply {port, side, ref}: the page is grant `ref`, always 1. Descriptors: the page, then as of any event channel.
    """


# ---- domctl (36) and the machine -------------------------------------------------------------------------------------


@hypercall(0x2401)
@dataclass(frozen=True, slots=True)
class DomctlCreate:
    """Make a domain; reply its domid. It starts when all that it comes `after` is ready."""

    config: DomainConfig


@hypercall(0x2402)
@dataclass(frozen=True, slots=True)
class DomctlDestroy:
    """Kill a domain at once and forget it."""

    dom: DomId


@hypercall(0x2403)
@dataclass(frozen=True, slots=True)
class DomctlPause:
    """Stop a domain's process; its system time stops with it."""

    dom: DomId


@hypercall(0x2404)
@dataclass(frozen=True, slots=True)
class DomctlUnpause:
    """Let a paused domain go on."""

    dom: DomId


GRACE_OVER = "killed after its grace"


@hypercall(0x2480)
@dataclass(frozen=True, slots=True)
class DomctlShutdown:
    """Ask a domain to stop (control/shutdown), and kill it after `grace_ms` if it has not. `reboot`: start it again.

    The reason of the death of one that was killed so ends with GRACE_OVER.
    """

    dom: DomId
    reboot: bool
    grace_ms: U32 = 10_000


@hypercall(0x2481)
@dataclass(frozen=True, slots=True)
class DomctlList:
    """Reply a list of {domid, name, state, incarnation, pid, ready, restarts, ...}; a guest sees itself alone."""


@hypercall(0x2482)
@dataclass(frozen=True, slots=True)
class DomctlKill:
    """Kill a domain's process with a signal, as a fault: its on_crash action follows."""

    dom: DomId
    signal: Annotated[int, Most(64)] = 9


@hypercall(0x2490)
@dataclass(frozen=True, slots=True)
class DomctlGetConfig:
    """Reply the DomainConfig of a domain, as codec.encode makes it: what its next start is made of."""

    dom: DomId


@hypercall(0x2491)
@dataclass(frozen=True, slots=True)
class DomctlSetConfig:
    """Replace what a domain's next start is made of; of this one the rates of its vifs change. Its name has to stay.

    EBUSY: a vif that is plugged in would be another.
    """

    dom: DomId
    config: DomainConfig


@hypercall(0x2492)
@dataclass(frozen=True, slots=True)
class DomctlRename:
    """Give a domain another name; those that name it as a backend or in `after` name it so from now on."""

    dom: DomId
    name: Name


@hypercall(0x2493)
@dataclass(frozen=True, slots=True)
class DomctlAttach:
    """Give a domain one more device. It takes it up when it next waits, at its next start if it does not run."""

    dom: DomId
    device: DeviceConfig


@hypercall(0x2494)
@dataclass(frozen=True, slots=True)
class DomctlDetach:
    """Take a device from a domain. It is asked to let go, and may refuse while it uses it; `force` does not ask.

    What becomes of it is announced as "detached" or "detach refused". A domain that does not run is not asked either.
    """

    dom: DomId
    kind: Name
    devid: U32
    force: bool = False


@hypercall(0x2498)
@dataclass(frozen=True, slots=True)
class DomctlKeep:
    """Take DomctlDetach back, which is announced as "detach refused". EBUSY: the domain is letting go already."""

    dom: DomId
    kind: Name
    devid: U32


@hypercall(0x241C)
@dataclass(frozen=True, slots=True)
class DomctlTrigger:
    """Press a button of a domain's: `power`, `reset` or `nmi` (domctl.h XEN_DOMCTL_SENDTRIGGER_*)."""

    dom: DomId
    trigger: Name


@hypercall(0x2497)
@dataclass(frozen=True, slots=True)
class DomctlDumpCore:
    """Write an ELF core of a domain, which stands still meanwhile and then goes on, to an absolute path.

    What became of it is announced as "core dumped".
    """

    dom: DomId
    path: str


@hypercall(0x2496)
@dataclass(frozen=True, slots=True)
class DomctlMemSet:
    """Ask a domain to do with so many KiB, by memory/target; it gets no more than that either. Kept for its next start.

    EINVAL for more than it was built with (`maxmem`). Less is in force when the domain has said that it does with it.
    """

    dom: DomId
    kib: U63


@hypercall(0x240B)
@dataclass(frozen=True, slots=True)
class DomctlMemMax:
    """As much as a domain may have until it starts again, in KiB. EINVAL for less than its target."""

    dom: DomId
    kib: U63


@hypercall(0x2495)
@dataclass(frozen=True, slots=True)
class DomctlSysrq:
    """Send a domain's kernel a magic letter, by control/sysrq."""

    dom: DomId
    letter: Name


@hypercall(0x2483)
@dataclass(frozen=True, slots=True)
class MachineStop:
    """Power off the whole machine, or reboot it: every domain dies, the cluster boots anew from its file."""

    reboot: bool


@hypercall(0x24A0)
@dataclass(frozen=True, slots=True)
class FaultBegin:
    """Do a fault (faults.py) to a domain, or begin one that is over after `for_ms`; reply its number.

    It is over before that when its domain's process ends. EBUSY while the domain has another of the same family.
    """

    dom: DomId
    kind: Name
    for_ms: U32 = 0
    seed: U63 = 0
    rate: Annotated[int, Most(RATE_MOST)] = RATE_MOST
    amount: U63 = 0


@hypercall(0x24A1)
@dataclass(frozen=True, slots=True)
class FaultEnd:
    """End a fault before its time; nothing if it is over."""

    dom: DomId
    fault: U63


@hypercall(0x24A2)
@dataclass(frozen=True, slots=True)
class FaultList:
    """Reply a list of {fault, kind, domid, incarnation, left_ms}: what is under way."""


@hypercall(0x24A3)
@dataclass(frozen=True, slots=True)
class FaultCounts:
    """Reply what was counted of a fault, by name: also of one that is over, until many others have been.

    A broker's successor begins again at 0.
    """

    fault: U63


@hypercall(0x24A4)
@dataclass(frozen=True, slots=True)
class MachineStrike:
    """Have the machine send a signal to its broker or zygote; SIGCONT follows a SIGSTOP after `for_ms`."""

    role: Name
    signal: Annotated[int, Most(64)] = 9
    for_ms: U32 = 0


@hypercall(0x2301)
@dataclass(frozen=True, slots=True)
class SysctlReadConsole:
    """Reply the hypervisor's console, a list of lines."""


@hypercall(0x2386)
@dataclass(frozen=True, slots=True)
class SysctlClearConsole:
    """Forget the lines of the hypervisor's console."""


@hypercall(0x2303)
@dataclass(frozen=True, slots=True)
class SysctlPhysinfo:
    """Reply {cpus, memory_kib, uptime_ns, run_dir, broker_pid, machine_pid, broker_restarts}, and what is in use.

    That is counted: domains, ports, granted_pages, mappings, extents and descriptors.
    """


@hypercall(0x2384)
@dataclass(frozen=True, slots=True)
class SysctlSandboxes:
    """Reply a list of {domid, name, kind, in_force, lacking}: each domain's sandbox, what lacks with reasons."""


@hypercall(0x2385)
@dataclass(frozen=True, slots=True)
class SysctlQuotas:
    """Reply a list of {domid, name, quotas}: by name what each domain has in use, and at most."""


@hypercall(0x2387)
@dataclass(frozen=True, slots=True)
class SysctlEvtchns:
    """Reply {rows, next} of event channels, from domid `first` on: see broker/listing.py, as for the next two."""

    first: DomId


@hypercall(0x2388)
@dataclass(frozen=True, slots=True)
class SysctlGrants:
    """Reply {rows, next} of what is granted, and to whom."""

    first: DomId


@hypercall(0x2389)
@dataclass(frozen=True, slots=True)
class SysctlRings:
    """Reply {rows, next} of devices' rings, with their counters."""

    first: DomId


@hypercall(0x238F)
@dataclass(frozen=True, slots=True)
class SysctlNetworks:
    """Reply {name: backend} of the cluster's networks, in the order of its file: what a vif may name as its bridge."""


@hypercall(0x238A)
@dataclass(frozen=True, slots=True)
class SysctlNetwork:
    """Reply what the cluster's file says of a network: {name, backend, mtu, antispoof, default, rules, uplink}."""

    name: Name


@hypercall(0x238B)
@dataclass(frozen=True, slots=True)
class SysctlVifs:
    """Reply {rows, next} of domains' vifs, with the network that each is in (hvd/broker/network_listing.py)."""

    first: DomId


@hypercall(0x238E)
@dataclass(frozen=True, slots=True)
class SysctlEvents:
    """What has happened since the event of this number: {booted_ns, last, events}, oldest first, as many as fit.

    An event is [number, at_ns (wall clock), event, domid, name, incarnation, detail]. What is older than those that are
    kept is left out: the first one's number tells.
    """

    after: U63


# ---- tracing (Xen's tbuf_op, which has one buffer for each CPU; here each domain has one) ---------------------------


@hypercall(0x2380)
@dataclass(frozen=True, slots=True)
class TraceStart:
    """Trace these domains (none: all), those that are born later too; reply the session. One that ran is over.

    It ends by itself when nobody has asked TraceBuffers or TraceRead for a while. `only_if_free`: EBUSY if one runs.
    """

    domains: list[DomId] = field(default_factory=list)
    only_if_free: bool = False


@hypercall(0x2381)
@dataclass(frozen=True, slots=True)
class TraceStop:
    """Nothing is recorded any more. `keep`: what was recorded can still be read; without it the memory goes."""

    session: U63
    keep: bool


@hypercall(0x2382)
@dataclass(frozen=True, slots=True)
class TraceBuffers:
    """Reply {clock, buffers}: each buffer is [domid, incarnation, name, alive, head]. ESTALE: the session is over."""

    session: U63


@hypercall(0x2383)
@dataclass(frozen=True, slots=True)
class TraceRead:
    """Reply [head, first, slots, head afterwards] of a buffer, from record `first` on; ENOENT when it has gone."""

    session: U63
    dom: DomId
    incarnation: U32
    first: U63


POSTS = frozenset({DomainReady.NUMBER, SandboxReport.NUMBER})  # type: ignore[attr-defined]
"""Hypercalls whose caller waits for no answer when it makes them over its upcall socket."""
STORE_CALLS = frozenset(range(0x8000, 0x80A0)) | {Multicall.NUMBER}  # type: ignore[attr-defined]
"""Hypercalls to XenStore, and those that bring some."""
