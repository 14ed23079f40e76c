"""The native core: what Python cannot say (ordered loads and stores, fences, waiting); see transport/native/.

Use it through `hvd.transport.pages`, `rings`, `channels`, `process`, which explain it. An object belongs to one thread
at a time: while one waits, changing what it waits on raises LocalError in the others (notifying is always allowed).
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeVar, final, overload

from typing_extensions import Buffer

@final
class Mapping(Buffer):
    """A mapping of a sealed memfd, checked before it is touched; use it through a memoryview."""

    @overload
    def __init__(self, fd: int, bytes: int, writable: bool) -> None: ...
    @overload
    def __init__(self, pages: list[memoryview]) -> None:
        """Pages of other mappings, writable ones, once more and beside each other."""

    def close(self) -> None:
        """Unmaps. LocalError while views of it exist."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

def store_word(page: Buffer, offset: int, value: int) -> None:
    """Stores a u64 that other processes see, ahead of every later `load_word`. LocalError where there is no word."""

def load_word(page: Buffer, offset: int) -> int:
    """Loads one, from writable memory, behind every earlier `store_word`."""

class Ring:
    """The verbs both ends of a ring share. Every one raises PeerFault once the peer has broken the ring."""

    @property
    def size(self) -> int:
        """Slots, a power of two."""

    @property
    def free(self) -> int:
        """Messages that can be pushed now: free slots at a front, requests popped but unanswered at a back."""

    @property
    def unconsumed(self) -> int:
        """Messages waiting to be popped."""

    def attach(self, index: int) -> None:
        """Goes on at `index` with nothing outstanding (FRONT_RING_ATTACH, BACK_RING_ATTACH)."""

    def push(self, message: Buffer) -> bool:
        """Copies a message of at most a message's size (the rest is zeroed) and publishes it; True: notify the peer.

        RingFull if `free` is 0."""

    def push_many(self, messages: Buffer) -> tuple[int, bool]:
        """Pushes as many of these whole, adjacent messages as fit: how many, and whether to notify the peer."""

    def pop(self) -> bytes | None:
        """The next message, copied out once."""

    def pop_many(self, limit: int = 0xFFFF_FFFF) -> bytes:
        """Up to `limit` messages, one after the other."""

    def name_messages_by(self, id_in_request: int, id_in_response: int) -> None:
        """In a trace, tell messages apart by the 8-byte id at these offsets, not by their place in the ring: for
        responses that may come in another order. LocalError where a message is too short for that."""

    def final_check(self) -> bool:
        """True if there is something to pop; otherwise the peer's next push tells it to notify us."""

    def untrusted_indices(self) -> tuple[int, int, int, int]:
        """req_prod, req_event, rsp_prod, rsp_event as the page has them now: the peer may have written anything."""

    def close(self) -> None:
        """Lets go of the memory; idempotent. LocalError while attached to a waiter."""

@final
class FrontRing(Ring):
    """The end that pushes requests and pops responses. Begins attached at index 0."""

    def __init__(
        self, memory: Buffer, request_size: int, response_size: int, slot_size: int = 0, checked: bool = False
    ) -> None:
        """`slot_size` is sizeof(union) with its padding; 0: the larger of both. `checked`: both ends keep checks."""

    def init(self) -> None:
        """Writes an empty ring and begins at 0. Only before the memory is shared."""

@final
class BackRing(Ring):
    """The end that pops requests and pushes responses. Begins attached at index 0."""

    def __init__(
        self, memory: Buffer, request_size: int, response_size: int, slot_size: int = 0, checked: bool = False
    ) -> None:
        """`slot_size` is sizeof(union) with its padding; 0: the larger of both. `checked`: both ends keep checks."""

@final
class EndpointStatistics:
    """Counters of one endpoint since it was opened."""

    @property
    def notified(self) -> int: ...
    @property
    def rung(self) -> int:
        """Notifications that found the peer asleep and woke it."""

    @property
    def taken(self) -> int: ...
    @property
    def spins_hit(self) -> int: ...
    @property
    def spins_missed(self) -> int: ...
    @property
    def yields(self) -> int:
        """Polls that gave the CPU to a peer on the same one."""

    @property
    def crowded(self) -> int:
        """Waits that gave up polling, since others wanted the CPU."""

    @property
    def sleeps(self) -> int: ...
    @property
    def lasted(self) -> int:
        """Sleeps that were not over when the word had been slept on for long enough, and went on at the pipe."""

    @property
    def wakeups(self) -> int: ...

@final
class Endpoint:
    """One side of an event channel. Owns its two descriptors; -1 is a direction that is not used."""

    def __init__(self, page: Buffer, side: int, rx_fd: int, tx_fd: int) -> None: ...
    def notify(self) -> None:
        """Raises the event at the peer: a store, and a system call only if the peer sleeps. Never blocks."""

    def kick(self) -> None:
        """`notify` that writes the pipe whatever the peer advertises: for a sender that may have died half-way."""

    def take(self) -> bool:
        """Clears the pending event; whether there was one."""

    def arm(self) -> None:
        """For who polls the descriptor itself: the next event writes the pipe. Empty it first, look for work after."""

    def wait(self, timeout_ns: int, spin_ns: int = -1) -> bool:
        """Waits for an event and takes it; False after `timeout_ns` (negative: never). `spin_ns`: poll that long before
        sleeping (-1: adaptive). True at once, always, when nobody holds the peer's sending end any more."""

    @property
    def peer_closed(self) -> bool:
        """The peer marked the channel closed, or its sending end is gone. A state; the event that tells of it comes
        once, and may come together with others: look here before each wait."""

    @property
    def peer_asleep(self) -> bool:
        """A hint: what the peer says of itself. A peer that has not waited yet counts as asleep."""

    @property
    def untaken(self) -> bool:
        """The event that was raised last waits for the peer, which has not waited since. A peer can lie."""

    def mark_closed(self) -> None:
        """Tells the peer that nobody sends here any more, and wakes it whatever it advertises."""

    def mark_open(self) -> None:
        """Takes that back: somebody sends here again."""

    def close(self) -> None:
        """Closes the descriptors and lets go of the page; idempotent. LocalError while bound to a waiter."""

    def statistics(self) -> EndpointStatistics: ...

@final
class WaiterStatistics:
    """Counters of one waiter."""

    @property
    def waits(self) -> int: ...
    @property
    def spins_hit(self) -> int: ...
    @property
    def spins_missed(self) -> int: ...
    @property
    def yields(self) -> int:
        """Polls that gave the CPU to a peer on the same one."""

    @property
    def crowded(self) -> int:
        """Waits that gave up polling, since others wanted the CPU."""

    @property
    def sleeps(self) -> int: ...
    @property
    def wakeups(self) -> int:
        """Sleeps that ended with something ready."""

    @property
    def idle_wakeups(self) -> int:
        """Sleeps that ended with nothing ready: a timeout, a masked port, a peer's junk."""

    @property
    def delivered(self) -> int: ...
    @property
    def found(self) -> int:
        """Of those delivered: work in a ring that nobody had notified of."""

class NativeTurn:
    """What can be done for a port or a descriptor without Python."""

@final
class Waiter:
    """A domain's upcall vector: many endpoints, their rings, and a few other descriptors."""

    def __init__(self, spin_limit_ns: int = 200_000) -> None:
        """`spin_limit_ns`: how long at most to poll before sleeping; 0: never poll."""

    spin_ns: int
    """How long to poll before sleeping, as in `Endpoint.wait`: -1 (at first) is adaptive, 0 not at all."""

    def add(self, port: int, endpoint: Endpoint) -> None:
        """Binds an endpoint to a port (> 0); at most 4,096. Its own `wait` is refused from then on."""

    def remove(self, port: int) -> None: ...
    def attach_ring(self, port: int, ring: Ring) -> None:
        """Unconsumed work on the ring makes the port ready too, so that the peer need not ring while we are awake.
        Before sleeping the ring is armed with its final check. Two rings a port at most; what is not popped is ready
        again."""

    def detach_ring(self, port: int, ring: Ring | None = None) -> None:
        """One of the port's rings, or all."""

    def attach_console(self, port: int, console: ConsoleRing) -> None:
        """The console is looked at now and then, in case that a notification of it was lost. `remove` detaches it."""

    def detach_console(self, port: int) -> None: ...
    def mask(self, port: int) -> bool:
        """Events stay pending and are not delivered until `unmask`. False: it was masked already."""

    def unmask(self, port: int) -> None: ...
    def watch_fd(self, token: int, fd: int) -> None:
        """Reports a readable descriptor (level-triggered) as `token` (< 0). Not owned: unwatch before closing it."""

    def unwatch_fd(self, token: int) -> None: ...
    def attach_turn(self, key: int, turn: NativeTurn, part: int = 0) -> None:
        """From now on, until the key is removed or unwatched, `turn` is tried first when the key is ready; `wait`
        returns the key only if that left something for its handler."""

    def detach_turn(self, key: int) -> None:
        """Idempotent."""

    def wait(self, timeout_ns: int, mask_delivered: bool = False) -> tuple[int, ...]:
        """Ports whose event was taken (or whose ring has work, or whose peer is gone for good) and readable tokens; ()
        after `timeout_ns` (negative: never). `mask_delivered`: each port is masked as it is delivered, as by Xen's
        evtchn device, until `unmask`."""

    def close(self) -> None:
        """Unbinds everything; the endpoints stay open. Idempotent."""

    def statistics(self) -> WaiterStatistics: ...

class ConsoleRing:
    """The verbs both ends of a console ring share. Every one raises PeerFault once the peer has broken the ring.

    None of them notifies: ring the channel after a `write` that took something, and after `read` or `consume`."""

    @property
    def free(self) -> int:
        """Bytes that can be written now."""

    @property
    def in_flight(self) -> int:
        """Bytes written that the peer has not consumed."""

    @property
    def unconsumed(self) -> int:
        """Bytes waiting to be read."""

    def write(self, data: Buffer) -> int:
        """Publishes as much as there is room for; how much that was."""

    def read(self, limit: int) -> bytes:
        """Takes up to `limit` bytes; b"" if there are none."""

    def peek(self) -> bytes:
        """All that can be read now; it stays in the ring until `consume`."""

    def consume(self, count: int) -> None:
        """Gives back the room of bytes peeked at."""

    def undelivered(self) -> bytes:
        """What was written and the peer has not consumed."""

    def write_down(self) -> None:
        """Of a front that ends: what the back has not taken by now is written down without it."""

    @property
    def written_down(self) -> bool:
        """Whether the front has said so."""

    def check(self) -> None:
        """Looks at all four indices, our own two among them, though nothing is to be moved."""

    def close(self) -> None:
        """Lets go of the memory; idempotent."""

@final
class ConsoleFront(ConsoleRing):
    """The domain's end: writes what is printed, reads what is typed. Goes on at the page's indices."""

    def __init__(self, memory: Buffer) -> None: ...

@final
class ConsoleBack(ConsoleRing):
    """The console daemon's end: reads what is printed, writes what is typed. Goes on at the page's indices."""

    def __init__(self, memory: Buffer) -> None: ...

def fork_sibling(namespaces: int) -> int: ...
def die_with_parent() -> None: ...
def set_process_name(name: str) -> None: ...
def start_sleeper() -> None: ...
def set_slice(thread: int, slice_ns: int) -> None: ...
def exit_on_fatal_signals() -> None: ...
def report_fatal_signals(descriptor: int) -> None: ...
def allow_tracing() -> None: ...
def trim_memory() -> bool: ...
def bring_in(stretches: bytes) -> None:
    """Take the page faults of parts of our memory now: three 64-bit words each, start, bytes, MADV_POPULATE_*."""

def arenas() -> bytes: ...
def inotify_descriptor() -> int:
    """A descriptor that `watch_readers` makes readable; it does not block."""

def watch_readers(fd: int, path: str) -> int:
    """Have the descriptor tell of each open and read of a file: inotify_event, with the number that this returns."""

def unwatch_readers(fd: int, number: int) -> None: ...
def timer_descriptor() -> int:
    """A descriptor that `arm_timer` makes readable at a time of CLOCK_MONOTONIC; it does not block."""

def arm_timer(fd: int, at_ns: int) -> None: ...

class CpuFollower:
    """Keeps this process's threads on the CPUs of those whom it mostly works for; see native/cpu_follower.hpp."""

    def __init__(self) -> None: ...
    def place(self, cpus: list[int]) -> int:
        """The number by which whoever is kept to these CPUs is known; 0 for who is kept to none. For one thread."""

    def worked_for(self, place: int) -> None:
        """A piece of work was done for somebody at this place."""

    @property
    def moves(self) -> int:
        """How often the threads were moved."""

    @property
    def starved(self) -> int:
        """How often they were let go because they got no time where they were."""

FATAL_SIGNALS: tuple[int, ...]
ELF_MACHINE: int
FAULT_CONTEXT_BYTES: int

def ptrace_stop(thread: int) -> None: ...
def ptrace_wait() -> tuple[int, bool]: ...
def ptrace_registers(thread: int, type: int) -> bytes: ...
def restore_fault(registers: bytes, untrusted_context: bytes) -> bytes: ...

# sandbox.hpp: OSError where the kernel refuses. For a process with one thread.
def make_mounts_private() -> None: ...
def make_mounts_followers() -> None:
    """What is mounted here is seen nowhere else; what is where these were copied from is, if that is shared."""

def mount_tmpfs(where: str, options: str) -> None: ...
def mount_new(kind: str, where: str, options: str) -> None:
    """A proc or devpts of its own; nothing in it can be executed."""

def mount_scratch(where: str, options: str) -> None: ...
def leave_namespaces(flags: int) -> None:
    """unshare(2)."""

def enter_namespace(descriptor: int, kind: int) -> None:
    """setns(2), with one CLONE_NEW*."""

def enter_mounts(descriptor: int, root: int) -> None:
    """setns(2) into a mount namespace, with this open directory of it for a root."""

def clone_tree(source: str) -> int:
    """A descriptor of a copy of what is mounted there and below, mounted nowhere yet."""

def place_tree(tree: int, target: str, attributes: int, userns_fd: int = -1) -> None:
    """Mount such a copy, private. `attributes` are MOUNT_ATTR_*; owners are as that user namespace maps them."""

def bind_mount(source: str, target: str, attributes: int) -> None:
    """`attributes` are MOUNT_ATTR_*; what is mounted below `source` comes with it."""

def set_mount_attributes(where: str, attributes: int) -> None: ...
def enter_root(root: str) -> None:
    """What is mounted at `root` becomes all there is."""

def detach_mount(where: str) -> None: ...
def make_user_namespace(owner: int) -> int:
    """A descriptor for `place_tree`: root's files are `owner`'s in what is mounted with it."""

def no_new_privileges() -> None: ...
def set_dumpable(dumpable: bool) -> None: ...
def drop_bounding_set(kept: int = 0) -> None:
    """`kept`: a mask of 1 << CAP_*."""

def drop_capabilities(kept: int = 0) -> None: ...

def has_capability(number: int) -> bool: ...
def landlock_abi() -> int: ...
def landlock_create(fs: int, net: int, scoped: int, size: int) -> int: ...
def landlock_allow(ruleset: int, path: str, access: int) -> None: ...
def landlock_restrict(ruleset: int) -> None: ...
def seccomp_install(program: bytes) -> None:
    """An array of struct sock_filter, for every thread there is."""


class BlkNeed(Enum):
    """What a request that a block backend holds waits for."""

    MAP = ...
    """`missing` is not mapped: map it and `resume`, or `answer`."""
    CONTROL = ...
    """It is neither READ nor WRITE: carry it out and `answer`."""
    FAILED = ...
    """The transfer failed with `errno`: `answer`."""
    RELEASE = ...
    """It is as good as answered with `status`: let go of its grants and `answer`."""

@final
class BlkHeld:
    """A request that its backend cannot go on with by itself: what it needs, and what it asks for once checked."""

    @property
    def need(self) -> BlkNeed: ...
    @property
    def operation(self) -> int: ...
    @property
    def status(self) -> int: ...
    @property
    def errno(self) -> int: ...
    @property
    def missing(self) -> int: ...
    @property
    def sector(self) -> int: ...
    @property
    def sectors(self) -> int: ...

@final
class WriteLog:
    """The log of what is done to an image (write_log.hpp); the descriptor, open for appending, stays the caller's."""

    def __init__(self, fd: int) -> None: ...
    def append(self, kind: int, offset: int, length: int) -> None:
        """One record without content. OSError, ENOSPC when only a part of it had room."""

@final
class BlkBack:
    """A block backend's ring served a batch at a time: untrusted slots copied out once, checked, carried with preadv
    and pwritev between granted pages and the image, answered. One request is held at a time, those behind it wait."""

    def __init__(
        self,
        ring: BackRing,
        endpoint: Endpoint,
        fd: int,
        sectors: int,
        readonly: bool,
        indirect_segments_max: int,
        persistent: bool,
        write_log: WriteLog | None = None,
    ) -> None:
        """The descriptor stays the caller's. Not `persistent`: every request is held (RELEASE) before its answer.

        With a log every write is a record there before it is made; what cannot be logged has failed."""

    def add(self, ref: int, memory: Buffer, writable: bool) -> None:
        """Pages of `memory` are refs `ref`, `ref` + 1, ...; the memory cannot be unmapped until `clear`."""

    def clear(self) -> None:
        """Forgets all mapped memory. LocalError while another thread is in a transfer."""

    def serve(self, limit: int) -> BlkHeld | None:
        """Takes up to `limit` requests (at most 32) off the ring and carries them out until one has to be held; None:
        all are answered. PeerFault when the frontend broke the ring, LocalError while one is held."""

    def resume(self) -> BlkHeld | None:
        """Goes on with the held request, whose grant was added."""

    def answer(self, status: int) -> BlkHeld | None:
        """Answers the held request and goes on with those behind it."""

@final
class NetFront:
    """A network frontend's queues: packets sent and received, across the deaths of backends (native/netfront.hpp)."""

    def __init__(self, memories: list[memoryview], first_refs: list[int]) -> None:
        """Of each queue 512 granted pages: those of the Tx ids, then those of the Rx buffers."""

    def attach(self, ends: list[tuple[FrontRing, FrontRing, Endpoint, Endpoint]]) -> None:
        """A backend serves these empty rings, Tx and Rx of each queue: what was not answered is sent again."""

    def detach(self) -> None:
        """The backend is dead and fenced."""

    @property
    def attached(self) -> bool: ...
    def collect(self) -> None:
        """Takes in answers and packets; PeerFault when the backend broke the protocol."""

    def send(self, packet: Buffer) -> bool:
        """Copies a packet of 14 to 65,535 bytes; False: there is no room. PeerFault as above."""

    def send_many(self, packets: Sequence[Buffer], first: int = 0) -> int:
        """From index `first` on as many as there is room for, with one notification; how many."""

    def send_run(self, packets: Buffer, size: int, first: int = 0) -> int:
        """The same of packets of `size` bytes each, one after the other in one buffer."""

    def change_group(self, group: bytes, joins: bool) -> bool:
        """Joins or leaves a multicast group; False: there is no room."""

    def receive_many(self, limit: int) -> list[bytes]:
        """The packets that have arrived, so many at most; their buffers go back to the backend."""

    def discard(self) -> int:
        """Drops what has arrived; how many packets."""

    @property
    def has_arrived(self) -> bool: ...
    @property
    def in_flight(self) -> int:
        """Packets that no backend has answered."""

class TapEnd(Enum):
    """Why `TapPump.to_network` ended."""

    DRY = ...
    """The device has nothing to send."""
    MORE = ...
    NO_ROOM = ...
    GONE = ...
    """Somebody has removed the device: its descriptor is of none, and stays ready."""

class TapCounters:
    to_network: int
    to_tap: int
    not_sent: int
    not_written: int

@final
class TapPump(NativeTurn):
    """Between one queue of a frontend and a TAP descriptor with vnet headers (native/net_tap.hpp).

    As a turn: DEVICE is `to_network`, RING what has arrived and `to_tap`."""

    DEVICE: int
    RING: int

    def __init__(self, front: NetFront, queue: int, fd: int, header_bytes: int) -> None:
        """The descriptor does not block, and stays the caller's."""

    def to_network(self) -> TapEnd:
        """A bounded number of the device's packets. PeerFault when the backend broke the protocol."""

    def to_tap(self) -> bool:
        """A bounded number of those that have arrived, likewise; whether there are more."""

    def counters(self) -> TapCounters: ...

class NetEnd(Enum):
    """How a port's turn ended."""

    DONE = ...
    MORE = ...
    """Others have their turn first."""
    UNMAPPED = ...
    """`missing` is a ref to be mapped, and added."""
    THROTTLED = ...
    """Its rate lets it go on in `ready_in_ns`."""

class NetTurn:
    end: NetEnd
    missing: int
    ready_in_ns: int

@final
class NetRules:
    """A compiled table of rules (native/packet_filter.hpp)."""

    def __init__(self, packed: bytes, allow_by_default: bool) -> None:
        """Records of 66 bytes, 256 at most."""

@final
class NetSwitch:
    """A learning switch (native/net_switch.hpp)."""

    def __init__(self) -> None: ...
    def take_attention(self) -> int | None:
        """The number of a port that is to be looked after: a `fault`, or `drain` has something to do; once each."""

@final
class NetPort(NativeTurn):
    """A vif's backend rings as a port of a switch, from now to `close`. As a turn: `serve` of that queue."""

    def __init__(
        self,
        *,
        switch: NetSwitch,
        ends: list[tuple[BackRing, BackRing, Endpoint, Endpoint]],
        network: int,
        party: int,
        mac: bytes,
        mtu: int,
        vlan: int,
        trunk: list[int],
        rate_bytes: int,
        rate_interval_us: int,
        guarded: bool,
        addresses: list[bytes],
        rules: NetRules | None,
        accepts: list[bool],
    ) -> None:
        """`ends`: Tx and Rx of each queue. `rate_bytes` 0: no limit. `accepts`: scattered packets, blank IPv4 and IPv6
        checksums, IPv4 and IPv6 to be cut up, chosen groups only. LocalError: another vif of the network has the
        MAC."""

    link_up: bool
    credit: tuple[float, int]
    """What is left of its rate: bytes, and since when in nanoseconds; for the next port of the same vif."""

    @property
    def number(self) -> int: ...
    @property
    def fault(self) -> str:
        """What the frontend broke while others sent to it; empty: nothing."""

    def add(self, ref: int, memory: Buffer, writable: bool) -> None:
        """Pages of `memory` are refs `ref`, `ref` + 1, ...; the memory cannot be unmapped until `close`."""

    def serve(self, queue: int) -> NetTurn:
        """Forwards what was sent, a bounded amount. PeerFault when the frontend broke the protocol."""

    def drain(self) -> NetTurn:
        """Goes on with what waits for buffers; likewise."""

    def set_rate(self, bytes: int, interval_us: int) -> None:
        """Another rate from now on, with all of its credit; who waits for the one before is to be served again."""

    def waits(self, queue: int) -> bool:
        """Whether something waits for buffers."""

    def counters(self) -> dict[str, int]: ...
    def close(self) -> None:
        """Idempotent."""

@final
class NetUplink:
    """A TAP device of the host as a port of a switch, from now to `close` (native/uplink.hpp)."""

    def __init__(
        self, *, switch: NetSwitch, fd: int, network: int, party: int, mtu: int, rules: NetRules | None
    ) -> None:
        """The descriptor stays the caller's; it does not block, and has vnet headers of 10 bytes."""

    def serve(self) -> None:
        """Forwards what the device has, a bounded amount: the descriptor is ready again while there is more."""

    def counters(self) -> dict[str, int]:
        """As a NetPort's; `received` is from the host."""

    def close(self) -> None:
        """Idempotent."""

class Completion(NamedTuple):
    """How a submitted request ended: `errno` 0, EIO or EOPNOTSUPP; `data` is what a read without a buffer brought."""

    id: int
    errno: int
    data: bytes

@final
class BlkFront:
    """A block frontend's requests: each completes once, whatever backends answer, repeat, invent and leave.

    `submit_*` return None, or fewer ids than asked for, while the pool of pages has no room; LocalError says which
    argument is wrong. What is submitted goes into the ring at once, or when there is room, or a backend is attached."""

    def __init__(self, memory: Buffer, first_ref: int, timeout_ns: int) -> None:
        """The pool is `memory`, whose pages are granted as `first_ref`, `first_ref` + 1, ..."""

    def attach(self, ring: FrontRing, endpoint: Endpoint, name: str, sectors: int, segments_max: int) -> None:
        """A backend serves this empty ring: what is open is issued (again), in the order of submission."""

    def detach(self) -> None:
        """The backend is dead and fenced. Idempotent."""

    @property
    def attached(self) -> bool: ...
    @property
    def in_flight(self) -> int:
        """Requests submitted and not completed."""

    @property
    def free_pages(self) -> int: ...
    @property
    def transfer_sectors_max(self) -> int: ...
    def submit_read(self, sector: int, count: int, into: Buffer | None) -> int | None: ...
    def submit_write(self, sector: int, data: Buffer) -> int | None: ...
    def submit_reads(self, sectors: Sequence[int], first: int, count: int, into: Buffer | None) -> list[int]:
        """A read from each of `sectors[first:]`, as far as there is room; `into` is for all of `sectors`."""

    def submit_writes(self, sectors: Sequence[int], first: int, count: int, data: Buffer) -> list[int]: ...
    def lend(self, sectors: int) -> int | None:
        """Where in the pool so many sectors of its memory are the caller's from now on: requests on them copy nothing.
        None while no such run of pages is free, LocalError past half of the pool."""

    def take_back(self, buffer: Buffer) -> None:
        """LocalError while a request or a backend uses what is lent there, or when nothing is."""

    def submit_flush(self) -> int: ...
    def submit_discard(self, sector: int, count: int) -> int: ...
    def collect(self) -> None:
        """Takes in every answer there is. PeerFault when the backend broke the ring."""

    def expire(self, system_time_ns: int) -> None:
        """Completes with EIO what is past its deadline at this system time."""

    def patience_s(self, most: float) -> float:
        """Seconds to the earliest deadline, 0 to `most`."""

    def take(self, id: int) -> Completion | None:
        """The completion of this request, once."""

    def take_all(self) -> list[Completion]:
        """Every completion not taken, the oldest first."""

def punch_hole(fd: int, offset: int, length: int) -> None: ...


@final
class TraceBuffer:
    """A trace buffer in somebody's memory (see transport/trace.py), written whatever any switch says."""

    def __init__(self, memory: Buffer) -> None:
        """LocalError when the memory is too small."""

    def record(self, kind: int, port: int, id: int, count: int, clock: int) -> None:
        """One record, over the oldest one."""

def open_own_trace(info_fd: int, buffer_fd: int) -> None:
    """From here on this process writes its buffer while its shared info page says so. Once; both stay the caller's."""

def system_time_ns() -> int:
    """What `Runtime.system_time_ns` says; CLOCK_MONOTONIC in a process that is no domain."""

def trace_clocks(clock: int) -> tuple[int, int]:
    """(ticks of that clock, CLOCK_MONOTONIC in ns) of one moment."""

@final
class Histogram:
    """An HdrHistogram: durations in nanoseconds (or any other counts), recorded without allocation."""

    def __init__(self, highest: int = 3_600_000_000_000, digits: int = 3) -> None:
        """Values 0 to `highest` with so many significant decimal digits, 1 to 5; what is larger counts as `highest`."""

    def record(self, value: int, count: int = 1) -> None: ...
    def add(self, other: Histogram) -> None:
        """Takes in another of the same shape (else LocalError)."""

    def reset(self) -> None: ...
    def percentile(self, percentile: float) -> int:
        """The value that so many percent of all do not exceed; 0 when nothing was recorded."""

    def count_from(self, value: int) -> int:
        """How many were at least `value`, to the precision of the buckets."""

    def encode(self) -> bytes:
        """HdrHistogram's V2 encoding, not compressed; see transport/histogram.py."""

    @staticmethod
    def decode(encoded: bytes) -> Histogram:
        """The reverse; LocalError when it is nothing of the kind."""

    def time_calls(
        self, call: Callable[[], object], duration_ns: int, think_ns: int = 0, computing: bool = False
    ) -> None:
        """Closed loop: calls it again and again for so long, at least once, and records each call's duration. Before
        each, `think_ns` pass, asleep or `computing`; they are not recorded."""

    @property
    def count(self) -> int: ...
    @property
    def min(self) -> int: ...
    @property
    def max(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def digits(self) -> int: ...
    @property
    def highest(self) -> int: ...

def time_calls_at_rate(
    from_intended: Histogram, from_sent: Histogram, call: Callable[[], object], duration_ns: int, interval_ns: int
) -> None:
    """Open loop: a call is due every `interval_ns`. The first histogram has the time from when a call was due, the
    second from when it was made: after a stall those that had to queue are late in the first alone."""

class PingPong(Enum):
    """What carries a C ping-pong: a polled word, a futex, an eventfd."""

    SPIN = 0
    FUTEX = 1
    EVENTFD = 2

def ping_pong(kind: PingPong, times: Histogram, duration_ns: int, think_ns: int, child_cpu: int) -> None:
    """Records round trips of bare C with a forked child on `child_cpu` (-1: anywhere), sleeping `think_ns` before each.
    OSError when the kernel refuses."""

class TapChain:
    """The wake-ups of a packet's way between two TAP devices, in bare C: six processes that end with it, or with us."""

    def __init__(self, first: int, second: int, first_cpu: int = -1, second_cpu: int = -1) -> None:
        """Two descriptors that block and stay the caller's; -1: anywhere. OSError when the kernel refuses."""

    def close(self) -> None:
        """Ends its processes. Idempotent."""

def count_system_calls(pid: int, duration_ns: int) -> int:
    """How many system calls a thread enters in that time; it is traced for that. OSError when it may not be."""

@final
class Instructions:
    """The CPU's counter of this thread's user-space instructions."""

    def __init__(self) -> None: ...
    def read(self) -> int:
        """So far; -1 where the machine lends no such counter."""

@final
class Walk:
    """A walk through that many cache lines in an order that no prefetcher guesses."""

    def __init__(self, lines: int) -> None: ...
    def walk(self, steps: int) -> int: ...

def compute(steps: int) -> int:
    """Arithmetic that touches no memory."""

def touch_lines(memory: Buffer) -> int:
    """Reads a word of every cache line; their sum."""

def dirty_lines(memory: Buffer, value: int) -> None:
    """Writes a word of every cache line."""

Node = TypeVar("Node", bound=tuple[object, ...])

def way_to(root: Node, path: str) -> list[Node] | None:
    """The nodes of XenStore's tree (broker/store/tree.py) from the root to the one at a path; None if there is none.

    LocalError for what is no node."""

def merged(
    record: object, base: Node, mine: Node, now: Node, generation: int,
    children_from: Callable[[list[dict[str, Node]], list[int]], object], bytes_max: int, permission_bytes: int,
) -> tuple[Node, str, str]:
    """Three versions of XenStore's tree into one, by what a transaction has touched (broker/store/record.py).

    The tree; the path of what others have changed and the transaction depends on, or "": else the tree is `now`; the
    path of a node that takes more than `bytes_max`, and than in `now`, or "". LocalError for what are none of these."""

def answer_plain(
    root: Node, untrusted: bytes, at: int, generation: int, watched: dict[str, Any],
    grow: Callable[[Any, int], bool], node_bytes_max: int, names_max: int,
) -> tuple[bytes, int, Node, int]:
    """READs and WRITEs of XenStore's wire protocol, from a place of a stream on, by whoever may do everything.

    The replies; where anything else begins; the tree with what was written; its generation, one more for each value.
    What is not plain ends it: a path that is not absolute or of no node, one that may be watched, or one above it (in
    `watched`, a tree of names as hvd/broker/store/watches.py has it, some name on its way is there under ""), a node
    that would take more than `node_bytes_max`. A value of another size is written if `grow`, of the node's
    permissions and the difference, says so. It ends, too, when `names_max` names were copied, each message counted as
    128 of them. LocalError for no tree.
    """

def tally(node: Node, path_length: int, skipped: int) -> list[tuple[int, int, int]]:
    """What a node of XenStore's tree and all below it count: each owner's domid, its nodes, and their bytes.

    Children before parents, without so many that come first; the node's path has so many characters. LocalError for
    what is no node.
    """

def rewritten(way: list[Node], path: str, value: bytes, generation: int) -> tuple[Node, Node]:
    """The tree in which the node at the end of this way has another value, and that node; LocalError for any other."""
