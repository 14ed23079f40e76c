"""Reads xl's disk line into the keys it comes to, as libxlu_disk does (xl-disk-configuration(5)).

    target,format,vdev,access      whatever of them stands so far without a name, in this order; each may be empty
    key=value, flag                anywhere between them; target= takes the rest of the line, commas included
    tap:aio:target,vdev:cdrom,r    xend's way: words before the target, of which one may be its format, and no other
    ,vdev:cdrom,r                  xend's empty drive
"""

import re

from hvd.toolstack.config.problems import Place, Report, shown

POSITIONAL = ("target", "format", "vdev", "access")
FORMATS = ("raw", "qcow", "qcow2", "vhd")
SCRIPTS = ("iscsi", "nbd", "enbd", "drbd")
DRIVERS = ("tapdisk", "tap2", "tap", "aio", "ioemu", "file", "phy")
"""Who was to serve a disk: xend's word for it, which xl strips and ignores."""
ADVICE = ("direct-io-safe", "trusted", "untrusted")
"""Flags that a driver may heed or not; hvd's have no use for any."""
BACKEND_TYPES = ("phy", "tap", "qdisk")
_PREFIX = re.compile(r"([a-z][a-z0-9]*):(?=(.?))", re.DOTALL)


def disk_line(report: Report, place: Place, line: str) -> dict[str, object]:
    """What a line says under each key: those of a disk's table, and what xl alone knows. An empty value is none.

    What is advice to Xen's drivers is left out, and warned of.
    """
    reader = _Reader(report, place)
    rest = line.lstrip()
    while rest:
        prefix = reader.take_prefix(rest)
        if prefix:
            rest = rest[prefix:]
        elif rest.startswith("target="):
            reader.word(rest.removesuffix(","))
            break
        else:
            word, _, rest = rest.partition(",")
            reader.word(word)
        rest = rest.lstrip()
    return {key: value for key, value in reader.values.items() if value != ""}


class _Reader:
    """The keys so far."""

    def __init__(self, report: Report, place: Place) -> None:
        self.values: dict[str, object] = {}
        self._report = report
        self._place = place
        self._passed: set[str] = set()
        """What may not stand without its name any more, although nothing was said of it."""

    def take_prefix(self, rest: str) -> int:
        """How long the xend word is with which this begins; 0: it begins with none."""
        found = _PREFIX.match(rest)
        if found is None:
            return 0
        word, behind = found[1], found[2]
        if word in FORMATS:
            self._set("format", word)
        elif word in SCRIPTS:
            expected = "a file or a block device, without a script that makes one"
            self._report.wrong(self._place, expected, f"{shown(word + ':')}, which is xl's script=block-{word}")
        elif word not in DRIVERS:
            if re.match(r"[a-z0-9]", behind):
                return 0  # a target or a vdev with a colon in it
            expected = f"one of xend's words ({', '.join((*DRIVERS, 'raw'))}) before the colon"
            self._report.wrong(self._place, expected, shown(word + ":"))
        self._passed.add("format")
        return found.end(1) + 1

    def word(self, word: str) -> None:
        """One word between commas."""
        key, equals, value = word.partition("=")
        if equals and not key:
            self._report.wrong(self._place, "key=value", shown(word))
        elif equals:
            self._named(key, value)
        elif word == "cdrom":
            self.values["devtype"] = word
        elif word in ("discard", "no-discard"):
            self.values["discard"] = word == "discard"
        elif word in ADVICE:
            self._leave_out(word)
        elif word in ("colo", "no-colo"):
            self.values.update({"colo": word} if word == "colo" else {})
        else:
            self._unnamed(word)

    def _named(self, key: str, value: str) -> None:
        if key == "devtype":
            self.values[key] = value
        elif key == "backendtype" and value in BACKEND_TYPES:
            self._leave_out(f"{key}={value}")
        elif (key, value) != ("specification", "xen"):
            self._set(key, int(value) if key == "timeout_ms" and value.isascii() and value.isdecimal() else value)

    def _unnamed(self, word: str) -> None:
        key = next((key for key in POSITIONAL if key not in self.values and key not in self._passed), None)
        if key == "format" and ":" in word and not self.values["target"]:
            self._set(key, "raw")
            key = "vdev"
        if key is None:
            expected = f"at most {len(POSITIONAL)} values without a key"
            self._report.wrong(self._place, expected, shown(word))
        elif key == "vdev" and ":" in word:
            self._set(key, word.rpartition(":")[0])
            self.values["devtype"] = word.rpartition(":")[2]
        else:
            self._set(key, word)

    def _set(self, key: str, value: object) -> None:
        if self.values.get(key, "") != "":
            self._report.wrong(self._place, f"{key} once", f"{key} again, {shown(value)}")
        else:
            self.values[key] = value

    def _leave_out(self, word: str) -> None:
        self._report.warn(self._place, f"does without {word}: it is advice to Xen's drivers")
