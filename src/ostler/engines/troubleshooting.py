"""The page of what can go wrong with an engine, written from the rules that explain its logs."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ostler.engines.base import Cause, Diagnosis, Engine
from ostler.engines.diagnosis import HOST, Rule

_ABOUT: dict[Cause, str] = {
    "arguments": "options and arguments",
    "model": "the model's files",
    "memory": "memory",
    "gpus": "GPUs",
    "network": "the network",
    "system": "the machine",
    "engine": "the engine itself",
}
_PHRASES = 3
"""So many of a rule's wordings are shown."""


def render_troubleshooting_markdown(engines: Sequence[type[Engine]]) -> str:
    """docs/troubleshooting.md, complete."""
    lines = [
        "# Troubleshooting",
        "",
        "<!-- Written by `make docs` from the rules of diagnosis; do not edit. -->",
        "",
        "When an engine ends by itself, Ostler reads the end of its log, says what happened and what to do:",
        "`ostler ps` and `ostler show MODEL` show the reason, `ostler logs MODEL` the log itself. Here is",
        "all that Ostler can explain. `…` stands for what differs; words in capitals are yours to fill in.",
        "",
    ]
    for engine in engines:
        own = [rule for rule in engine.known_ends.rules if rule not in HOST]
        lines += [f"## {engine.title}", "", *_sections(own)]
        lines += ["### Without a word in the log", "", *_by_exit_code(engine), ""]
        lines += [f"## {engine.title}: while it runs", "", *_sections(engine.known_ends.notes)]
    lines += ["## Every engine", "", *_sections(HOST)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _sections(rules: Iterable[Rule]) -> Iterator[str]:
    for rule in rules:
        blanks = dict.fromkeys(rule.pattern.groupindex, "…")
        said = [f"`{phrase.replace('`', '')}`" for phrase in phrases(rule.pattern.pattern)[:_PHRASES]]
        yield from (f"### {rule.title}", "", f"- The log says: {', or '.join(said)}")
        yield f"- It is about {_ABOUT[rule.cause]}: {_filled(rule.reason, blanks)}"
        yield from (f"- What to do: {_filled(fix, blanks)}" for fix in (rule.hint, *rule.more))
        yield ""


def _filled(text: str, blanks: Mapping[str, str]) -> str:
    """Several blanks in a row are one of them: only one of them is ever filled in."""
    return re.sub("…+", "…", text.format(**blanks))


def _by_exit_code(engine: type[Engine]) -> Iterator[str]:
    """What is told of an end whose log explains nothing."""
    ends = engine.known_ends
    seen: list[tuple[str, Diagnosis | None]] = [
        ("the system or Docker says that memory ran out", ends.diagnose([], None, oom_killed=True)),
        *(
            (f"-{number.value} or {128 + number.value} ({number.name})", ends.diagnose([], -number))
            for number in (signal.SIGKILL, signal.SIGILL, signal.SIGSEGV)
        ),
    ]
    for code, found in seen:
        if found is not None:
            yield f"- {code}: {found.title}. {found.reason} {found.hint}"


def phrases(pattern: str) -> list[str]:
    """The wordings that a rule's pattern knows, for people: `…` where anything may stand."""
    found = []
    for alternative in _alternatives(pattern):
        text = _readable(alternative)
        text = re.sub(r"…(?:\s*…)+", "…", text).strip()
        if text and text != "…":
            found.append(text)
    return found


def _bare(pattern: str, start: int = 0) -> Iterator[tuple[int, str]]:
    """Every character from `start` on that is neither escaped nor in a class, with its position."""
    index = start
    while index < len(pattern):
        char = pattern[index]
        if char == "\\":
            index += 1
        elif char == "[":
            index = _class_end(pattern, index)
        else:
            yield index, char
        index += 1


def _alternatives(pattern: str) -> list[str]:
    """Split at the `|` that stand in no group and no class."""
    parts, depth, start = [], 0, 0
    for index, char in _bare(pattern):
        if char in "()":
            depth += 1 if char == "(" else -1
        elif char == "|" and depth == 0:
            parts.append(pattern[start:index])
            start = index + 1
    return [*parts, pattern[start:]]


def _readable(pattern: str) -> str:
    """One alternative as text: groups by their first wording, classes and wildcards as `…`."""
    shown: list[str] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "\\":
            piece, index = _escaped(pattern[index]), index + 1
        elif char == "[":
            piece, index = "…", _class_end(pattern, index - 1) + 1
        elif char == "(":
            end = _group_end(pattern, index - 1)
            piece, index = _group(pattern[index:end]), end + 1
        elif char in "^$":
            piece = ""
        else:
            piece = "…" if char == "." else char
        counted = re.match(r"(?:[*+?]|\{[^}]*\})\??", pattern[index:])
        if counted:
            index += counted.end()
            piece = "" if counted[0][0] in "?*" and piece != "…" else piece
        shown.append(piece)
    return "".join(shown)


def _escaped(char: str) -> str:
    return {"s": " ", "b": "", "n": " ", "t": " "}.get(char, "…" if char in "SdwDW" else char)


def _group(inside: str) -> str:
    if inside.startswith(("?=", "?!", "?<=", "?<!")):
        return ""
    inside = re.sub(r"^\?(?:P<\w+>|:)", "", inside)
    return _readable(_alternatives(inside)[0])


def _class_end(pattern: str, start: int) -> int:
    """The position of the `]` that ends the class that begins at `start`."""
    index = start + (2 if pattern[start + 1 : start + 2] == "^" else 1) + 1
    while pattern[index - 1] == "\\" or pattern[index] != "]":
        index += 1
    return index


def _group_end(pattern: str, start: int) -> int:
    """The position of the `)` that ends the group that begins at `start`."""
    depth = 0
    for index, char in _bare(pattern, start):
        if char in "()":
            depth += 1 if char == "(" else -1
            if depth == 0:
                return index
    raise ValueError(f"a group is not closed in {pattern!r}")
