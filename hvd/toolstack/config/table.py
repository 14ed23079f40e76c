"""Reads one TOML table: every key is asked for by type and range, and what nobody asked for is unknown."""

from hvd.toolstack.config.names import NAME_SYNTAX, is_name
from hvd.toolstack.config.problems import Place, Report, Step, nearest, shown
from hvd.toolstack.config.xl_keys import XL_KEYS_NOT_HERE
from hvd.transport.limits import LIST_ITEMS_MAX, TEXT_BYTES_MAX


class Table:
    """One table being read. A wrong value is reported and answered with the default, so that reading goes on."""

    def __init__(self, report: Report, place: Place, values: dict[str, object]) -> None:
        self.report = report
        self.place = place
        self._values = values
        self._asked: set[str] = set()

    def at(self, *steps: Step) -> Place:
        """The place of one of the table's keys."""
        return (*self.place, *steps)

    def take(self, key: str) -> object | None:
        """The value as it stands, None if there is none; the key counts as known."""
        self._asked.add(key)
        return self._values.get(key)

    def rest(self) -> dict[str, object]:
        """Every key that was not asked for."""
        return {key: value for key, value in self._values.items() if key not in self._asked}

    def text(self, key: str, default: str | None, *, bytes_max: int = TEXT_BYTES_MAX) -> str:
        """A non-empty text; default None: the key is required, and the answer is empty if it is missing or wrong."""
        value = self.take(key)
        expected = f"a text of 1 to {bytes_max} bytes"
        if value is None and default is None:
            self.report.wrong(self.at(key), expected, "nothing")
        elif value is not None:
            return text_in(self.report, self.at(key), value, bytes_max) or default or ""
        return default or ""

    def name(self, key: str) -> str:
        """A required name that fits a path, a XenStore value and a command line; empty if it does not."""
        value = self.text(key, None)
        if value and not is_name(value):
            self.report.wrong(self.at(key), NAME_SYNTAX, shown(value))
            return ""
        return value

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        value = self.take(key)
        if value is None:
            return default
        if type(value) is not int or not least <= value <= most:
            self.report.wrong(self.at(key), f"a whole number from {least} to {most}", shown(value))
            return default
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.report.wrong(self.at(key), "true or false", shown(value))
            return default
        return value

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in choices:
            hint = nearest(value, choices) if isinstance(value, str) else ""
            self.report.wrong(self.at(key), "one of " + ", ".join(choices), shown(value), hint)
            return default
        return value

    def items(self, key: str, what: str) -> list[object]:
        """A list, whatever is in it; `what` names the items in the message."""
        value = self.take(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > LIST_ITEMS_MAX:
            hint = f"write {key} = [...]" if isinstance(value, str) else ""
            self.report.wrong(self.at(key), f"a list of at most {LIST_ITEMS_MAX} {what}", shown(value), hint)
            return []
        return value

    def texts(self, key: str, what: str) -> list[str]:
        """A list of texts; an empty one is allowed, a wrong one is left out."""
        items = enumerate(self.items(key, what))
        texts = [text_in(self.report, self.at(key, index), item, TEXT_BYTES_MAX, least=0) for index, item in items]
        return [text for text in texts if text is not None]

    def tables(self, key: str, header: str) -> list["Table"]:
        """The tables of `[[header]]`; anything else is reported and left out."""
        value = self.take(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > LIST_ITEMS_MAX:
            expected = f"at most {LIST_ITEMS_MAX} tables"
            self.report.wrong(self.at(key), expected, shown(value), f"write [[{header}]] above each")
            return []
        found = [table_in(self.report, self.at(key, index), item) for index, item in enumerate(value)]
        return [table for table in found if table is not None]

    def finish(self) -> None:
        """Report every key that was not asked for."""
        known = sorted(self._asked)
        for key in self.rest():
            of_xl = key in XL_KEYS_NOT_HERE
            hint = "xl has this key, hvd does not" if of_xl else nearest(key, known)
            expected = "a key that hvd knows" if hint else "one of " + ", ".join(known)
            self.report.wrong(self.at(key), expected, f"the {'' if of_xl else 'unknown '}key {shown(key)}", hint)


def table_in(report: Report, place: Place, value: object) -> Table | None:
    """The value as a table; None, and reported, if it is none."""
    if isinstance(value, dict):
        return Table(report, place, value)
    report.wrong(place, "a table", shown(value))
    return None


def text_in(report: Report, place: Place, value: object, bytes_max: int, *, least: int = 1) -> str | None:
    """The value as a text that a path, an argument and a hypercall can hold; None, and reported, if it is none."""
    if isinstance(value, str) and least <= len(value.encode()) <= bytes_max and "\0" not in value:
        return value
    report.wrong(place, f"a text of {least} to {bytes_max} bytes without NUL", shown(value))
    return None
