"""The reader of xl.cfg files is total, and what is written in its syntax is read back as it was meant."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hvd.toolstack.config.xl_syntax import NUMBER_MAX, SyntaxProblem, parse

KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(max_codepoint=0x2FF), max_size=20)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(0, NUMBER_MAX)), lambda inner: st.lists(inner, max_size=4), max_leaves=12
)
SYNTAX = st.text(st.sampled_from("ab=+[],;'\"\\#\n\t 0x19\x00ä"), max_size=60)


def written(value: Any) -> str:
    if isinstance(value, list):
        return "[ " + ",\n ".join(map(written, value)) + " ]"
    if isinstance(value, int):
        return str(value)
    escaped = "".join(c if c.isalnum() and c.isascii() else f"\\x{ord(c):02x}" if ord(c) < 256 else c for c in value)
    return f'"{escaped}"'


@given(SYNTAX)
def test_any_text_is_read_or_refused_with_a_place_that_it_has(text):
    try:
        document = parse(text)
    except SyntaxProblem as problem:
        lines = text.split("\n")
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
    else:
        assert all(1 <= line <= text.count("\n") + 1 for line in document.lines.values())
        assert {key for (key, *_) in document.lines} == set(document.values)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_what_is_written_is_read_back(values):
    text = "".join(f"{key} = {written(value)}\n" for key, value in values.items())
    assert parse(text).values == values
