"""The line of each key, for every way TOML has to write one."""

import tomllib

import pytest

from hvd.toolstack.config.positions import lines_of

DOCUMENT = '''\
# domain = "not this one"
[cluster]
name = "a # no comment"
text = """
[[domain]]
name = "inside a text"
"""
raw = \'\'\'
key = 1
\'\'\'

[[domain]]  # the first
"name" = 'one'
disk = [
  "x",  # a comment, with a comma
  # "no item",
  "y, z", { target = "t", 'vdev' = [1,
    2] },
]
after = []
[[domain.device]]
type = "echo"
[[domain.device]]
type = "echo"
[domain.extra]
a.b . "c.d" = 1979-05-27 07:32:00
float = 1.5
[[domain]]
name = "two"
[[domain.device]]
type = "net"
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("cluster",), 2),
        (("cluster", "name"), 3),
        (("cluster", "text"), 4),
        (("cluster", "raw"), 8),
        (("domain", 0), 12),
        (("domain", 0, "name"), 13),
        (("domain", 0, "disk"), 14),
        (("domain", 0, "disk", 0), 15),
        (("domain", 0, "disk", 1), 17),
        (("domain", 0, "disk", 2), 17),
        (("domain", 0, "disk", 2, "vdev"), 17),
        (("domain", 0, "disk", 2, "vdev", 1), 18),
        (("domain", 0, "after"), 20),
        (("domain", 0, "device", 0), 21),
        (("domain", 0, "device", 1, "type"), 24),
        (("domain", 0, "extra", "a", "b", "c.d"), 26),
        (("domain", 0, "extra", "float"), 27),
        (("domain", 1), 28),
        (("domain", 1, "name"), 29),
        (("domain", 1, "device", 0, "type"), 31),
    ],
)
def test_a_key_is_found_on_its_line(place: tuple[str | int, ...], line: int) -> None:
    assert lines_of(DOCUMENT)[place] == line


def test_what_stands_in_texts_and_comments_is_no_key() -> None:
    keys = {place[-1] for place in lines_of(DOCUMENT)}
    assert "key" not in keys
    assert lines_of(DOCUMENT)[("domain",)] == 12
    tomllib.loads(DOCUMENT)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# only this", "a = 1", 'a = """\\""""""', "a = ''''''", 'a = ""', "a=[[],[[]]]"]
)
def test_small_documents_are_walked_to_their_end(text: str) -> None:
    assert set(lines_of(text)) >= {(key,) for key in tomllib.loads(text)}


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_a_text_may_end_in_quotes_of_its_own(quotes: str) -> None:
    text = "".join(f"a{count} = {quotes}x = 1\n{quotes[0] * count}{quotes}\n" for count in range(3))
    assert lines_of(text) == {("a0",): 1, ("a1",): 3, ("a2",): 5}


def test_windows_line_ends_count_once() -> None:
    assert lines_of("a = 1\r\n\r\nb = '''x\r\ny'''\r\nc = 2\r\n") == {("a",): 1, ("b",): 3, ("c",): 5}


def test_nesting_beyond_any_key_of_ours_is_passed_over() -> None:
    depth = 300
    text = f"a = {'[' * depth}{']' * depth}\nb = {'{x=' * depth}1{'}' * depth}\nc = 1"
    lines = lines_of(text)
    assert (lines[("a",)], lines[("b",)], lines[("c",)]) == (1, 2, 3)
    assert max(map(len, lines)) < 20
