"""xl.cfg's syntax: what it means, row by row, and that every mistake has a line and a column."""

import sys

import pytest

from hvd.toolstack.config.document import FILE_BYTES_MAX
from hvd.toolstack.config.xl_syntax import DEPTH_MAX, NUMBER_MAX, SyntaxProblem, parse

ADDED = 5000


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# nothing\n\n;;\n", {}),
        ('name = "web"', {"name": "web"}),
        ("vnc.old_1 = 1", {"vnc.old_1": 1}),
        ("name='web' # it serves\n", {"name": "web"}),
        ('name = "a # b"', {"name": "a # b"}),
        ("memory = 64; vcpus=2\nmaxmem\t=\t128\r\n", {"memory": 64, "vcpus": 2, "maxmem": 128}),
        ("a = 0x1F\nb = 017\nc = 0\n", {"a": 31, "b": 15, "c": 0}),
        (r'a = "q\"\\\n\x41\101\z"', {"a": 'q"\\\nAAz'}),
        ("a = []\nb = [ ]\nc = [\n]\n", {"a": [], "b": [], "c": []}),
        ("a = ['x', 'y',]", {"a": ["x", "y"]}),
        ("a = [ # one\n 'x', # two\n\n 'y' # three\n]", {"a": ["x", "y"]}),
        ("a = [[1, 2], ['x']]", {"a": [[1, 2], ["x"]]}),
        ("a = 'x'\na = 'y'", {"a": "y"}),
        ("a = 'x'\na += 'y'", {"a": "xy"}),
        ("a = ['x']\na += ['y', 'z']", {"a": ["x", "y", "z"]}),
        ("a += ['x']", {"a": ["x"]}),
        ("a = 'x'\na += 'y'\na = 'z'\na += 'w'\na += 'v'", {"a": "zwv"}),
        ("a = 'x'\na += 'y'\na = ['z']\na += ['w']", {"a": ["z", "w"]}),
        ("a = 'x'\na += 'y'\na = 7", {"a": 7}),
        ("a = 'n='\na += 0x10\na += 5", {"a": "n=0x105"}),
        ("a = 010\na += 2\na += 'z'", {"a": "0102z"}),
        ("a = 1\na += 2\na = 3\na += 4", {"a": "34"}),
        ("a += 5", {"a": 5}),
        (f"a = {NUMBER_MAX}", {"a": NUMBER_MAX}),
        ("a = 08; b = 12ab; c = 0b1; d = 0x; e = 1x2", {"a": "08", "b": "12ab", "c": "0b1", "d": "0x", "e": "1x2"}),
        (f"a = {NUMBER_MAX + 1}; b = 0x{'f' * 300}", {"a": f"{NUMBER_MAX + 1}", "b": f"0x{'f' * 300}"}),
        ("a = 08\na += 1", {"a": "081"}),
        ("a = " + "[" * DEPTH_MAX + "]" * DEPTH_MAX, {"a": [[[[[[[[]]]]]]]]}),
    ],
)
def test_what_a_text_means(text, values):
    assert parse(text).values == values


@pytest.mark.parametrize(
    ("text", "where", "expected", "found"),
    [
        ("a", (1, 2), "= or +=", "the end of the file"),
        ("\n  a = ", (2, 7), "a string, a number or a list", "the end of the file"),
        ("a = b", (1, 5), "a string, a number or a list", "'b'"),
        ("a = 1 b = 2", (1, 7), "the end of the line", "'b'"),
        ("a = [1 2]", (1, 8), ", or ]", "'2'"),
        ("a = [1,\n2", (2, 2), ", or ]", "the end of the file"),
        ("a = [,]", (1, 6), "a string, a number or a list", "','"),
        ("a = [1; 2]", (1, 7), ", or ]", "the end of the line"),
        ('a = "x', (1, 5), "a closing quote on the same line", "'\"x'"),
        ('a = "x\ny"', (1, 5), "a closing quote on the same line", "'\"x'"),
        ("a = 12z", (1, 5), "a number", "'12z'"),
        ("a = 0b2G", (1, 5), "a number", "'0b2G'"),
        ("= 1", (1, 1), "a key", "'='"),
        ("a = 1\n@", (2, 1), "a key, a value or a comment", "'@'"),
        ("a = 1\na += []", (2, 6), "a number to add to a", "a list"),
        ("a = [1]\na += 1", (2, 6), "a list to add to a", "a number"),
        ("a = 'x'\na += ['y']", (2, 6), "a string to add to a", "a list"),
        ("a = " + "[" * (DEPTH_MAX + 1), (1, 5 + DEPTH_MAX), "lists within lists at most 8 deep", "one more"),
    ],
)
def test_a_mistake_is_told_with_its_place(text, where, expected, found):
    with pytest.raises(SyntaxProblem) as caught:
        parse(text)
    problem = caught.value
    assert ((problem.line, problem.column), problem.expected, problem.found) == (where, expected, found)


def test_every_value_has_its_line_those_that_were_added_too():
    lines = parse("a = 1\nb = [\n 'x',\n 'y' ]\n\nb += [ 'z' ]\n").lines
    assert lines == {("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 4, ("b", 2): 6}


@pytest.mark.parametrize(("first", "more"), [("a = [ 'x' ]", "a += [ 'x' ]"), ("a = 'x'", "a += 'xxxxxxxx'")])
def test_what_is_added_costs_what_it_is_and_not_what_there_is_already(first, more):
    """Counted by what the parser's functions hand on. Sums made anew would be thousands of times the text."""
    text = "\n".join([first, *[more] * ADDED])
    copied = 0

    def allocations(frame, event, arg):
        nonlocal copied
        if event == "return" and isinstance(arg, (list, str)):
            copied += len(arg)

    sys.setprofile(allocations)
    try:
        parse(text)
    finally:
        sys.setprofile(None)
    assert copied < 20 * len(text)


def test_the_largest_file_of_additions_is_read():
    line = "a+=[1]\n"
    count = FILE_BYTES_MAX // len(line)
    assert parse(line * count).values == {"a": [1] * count}
