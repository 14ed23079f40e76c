#!/usr/bin/env python3
"""Writes docs/limits.md: every bound that a domain can run into, as the code has it, with the test that shows it.

Examples:
  .venv/bin/python scripts/generate_limits.py            # write the page
  .venv/bin/python scripts/generate_limits.py --check    # exit status 1 if the page is not what the code says
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

from hvd.broker.store import quotas
from hvd.transport.limits import LIMITS
from hvd.transport.messages import RestartPolicy

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "limits.md"
STORE, BROKER, MACHINE = "tests/unit/broker/store", "tests/unit/broker", "tests/process/test_machine.py"
TRACE = "tests/unit/toolstack/trace"
QUOTA_TESTS = {
    "nodes_max": f"{STORE}/test_quotas.py::test_a_guest_owns_so_many_nodes_and_no_more_until_it_removes_some",
    "node_bytes_max": f"{STORE}/test_quotas.py::test_a_node_has_so_many_bytes_its_childrens_names_included",
    "permissions_max": f"{STORE}/test_quotas.py::test_a_node_has_so_many_permissions",
    "path_bytes_max": f"{STORE}/test_paths.py::test_a_path_below_a_home_may_be_2048_bytes_longer_than_the_home",
    "depth_max": f"{STORE}/test_paths.py::test_a_guests_path_has_at_most_128_names_and_dom0s_1024",
    "watches_max": f"{STORE}/test_quotas.py::test_a_guest_has_so_many_watches",
    "transactions_max": f"{STORE}/test_quotas.py::test_a_guest_has_so_many_transactions",
    "transaction_nodes_max": f"{STORE}/test_quotas.py::test_a_transaction_touches_so_many_nodes",
    "memory_bytes_max": f"{STORE}/test_quotas.py::test_a_guests_nodes_watches_and_transactions_share_its_memory",
    "events_max": f"{STORE}/test_events.py::test_beyond_the_bound_an_event_says_only_which_watch_it_was",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """A constant of some module, or of a native header, as the page shows it."""

    place: str
    name: str
    unit: str
    reached: str
    test: str

    def value(self) -> int:
        """Read from where it stands."""
        if self.place.endswith(".hpp"):
            found = re.search(rf"\b{self.name} = ([\d']+);", (ROOT / self.place).read_text())
            if found is None:
                raise LookupError(f"{self.place} declares no {self.name}")
            return int(found[1].replace("'", ""))
        return int(getattr(importlib.import_module(f"hvd.{self.place.removeprefix('hvd.')}"), self.name))


WIRE = [
    Bound("hvd.broker.store.quotas", "ABSOLUTE_PATH_BYTES_MAX", "bytes of any path", "EINVAL",
          f"{STORE}/test_paths.py::test_no_quota_allows_a_path_of_more_than_3072_bytes"),
    Bound("hvd.broker.store.quotas", "TOKEN_BYTES_MAX", "bytes of a watch's token", "EINVAL",
          f"{STORE}/test_watches.py::test_xsa_324_a_token_leaves_room_for_the_longest_path"),
    Bound("transport.multicall", "MULTICALL_MAX", "hypercalls of one multicall", "EBADMSG naming the field",
          "tests/unit/test_bounds.py::test_a_multicall_has_at_most_multicall_max_entries"),
    Bound("transport.descriptors", "DESCRIPTORS_PER_MESSAGE", "descriptors that one hypercall brings",
          "what a multicall asks behind that is carried out when it is asked anew", f"{BROKER}/test_multicall.py::"
          "test_one_that_might_bring_more_descriptors_than_a_message_has_is_preempted"),
    Bound("domains.store", "TRANSACTION_TRIES", "times a client tries a transaction that meets conflicts",
          "TransactionConflict", "tests/unit/test_bounds.py::test_a_transaction_is_tried_transaction_tries_times"),
]  # fmt: skip
BROKER_LIFE = [
    Bound("hvd.broker.loop", "CALLS_PER_TURN", "hypercalls of one caller before the next caller has its turn",
          "the rest waits", f"{BROKER}/test_loop.py::test_after_calls_per_turn_hypercalls_it_is_the_next_callers_turn"),
    Bound("hvd.broker.held_hardware", "PART_LEAST", "descriptors that a domain may hold when half of them are in use "
          "(or the other half divided by the domains, where that is more)", "EMFILE from the call that would take one",
          "tests/process/test_fairness.py::test_whoever_wants_every_descriptor_leaves_others_theirs"),
    Bound("hvd.broker.upcall_sockets", "POSTS_PER_TURN", "hypercalls of a domain that is not ready, down its upcall "
          "socket, before the next caller has its turn", "the rest waits for the next turn",
          "tests/unit/broker/test_upcall_sockets.py::test_whoever_posts_without_end_lets_others_have_their_turns"),
    Bound("hvd.broker.endpoints", "CONNECTIONS_MAX", "connections of one incarnation to its endpoint", "it is killed",
          "tests/unit/broker/test_endpoints.py::test_who_connects_without_end_has_no_endpoint_any_more"),
    Bound("hvd.broker.endpoints", "CONNECTIONS_AT_ONCE_MAX", "of these at once", "it is killed",
          "tests/unit/broker/test_endpoints.py::"
          "test_who_is_connected_more_often_at_once_than_it_may_be_has_no_endpoint_any_more"),
    Bound("hvd.broker.hoards", "HOARD_BYTES", "bytes that libzmq keeps of messages whose last part has not come, and "
          "1 MiB for each domain", "its connections end; it is killed when it goes on",
          "tests/unit/broker/test_endpoints.py::"
          "test_whose_message_has_no_end_is_found_the_second_time_and_others_go_on"),
    Bound("transport.hypercalls", "QUEUED_MAX", "replies that wait in one of them to be read",
          "those that come next are dropped", "tests/unit/transport/test_hypercalls.py::"
          "test_of_replies_that_are_not_read_a_few_are_kept_and_the_rest_dropped"),
    Bound("hvd.broker.upcall_sockets", "OUTBOX_MAX", "messages that wait for a domain to read its upcall socket",
          "it is killed", "tests/process/test_hostile_guests.py::"
          "test_a_domain_that_never_reads_is_killed_before_what_waits_for_it_grows"),
    Bound("hvd.broker.upcall_sockets", "OUTBOX_DESCRIPTORS_MAX", "descriptors with them", "it is killed",
          f"{BROKER}/test_upcall_sockets.py::test_whoever_lets_more_descriptors_wait_than_it_may_is_killed"),
    Bound("hvd.broker.directories", "NODES_MAX", "children of a directory that one hypercall reads",
          "those that were made first are read",
          f"{BROKER}/test_dispatch.py::test_reading_all_children_of_a_directory_stops_at_read_all_max"),
    Bound("hvd.broker.dispatch", "NAMES_MAX", "children of a directory whose names one hypercall lists",
          "E2BIG: DIRECTORY_PART by the socket or the ring lists them",
          f"{BROKER}/test_dispatch.py::test_a_directory_of_more_than_names_max_is_not_listed_by_one_hypercall"),
    Bound("hvd.broker.directories", "EVENT_BYTES_MAX", "bytes of names and values that a watch event brings",
          "it comes alone, and whoever watches reads for himself",
          f"{BROKER}/test_directories.py::test_an_event_brings_nothing_of_a_directory_that_is_gone_or_holds_too_much"),
    Bound("hvd.broker.upcalls", "FOLLOWS_MAX", "watches of one domain whose events bring what has changed",
          "their events come alone",
          f"{BROKER}/test_upcalls.py::test_so_many_tokens_bring_their_directories_and_no_more"),
    Bound("hvd.broker.upcall_sockets", "BRINGING_MAX", "events sent together that bring what has changed",
          "the others come alone",
          f"{BROKER}/test_upcall_sockets.py::test_of_many_events_that_are_sent_together_so_many_bring_their_directories"),
    Bound("hvd.broker.ahead", "DEVICES_MAX", "devices that are watched and read for a spare that takes over",
          "it asks for the others itself",
          "tests/process/test_takeovers.py::test_more_devices_than_are_answered_ahead_are_all_served"),
    Bound("hvd.broker.ahead", "DESCRIPTORS_MAX", "descriptors that a spare is let run with",
          "it asks for the others itself",
          f"{BROKER}/test_ahead.py::test_descriptors_are_bounded_and_go_to_whole_devices_first"),
    Bound("hvd.broker.ahead", "BYTES_MAX", "bytes of one answer that it is let run with", "it reads for itself",
          f"{BROKER}/test_ahead.py::test_what_is_too_large_to_be_told_ahead_is_left_to_be_read"),
    Bound("hvd.broker.event_log", "KEPT_MAX", "events that are kept for whoever has not heard them",
          "the oldest go, and he is told how many he has missed",
          f"{BROKER}/test_event_log.py::test_kept_max_events_are_kept"),
    Bound("hvd.broker.event_log", "DETAIL_CHARS_MAX", "characters of an event's detail", "it is cut",
          f"{BROKER}/test_event_log.py::test_a_detail_is_cut_at_detail_chars_max"),
    Bound("hvd.broker.event_log", "PAGE_MAX", "events that one hypercall brings", "the next brings the next",
          f"{BROKER}/test_event_log.py::test_a_page_holds_the_next_events_that_are_kept"),
    Bound("hvd.broker.publisher", "BUFFERED_MAX", "lines of broker.log before the log is open",
          "the oldest lines go", f"{BROKER}/test_publisher.py::test_what_waits_for_the_log_is_bounded"),
    Bound("hvd.broker.state", "CRASHES_MAX", "brokers that crash over one hypercall",
          "EIO, and the sender is crashed",
          f"{BROKER}/test_state.py::test_a_hypercall_that_brokers_crash_over_is_refused_and_takes_its_sender_down"),
    Bound("hvd.broker.state", "FOUND_OPEN_MAX", "brokers killed from outside in the middle of one hypercall",
          "the same", f"{BROKER}/test_state.py::test_brokers_killed_from_outside_do_not_condemn_a_hypercall_soon"),
    Bound("hvd.broker.journal", "CAPACITY", "bytes of a journal beside its snapshot", "a snapshot begins the next one",
          f"{BROKER}/test_journal.py::test_there_is_room_for_the_capacity_beside_the_snapshot_and_not_for_a_byte_more"),
]  # fmt: skip
MACHINE_LIFE = [
    Bound("hvd.machine.ends", "DEATHS_MAX", "brokers in a row that die before they are up, and zygotes that die "
          "before they fork", "the machine powers off",
          f"{MACHINE}::test_a_broker_that_dies_before_it_is_up_is_not_forked_for_ever"),
    Bound("hvd.machine.broker_line", "OUTBOX_MAX", "messages that wait for a broker", "it is replaced",
          f"{MACHINE}::test_a_broker_that_reads_nothing_is_replaced_and_the_next_is_told_how_things_ended"),
    Bound("hvd.machine.watch", "SILENT_MAX", "looks, one a second, at a broker or zygote that does not come back to "
          "its loop though it could", "it is replaced",
          f"{MACHINE}::test_a_broker_whose_pulse_stands_still_is_replaced_and_the_next_is_told_why"),
    Bound("hvd.machine.exits", "THREADS_MAX", "threads of a process whose ends are watched",
          "the end of all tells the rest",
          "tests/unit/machine/test_exits.py::"
          "test_so_many_threads_are_watched_once_and_forgotten_with_their_process"),
    Bound("hvd.machine.spawns", "ASKED_MAX", "domains that the zygote is asked for at a time", "the rest waits",
          "tests/unit/machine/test_spawns.py::test_the_zygote_is_asked_in_order_and_for_a_few_at_a_time"),
    Bound("hvd.machine.spawns", "PATIENCE_S", "seconds without an answer of a zygote that was asked",
          "it is replaced", f"{MACHINE}::test_a_zygote_that_hangs_is_replaced_and_the_next_is_asked"),
]  # fmt: skip
CORES = [
    Bound("hvd.machine.dumper", "CORE_BYTES_MAX", "bytes of memory in one core, pages of zeros not counted",
          "its largest mappings end early, and the reason of the death says so",
          f"{MACHINE}::test_a_core_that_would_be_too_large_is_cut_off_where_its_largest_mapping_is"),
    Bound("hvd.machine.elf_core", "SEGMENTS_MAX", "mappings in one core",
          "those of the highest addresses are left out",
          f"{MACHINE}::test_of_mappings_without_number_only_the_first_are_in_a_core"),
    Bound("hvd.machine.dumper", "CORES_KEPT_MAX", "cores that are kept of one domain's name", "the oldest go",
          "tests/unit/machine/test_dumper.py::test_the_oldest_cores_of_a_name_go_and_others_stay"),
    Bound("hvd.machine.dumps", "DUMPS_AT_A_TIME", "dumpers that run at a time", "who is to be dumped waits, stopped",
          f"{MACHINE}::test_so_many_are_dumped_at_a_time_and_the_others_wait_and_those_that_are_killed_meanwhile_go"),
    Bound("hvd.machine.dumps", "PATIENCE_S", "seconds that a core may take", "there is none, and the domain is killed",
          f"{MACHINE}::test_a_dump_that_takes_too_long_is_given_up_and_its_process_killed"),
    Bound("transport/native/fault_report.hpp", "fault_patience_s", "seconds that a domain which met a fatal signal "
          "waits for its core to be taken", "it ends without",
          "tests/process/test_core_dumps.py::test_a_domain_whose_fault_nobody_hears_ends_by_itself"),
]  # fmt: skip
DEVICES = [
    Bound("domains.driver_domain", "DEVICES_MAX", "devices that a driver domain serves", "the next is not served, "
          "which its log says", "tests/unit/domains/test_driver_domain.py::"
          "test_one_device_beyond_devices_max_is_named_and_not_served_until_another_goes"),
    Bound("transport.protocols.block", "RING_PAGE_ORDER_MAX", "log2 of the pages of a block ring",
          "the backend closes the device", "tests/unit/test_bounds.py::test_a_block_ring_has_at_most_16_pages"),
    Bound("transport/native/blkfront.hpp", "requests_max", "requests of one disk that are open or were not taken",
          "LocalError", "tests/unit/transport/test_blkfront.py::"
          "test_so_many_requests_are_open_or_not_taken_and_not_one_more"),
    Bound("transport/native/blkfront.hpp", "lent_percent_max", "% of a disk's pool that a guest's buffers may take",
          "LocalError", "tests/unit/transport/test_blkfront.py::test_half_of_the_pool_is_never_lent"),
    Bound("transport/native/blkback.hpp", "batch_max", "requests of a block backend's batch",
          "the rest waits for the next batch",
          "tests/unit/transport/test_blkback.py::test_a_batch_is_32_requests_and_the_rest_waits"),
    Bound("transport/native/net_switch.hpp", "ports_max", "vifs of one driver domain's switch",
          "the next is not served, which its `error` says",
          "tests/unit/transport/net/test_switch.py::test_a_switch_has_1024_ports_and_no_more"),
    Bound("transport/native/net_switch.hpp", "packets_per_turn", "packets of a vif before the next one has its turn "
          "(or 256 KiB that were copied)", "the rest has the next turn",
          "tests/unit/transport/net/test_switch.py::test_a_turn_is_64_packets_and_the_rest_has_the_next"),
    Bound("transport/native/frame_queue.hpp", "queue_bytes_max", "bytes of packets that wait for a vif's buffers",
          "more for it is dropped, and counted", "tests/unit/domains/net/test_vif.py::"
          "test_who_never_receives_loses_packets_and_delays_nobody"),
    Bound("transport.packed_rules", "RULES_BYTES_MAX", "bytes of a network's rules", "`hvd` names the line",
          "tests/unit/toolstack/config/test_vifs.py::test_what_does_not_hold_together_is_named_at_its_place"),
    Bound("transport/native/packet_filter.hpp", "rules_max", "rules of a network", "`hvd` names the line",
          "tests/unit/transport/net/test_rules.py::test_a_table_has_256_rules_and_no_more"),
    Bound("transport/native/forwarding_table.hpp", "learned_per_port_max", "MAC addresses that are learned of one vif",
          "packets for others are flooded", "tests/unit/transport/net/test_switch.py::"
          "test_who_invents_addresses_takes_no_others_place"),
    Bound("transport/native/net_port.hpp", "groups_max", "multicast groups that a vif joins", "it gets no more groups' "
          "packets", "tests/unit/transport/net/test_switch.py::test_groups_that_a_frontend_joins_have_an_end"),
    Bound("transport.protocols.net", "QUEUES_MAX", "queues of one vif", "the backend closes the device",
          "tests/unit/domains/net/test_vif.py::test_keys_that_make_no_sense_are_the_frontends_fault"),
    Bound("transport/native/waiter.hpp", "ports_max", "ports one waiter waits on",
          "LocalError", "tests/unit/transport/test_channels.py::test_a_waiter_binds_4096_ports_and_not_one_more"),
    Bound("hvd.toolstack.config.kernels", "KERNEL_BYTES_MAX", "bytes of a kernel's Python file",
          "hvd up refuses the cluster file",
          "tests/unit/toolstack/config/test_kernels.py::test_a_kernel_has_a_size_limit"),
]  # fmt: skip
TRACING = [
    Bound("hvd.toolstack.trace.track", "KEPT_MAX", "records of one track that a trace keeps",
          "the oldest go, and are counted as lost",
          f"{TRACE}/test_track.py::test_a_track_keeps_the_newest_records_and_counts_the_others"),
    Bound("hvd.toolstack.trace.exchanges", "MESSAGES_MAX", "messages of one track that are joined to flows",
          "later ones are drawn without", f"{TRACE}/test_exchanges.py::"
          "test_a_record_that_claims_more_messages_than_there_can_be_costs_a_bounded_time"),
    Bound("hvd.toolstack.trace.story", "LANES_MAX", "requests of one ring that are drawn side by side",
          "the others are counted as undrawn", f"{TRACE}/test_perfetto_file.py::"
          "test_more_requests_in_flight_than_there_are_lanes_are_counted_and_not_drawn"),
    Bound("hvd.toolstack.trace.session", "LIFECYCLE_MAX", "lifecycle events of a trace", "later ones are not in it",
          f"{TRACE}/test_session.py::test_a_trace_keeps_so_many_lifecycle_events"),
]  # fmt: skip
SHORTAGES = "tests/unit/machine/test_shortages.py"
SANDBOX_TESTS = "tests/process/test_sandbox.py"
STOPPED = "tests/attacks/test_attacks.py::test_it_is_stopped_and_its_control_succeeds"
SANDBOX = [
    Bound("domains.sandbox.limits", "DESCRIPTORS_MAX", "descriptors of a guest", "EMFILE",
          STOPPED),
    Bound("domains.sandbox.limits", "PROCESSES_MAX", "processes and threads of a domain", "EAGAIN",
          STOPPED),
    Bound("domains.sandbox.limits", "PROGRAM_PROCESSES_MAX", "processes and threads of one that starts programs",
          "EAGAIN", f"{SANDBOX_TESTS}::test_a_program_domain_has_so_many_processes_and_no_more"),
    Bound("domains.sandbox.program_view", "SCRATCH_INODES",
          "files in what is a program's own (and no more bytes than its `memory`)", "ENOSPC",
          "tests/process/test_programs.py::test_what_is_its_own_is_no_larger_than_its_memory"),
    Bound("hvd.machine.halts", "TRIES_MAX", "attempts to stop all processes of a domain that is paused",
          "its first process is stopped, the others run", "tests/unit/machine/test_halts.py::"
          "test_one_that_fails_is_tried_again_so_often"),
    Bound("hvd.machine.shortages", "TRIES_MAX", "attempts to lower the limits of all processes of a domain for a fault",
          "what is not hit the fault's witness sees", f"{SHORTAGES}::"
          "test_a_denier_that_is_killed_is_followed_by_another_so_often_and_no_more"),
    Bound("hvd.machine.shortages", "PASSES_MAX", "passes of such an attempt over processes that fork meanwhile",
          "the next attempt", f"{SHORTAGES}::test_who_forks_without_end_is_gone_through_so_often_and_no_more"),
    Bound("hvd.machine.shortages", "NOTES_MAX", "processes whose limits are lowered",
          "the others are left alone, as the witness sees", f"{SHORTAGES}::test_so_many_are_noted_and_no_more_are_hit"),
    Bound("domains.sandbox.limits", "FILE_BYTES_MAX", "bytes of a file that a guest writes by itself", "EFBIG",
          f"{SANDBOX_TESTS}::test_a_file_that_a_guest_writes_has_an_end"),
    Bound("transport.sandbox", "RESERVED_KIB", "KiB of private memory of a process beside its `memory`", "ENOMEM",
          STOPPED),
]  # fmt: skip
RESTART_TESTS = {
    "limit": ("restarts within the window", f"{BROKER}/test_restarts.py::test_judging"),
    "window_ms": ("ms of that window", f"{BROKER}/test_restarts.py::test_judging"),
    "delay_ms": ("ms before a domain that died unready starts again", f"{BROKER}/test_restarts.py::test_judging"),
    "delay_max_ms": (
        "ms that this delay is doubled up to",
        f"{BROKER}/test_restarts.py::test_the_delay_ends_at_its_ceiling_however_often_a_start_fails",
    ),
}


def page() -> str:
    """The whole page."""
    limits = [(name, f"{limit.value:,}", limit.unit, limit.reached, limit.test) for name, limit in LIMITS.items()]
    parts = [
        "# Limits",
        "Every queue, table and message that somebody else can fill has an end. `scripts/generate_limits.py` writes\n"
        "this page from the code; a test compares them, and looks for each test named here.",
        "## What a domain may hold and send",
        table(("limit", "value", "of what", "whoever reaches it", "test"), limits),
        "## XenStore",
        "Guests are refused with Xen's errors. Domain 0 has ceilings far above any use.",
        table(("quota", "guest", "domain 0", "what", "test"), quota_rows()),
        bounds(WIRE),
        "## Devices and kernels",
        bounds(DEVICES),
        "## The sandbox",
        "Kept by the kernel, for each domain's process; what an earlier limit of the host's makes lower stays lower.",
        bounds(SANDBOX),
        "## Restarts",
        "Defaults, which a cluster file changes for each domain. Who restarts more often is failed; 0 is no limit.",
        table(("key", "default", "what", "test"), restart_rows()),
        "## Traces",
        "Beside these, `trace_records`, `traces_kept_max` and `trace_lease_s` above.",
        bounds(TRACING),
        "## The broker's own life",
        bounds(BROKER_LIFE),
        "## The machine",
        bounds(MACHINE_LIFE),
        "## Cores",
        bounds(CORES),
    ]
    return "\n\n".join(parts) + "\n"


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    body = [(f"`{name}`", *rest, f"`{test}`") for name, *rest, test in rows]
    lines = [headings, tuple("---" for _ in headings), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def bounds(rows: list[Bound]) -> str:
    cells = [(row.name.lower(), f"{row.value():,}", row.unit, row.reached, row.test) for row in rows]
    return table(("limit", "value", "of what", "whoever reaches it", "test"), cells)


def quota_rows() -> list[tuple[str, ...]]:
    """The fields of Quotas, with the sentences that stand behind them in the source."""
    said = sentences(ast.parse(Path(quotas.__file__).read_text()), "Quotas")
    return [
        (f.name, f"{getattr(quotas.UNPRIVILEGED, f.name):,}", f"{getattr(quotas.PRIVILEGED, f.name):,}",
         said[f.name], QUOTA_TESTS[f.name])
        for f in fields(quotas.Quotas)
    ]  # fmt: skip


def sentences(tree: ast.Module, class_name: str) -> dict[str, str]:
    """What the string behind each field of a class says."""
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    return {
        field.target.id: str(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def restart_rows() -> list[tuple[str, ...]]:
    defaults = RestartPolicy()
    return [
        (f"restart_{name}", f"{getattr(defaults, name):,}", what, test) for name, (what, test) in RESTART_TESTS.items()
    ]


if __name__ == "__main__":
    from generated_page import main

    sys.exit(main(PAGE, lambda _: page(), __doc__))
