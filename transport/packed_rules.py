"""How a network's rules (net_rules.py) stand in the directory of a vif's backend: the keys, written and read.

The default says how many rules there are, so that whoever finds fewer has none, and not some of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RULES_KEY, DEFAULT_KEY = "hvd-rules", "hvd-default"
KEY_BYTES_MAX = 1536
"""Of rules in one XenStore node."""
RULES_BYTES_MAX = 32_768
"""Of a network's rules: with the keys of its backend they are read in one hypercall (StoreReadAll)."""


def pack_rules(lines: Sequence[str], *, allow_by_default: bool) -> dict[str, str]:
    """`hvd-default`, the word and how many rules there are, and as many `hvd-rules%u` as these take."""
    chunks: list[str] = []
    for line in lines:
        if chunks and len(chunks[-1].encode()) + len(line.encode()) + 2 <= KEY_BYTES_MAX:
            chunks[-1] += f"; {line}"
        else:
            chunks.append(line)
    packed = {f"{RULES_KEY}{number}": chunk for number, chunk in enumerate(chunks)}
    return {DEFAULT_KEY: f"{'allow' if allow_by_default else 'deny'} {len(lines)}", **packed}


def unpack_rules(keys: Mapping[str, str]) -> tuple[list[str], bool] | None:
    """The lines, and whether what none fits is allowed; None: there are none. ValueError on what was never packed."""
    lines: list[str] = []
    number = 0
    while (chunk := keys.get(f"{RULES_KEY}{number}")) is not None:
        lines += [line for line in chunk.split("; ") if line]
        number += 1
    default = keys.get(DEFAULT_KEY)
    if default is None and not lines:
        return None
    if default not in (f"allow {len(lines)}", f"deny {len(lines)}"):
        raise ValueError(f"{DEFAULT_KEY} is {default!r}: not allow or deny and the count of {len(lines)} rules")
    return lines, default.startswith("allow")
