"""What the stub of the native core promises is there: a type checker believes it."""

import ast
from pathlib import Path

import pytest

from hvd.transport import _native

STUB = ast.parse((Path(__file__).parents[3] / "transport" / "_native.pyi").read_text()).body
CLASSES = [each for each in STUB if isinstance(each, ast.ClassDef)]


def promised(body):
    """Names that are not private."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and not statement.name.startswith("_"):
            yield statement.name
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id


def test_each_function_and_class_of_the_stub_is_there():
    assert [name for name in promised(STUB) if not hasattr(_native, name)] == []


@pytest.mark.parametrize("described", CLASSES, ids=lambda each: each.name)
def test_each_member_of_a_class_of_the_stub_is_there(described):
    kind = getattr(_native, described.name)
    assert [name for name in promised(described.body) if not hasattr(kind, name)] == []
