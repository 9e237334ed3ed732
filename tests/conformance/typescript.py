"""The TypeScript of a document, read just far enough to send what its `fetch` calls say.

Only what such documents hold is understood: object and array literals, quoted texts, numbers, names that
stand for values given, `JSON.stringify(...)`, comments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```\s*$", re.DOTALL | re.MULTILINE)
_SPACE = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_$][\w$.]*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_ESCAPES = {"n": "\n", "t": "\t"}


@dataclass(frozen=True)
class Fetch:
    """One call, with every name in it filled in."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order (backticks in a text do not end one)."""
    return [found[2] for found in _FENCE.finditer(document) if found[1] == language]


def fetches(block: str, values: Mapping[str, Any]) -> list[Fetch]:
    """The `fetch` calls of a block. `values` are what its parameters stand for; its own constants win."""
    known = {**values, **constants(block, values)}
    found = []
    for call in re.finditer(r"\bfetch\(", block):
        reader = _Reader(block, call.end(), known)
        url = reader.value()
        options = reader.value() if reader.take(",") else {}
        assert isinstance(url, str) and isinstance(options, dict), block[call.start() :][:200]
        headers = {name: str(value) for name, value in (options.get("headers") or {}).items()}
        found.append(Fetch(options.get("method", "GET"), url, headers, options.get("body")))
    return found


def constants(block: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What `const NAME = {...}` and `const NAME = [...]` of a block say."""
    found: dict[str, Any] = {}
    for match in re.finditer(r"const (\w+) = (?=[{\[])", block):
        found[match[1]] = _Reader(block, match.end(), {**values, **found}).value()
    return found


def literal(text: str) -> Any:
    """A text that is one literal and nothing else."""
    reader = _Reader(text, 0, {})
    value = reader.value()
    assert not reader.rest().strip(), text
    return value


class _Reader:
    def __init__(self, text: str, at: int, values: Mapping[str, Any]) -> None:
        self._text = text
        self._at = at
        self._values = values

    def rest(self) -> str:
        self._skip()
        return self._text[self._at :]

    def take(self, mark: str) -> bool:
        """True, and past it, where this mark comes next."""
        self._skip()
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def value(self) -> Any:
        self._skip()
        mark = self._text[self._at]
        if mark in "'\"`":
            return self._quoted(mark)
        if self.take("{"):
            return self._object()
        if self.take("["):
            return self._array()
        if number := _NUMBER.match(self._text, self._at):
            self._at = number.end()
            return float(number[0]) if "." in number[0] else int(number[0])
        word = self._word()
        if word == "JSON.stringify":
            assert self.take("(")
            value = self.value()
            assert self.take(")")
            return value
        return self._values[word]

    def _object(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self.take("}"):
            self._skip()
            quoted = self._text[self._at] in "'\""
            name = self._quoted(self._text[self._at]) if quoted else self._word()
            found[name] = self.value() if self.take(":") else self._values[name]
            self.take(",")
        return found

    def _array(self) -> list[Any]:
        found = []
        while not self.take("]"):
            found.append(self.value())
            self.take(",")
        return found

    def _word(self) -> str:
        self._skip()
        word = _WORD.match(self._text, self._at)
        assert word is not None, self._text[self._at : self._at + 80]
        self._at = word.end()
        return word[0]

    def _quoted(self, mark: str) -> str:
        self._at += 1
        said = ""
        while (letter := self._text[self._at]) != mark:
            if letter == "\\":
                self._at += 1
                letter = _ESCAPES.get(self._text[self._at], self._text[self._at])
            said += letter
            self._at += 1
        self._at += 1
        if mark == "`":
            said = re.sub(r"\$\{([\w.]+)\}", lambda name: str(self._values[name[1]]), said)
        return said

    def _skip(self) -> None:
        if space := _SPACE.match(self._text, self._at):
            self._at = space.end()
