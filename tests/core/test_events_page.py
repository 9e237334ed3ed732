"""docs/events.md names every kind of event that the code records, and no other."""

import ast
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

import ostler
from ostler.core.states import InstanceState, JobState

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
SOURCE = Path(ostler.__file__).parent
KIND = re.compile(r"[a-z]+\.[a-z_]+")
BY_STATE: dict[str, type[StrEnum]] = {"job.": JobState, "instance.": InstanceState}
"""Kinds that are put together from a state."""
CARRIERS = {"NewEvent", "Note", "StopOrder", "_event", "_note", "_tell", "tell"}
"""What takes a kind as an argument on its way into the history."""


def _documented() -> list[str]:
    return re.findall(rf"^\| `({KIND.pattern})` \|", PAGE.read_text(), re.MULTILINE)


def _recorded() -> set[str]:
    return {kind for path in SOURCE.rglob("*.py") for kind in _kinds_in(ast.parse(path.read_text()))}


def _kinds_in(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in CARRIERS:
                for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                    yield from _kinds_of(argument)
            case (
                ast.AnnAssign(target=ast.Name(id="kind"), value=ast.expr() as value)
                | ast.Assign(targets=[ast.Name(id="kind")], value=value)
            ):
                for part in _alternatives(value):
                    yield from _kinds_of(part)


def _alternatives(value: ast.expr) -> list[ast.expr]:
    match value:
        case ast.BoolOp(values=values):
            return values
        case ast.IfExp(body=one, orelse=other):
            return [one, other]
    return [value]


def _kinds_of(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)) if KIND.fullmatch(text):
            yield text
        case ast.JoinedStr(values=[ast.Constant(value=str(noun)), ast.FormattedValue()]) if noun in BY_STATE:
            yield from (noun + state.value for state in BY_STATE[noun])


def test_every_kind_of_event_is_on_the_page_once() -> None:
    documented = _documented()
    assert sorted(documented) == sorted(_recorded())


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        ('NewEvent("key.created", "key", 1, "x", "y")', ["key.created"]),
        ('StopOrder("why", "me", kind="instance.idle")', ["instance.idle"]),
        ('kind = note.kind or f"instance.{state}"', [f"instance.{state.value}" for state in InstanceState]),
        ('open("model.json")', []),
    ],
)
def test_a_kind_is_seen_however_it_is_written(code: str, kinds: list[str]) -> None:
    assert list(_kinds_in(ast.parse(code))) == kinds
