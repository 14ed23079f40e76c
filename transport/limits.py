"""Every bound that a domain can run into, with what happens there; docs/limits.md is generated from this table."""

from hvd.transport.records import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound: its value, its unit, what the domain that reaches it sees, and the test that shows it."""

    value: int
    unit: str
    reached: str
    test: str


LIMITS: dict[str, Limit] = {}


def _limit(name: str, value: int, unit: str, reached: str, test: str) -> int:
    LIMITS[name] = Limit(value, unit, reached, test)
    return value


PORTS_MAX = _limit("ports_max", 1023, "event channels per domain", "ENOSPC from the call that asks for a port",
                   "tests/unit/broker/test_event_channels.py")
GRANTS_MAX = _limit("grants_max", 32_768, "granted pages per domain (64 frames of 512 v1 entries)",
                    "ENOSPC from gnttab_share", "tests/unit/broker/test_grant_tables.py")
EXTENTS_MAX = _limit("extents_max", 256, "extents per domain", "ENOSPC from gnttab_allocate",
                     "tests/unit/broker/test_grant_tables.py")
EXTENT_PAGES_MAX = _limit("extent_pages_max", 8192, "pages per extent", "EBADMSG naming the field",
                          "tests/unit/broker/test_grant_tables.py")
MAPTRACK_MAX = _limit("maptrack_max", 1024, "mappings of others' grants per domain", "ENOSPC from gnttab_map",
                      "tests/unit/broker/test_grant_tables.py")
COPY_SEGMENTS_MAX = _limit("copy_segments_max", 16, "segments per gnttab_copy", "EBADMSG naming the field",
                           "tests/unit/transport/test_codec.py")
DEVICES_MAX = _limit("devices_max", 256, "devices of one domain",
                     "EINVAL from domctl_create, ENOSPC from domctl_attach", "tests/unit/broker/test_hotplug.py")
DOMAINS_MAX = _limit("domains_max", 1024, "domains of one machine", "ENOSPC from domctl_create",
                     "tests/unit/broker/test_hypervisor.py")
MESSAGE_BYTES_MAX = _limit("message_bytes_max", 65_536, "bytes of one hypercall", "EBADMSG, nothing is decoded",
                           "tests/unit/transport/test_codec.py")
TEXT_BYTES_MAX = _limit("text_bytes_max", 4096, "bytes of one text or byte string in a hypercall",
                        "EBADMSG naming the field", "tests/unit/transport/test_codec.py")
LIST_ITEMS_MAX = _limit("list_items_max", 1024, "items of one list in a hypercall", "EBADMSG naming the field",
                        "tests/unit/transport/test_codec.py")
MULTICALL_REPLY_BYTES_MAX = _limit("multicall_reply_bytes_max", 262_144,
                                   "bytes that the reads of one multicall bring, each name and value at least 512",
                                   "the one that would bring more is carried out when it is asked anew",
                                   "tests/unit/broker/test_multicall.py")
MULTICALL_WORK_MAX = _limit("multicall_work_max", 400,
                            "that one multicall takes, some 2 microseconds each: 8 for a call that is no read, 2 for a "
                            "node that it changes, 1 for a watch that hears of it, 200 for a commit",
                            "what is behind the call with which it has, or for which one waits, is carried out when "
                            "it is asked anew",
                            "tests/unit/broker/test_multicall.py")
DESCRIPTORS_PENDING_MAX = _limit("descriptors_pending_max", 16,
                                 "descriptors sent to a domain that it has not acknowledged",
                                 "EAGAIN: read the upcall socket first", "tests/process/test_broker_restart.py")
EVENTS_PENDING_MAX = _limit("events_pending_max", 1024, "watch events a domain has not acknowledged",
                            "one overflow event: the domain reads everything it watches again",
                            "tests/unit/broker/test_upcalls.py")
EVENTS_PENDING_BYTES_MAX = _limit("events_pending_bytes_max", 131_072, "bytes of their paths",
                                  "one overflow event: the domain reads everything it watches again",
                                  "tests/unit/broker/test_upcalls.py")
DESCRIPTORS_SPARED = _limit("descriptors_spared", 2048,
                            "descriptors that broker and machine keep for themselves (at most half of RLIMIT_NOFILE)",
                            "EMFILE from the call that would take one", "tests/unit/broker/test_held.py")
JOURNAL_BYTES_SPARED = _limit("journal_bytes_spared", 524_288,
                        "bytes of the journal that are left for deaths and time, where the host refuses it more",
                        "ENOSPC from whatever would change something; `broker.log` says why and what to do",
                        "tests/unit/broker/test_ledger.py")
STORE_CONNECTIONS_MAX = _limit("store_connections_max", 8, "connections to a domain's XenStore socket",
                               "one more is closed at once, and the log says so",
                               "tests/unit/broker/xenstored/test_sockets.py")
STORE_CONNECTIONS_SHARED = _limit("store_connections_shared", 512,
                                  "connections to all domains' XenStore sockets, beyond the first of each domain",
                                  "one more is closed at once, and the log says so",
                                  "tests/unit/broker/xenstored/test_sockets.py")
STORE_HOST_CONNECTIONS_MAX = _limit("store_host_connections_max", 256, "connections to dom0's XenStore socket",
                                    "one more is closed at once, and the log says so",
                                    "tests/unit/broker/xenstored/test_sockets.py")
STORE_BACKLOG_BYTES_MAX = _limit("store_backlog_bytes_max", 262_144,
                                 "bytes of watch events that a XenStore client of the host's has not read from its "
                                 "socket", "its connection is closed, and the log says so",
                                 "tests/unit/broker/xenstored/test_sockets.py")
STORE_GUEST_BACKLOG_BYTES_MAX = _limit("store_guest_backlog_bytes_max", 131_072,
                                       "the same of a domain's, and 160 for each message that waits",
                                       "its connection is closed, and the log says so",
                                       "tests/unit/broker/xenstored/test_sockets.py")
TOOLSTACK_CLIENTS_MAX = _limit("toolstack_clients_max", 64, "toolstack programs whose last reply is kept",
                               "the one unused longest is forgotten", "tests/unit/broker/test_sessions.py")
WATCHDOGS_MAX = _limit("watchdogs_max", 2, "watchdog timers per domain (Xen: NR_DOMAIN_WATCHDOG_TIMERS)",
                       "ENOSPC from sched_watchdog", "tests/unit/broker/test_dispatch.py")
HEARTBEAT_MS_LEAST = _limit("heartbeat_ms_least", 50, "ms between a domain's heartbeats, at least (0: it has none)",
                            "EINVAL from domctl_create; `hvd` names the line",
                            "tests/unit/broker/test_hypervisor.py")
IO_BPS_LEAST = _limit("io_bps_least", 65_536,
                      "bytes a second of each disk that a domain is bound to, at least (0: it is not)",
                      "EINVAL from domctl_create; `hvd` names the line", "tests/unit/broker/test_hypervisor.py")
CONSOLE_LOG_BYTES_MAX = _limit("console_log_bytes_max", 1 << 20,
                               "bytes of one log file before it is rotated (one old file is kept)",
                               "the oldest lines go", "tests/unit/transport/test_log_file.py")
HYPERVISOR_LOG_LINES_MAX = _limit("hypervisor_log_lines_max", 1024, "lines of the hypervisor's console ring",
                                  "the oldest lines go", "tests/unit/broker/test_dispatch.py")
CONSOLE_BACKLOG_BYTES_MAX = _limit("console_backlog_bytes_max", 65_536,
                                   "bytes a domain has printed and nobody took from its console ring",
                                   "the oldest lines go, and how much that was is printed",
                                   "tests/unit/domains/console/test_frontend.py")
CONSOLE_LINE_BYTES_MAX = _limit("console_line_bytes_max", 4096,
                                "bytes typed to a domain's console before the line is ended",
                                "what is typed beyond is dropped, with a bell",
                                "tests/unit/domains/console/test_line_discipline.py")
CONSOLE_SCROLLBACK_BYTES_MAX = _limit("console_scrollback_bytes_max", 16_384,
                                      "bytes of a console's output that nobody reads from its pty",
                                      "the oldest go; the log has them", "tests/unit/domains/console/test_pty.py")
TRACE_RECORDS = _limit("trace_records", 32_768, "records in a domain's trace buffer (1 MiB, while it is traced)",
                       "the oldest are overwritten, and counted as lost",
                       "tests/unit/toolstack/trace/test_track.py")
TRACE_READ_RECORDS_MAX = _limit("trace_read_records_max", 4096, "records that one hypercall reads of a trace buffer",
                                "the rest is there for the next one", "tests/unit/transport/test_trace.py")
TRACES_KEPT_MAX = _limit("traces_kept_max", 64, "trace buffers of dead incarnations that are kept for the trace",
                         "the oldest one goes", "tests/unit/broker/test_tracing.py")
TRACE_LEASE_S = _limit("trace_lease_s", 10, "seconds that a trace goes on although nobody reads it",
                       "it ends, and what it had kept goes", "tests/unit/broker/test_trace_buffers.py")
FAULTS_MAX = _limit("faults_max", 256, "injected faults that are under way", "ENOSPC from `hvd fault`",
                    "tests/unit/broker/test_faults.py")
FAULT_S_MAX = _limit("fault_s_max", 3600, "seconds of an injected fault", "EINVAL; `hvd fault` names the option",
                     "tests/unit/broker/test_faults.py")
LABELS_MAX = _limit("labels_max", 32, "labels of a security policy", "EBADMSG naming the field; `hvd` names the line",
                    "tests/unit/broker/test_xsm.py")
NETWORKS_MAX = _limit("networks_max", 256, "networks of a cluster", "`hvd` names the line",
                      "tests/unit/toolstack/config/test_vifs.py")
INTERFACES_MAX = _limit("interfaces_max", 8, "network interfaces of a program",
                        "ENOSPC from network-attach; one with more in its configuration is not run, and says why",
                        "tests/process/test_program_vifs.py")
AVC_BURST_MAX = _limit("avc_burst_max", 32, "denials of one domain that are logged at once; then one more a second",
                       "the others are counted, and the count is logged", "tests/unit/broker/test_audit.py")
