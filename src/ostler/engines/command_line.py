"""Reading a pasted command line: what a person has in a shell script becomes options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from ostler.core.errors import InvalidField
from ostler.engines.options import (
    BadOptionValue,
    Option,
    OptionTable,
    Owned,
    ParsedCommand,
    Renamed,
    split_joined,
)

LONGEST_COMMAND = 64 * 1024
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
REPO = re.compile(r"[\w-][\w.-]*/[\w.-]+")
NUMBER = re.compile(r"-(\d|\.\d|inf)", re.IGNORECASE)


class BadCommand(InvalidField):
    """A command line that cannot be read."""


def parse_command(table: OptionTable, command: str | Sequence[str]) -> ParsedCommand:
    """Split like a shell would (quotes, escapes, joined lines), then read flag by flag.

    Nothing is executed and nothing expanded. Raises BadCommand, BadOptionValue.
    """
    words = split_command(command) if isinstance(command, str) else list(command)
    reader = _Reader(table, words)
    reader.read()
    return reader.result()


def split_command(text: str) -> list[str]:
    """The words of a command line; a backslash or caret at a line's end joins it with the next."""
    if len(text) > LONGEST_COMMAND:
        raise BadCommand("command", f"the command line is longer than {LONGEST_COMMAND} characters")
    if "\0" in text:
        raise BadCommand("command", "the command line holds a NUL character")
    joined = re.sub(r"\\[ \t]*\r?\n", " ", text.strip())
    joined = re.sub(r"^\$\s+", "", joined)
    try:
        words = shlex.split(joined, comments=False, posix=True)
    except ValueError as error:
        raise BadCommand("command", f"the command line cannot be read: {str(error).lower()}") from None
    operators = {"|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1", "&>"}
    for word in words:
        if word in operators:
            raise BadCommand(
                "command",
                f"the command line holds {word!r}: give one command, without pipes or redirections",
            )
    return words


class _Reader:
    """Walks over the words once and sorts them into options, arguments and what is Ostler's."""

    def __init__(self, table: OptionTable, words: list[str]) -> None:
        self.table = table
        self.words = words
        self.place = 0
        self.options: dict[str, Any] = {}
        self.extra: list[str] = []
        self.env: dict[str, str] = {}
        self.ignored: list[str] = []
        self.kept: dict[str, str] = {}

    def read(self) -> None:
        self._read_front()
        while self.place < len(self.words):
            word = self.words[self.place]
            self.place += 1
            if word.startswith("---") or word in ("-", "--"):
                raise BadCommand("command", f"{word!r} is not a flag")
            if word.startswith("-"):
                self._read_flag(word)
            elif "model" not in self.kept:
                self.kept["model"] = word
            else:
                raise BadCommand(
                    "command", f"{word!r} stands alone: it is neither a flag nor the value of one"
                )

    def _read_front(self) -> None:
        """Assignments (`CUDA_VISIBLE_DEVICES=0`), `env`, the executable and `serve`."""
        if self.words and self.words[0] == "env":
            self.place = 1
        while self.place < len(self.words) and ASSIGNMENT.match(self.words[self.place]):
            name, _, value = self.words[self.place].partition("=")
            self.env[name] = value
            self.place += 1
        front = self.words[self.place : self.place + 3]
        if len(front) == 3 and is_python(front[0]) and front[1] == "-m":
            self.place += 3
        elif front and is_executable(front[0]):
            self.place += 1
            if front[1:2] in (["serve"], ["server"]):
                self.place += 1

    def _read_flag(self, word: str) -> None:
        flag, equals, glued = word.partition("=")
        value = glued if equals else None
        if owned := self.table.owned_flag(flag):
            self._read_owned(owned, flag, value)
        elif found := self.table.for_flag(flag):
            self._read_row(*found, flag, value)
        elif value is not None:
            self.extra += [flag, value]
        else:
            self.extra.append(flag)
            if self.place < len(self.words) and not is_flag(self.words[self.place]):
                self.extra.append(self._next(flag))

    def _read_owned(self, owned: Owned, flag: str, value: str | None) -> None:
        if owned.values and value is None:
            value = self._next(flag)
        if owned.spread:
            self._rest()
        if owned.meaning and value is not None:
            self.kept[owned.meaning] = value
        elif value is None or "key" in flag or "token" in flag or flag == "-hft":
            self.ignored.append(flag)
        else:
            self.ignored.append(f"{flag} {value}")

    def _read_row(self, row: Option | Renamed, negative: bool, flag: str, value: str | None) -> None:
        name = flag if isinstance(row, Renamed) else row.name
        is_bool = row.values is not None if isinstance(row, Renamed) else row.type == "bool"
        if is_bool:
            self.options[name] = self._read_bool(negative and not isinstance(row, Renamed), flag, value)
            return
        count = row.values if isinstance(row, Option) else 1
        if value is None:
            value = " ".join(self._next(flag) for _ in range(count))
        if isinstance(row, Option) and row.spread:
            self.options[name] = [value, *self._rest()]
        elif isinstance(row, Option) and row.repeat:
            parts = [value] if row.joiner is None else split_joined(value, row.joiner, quoted=row.quoted)
            self.options.setdefault(name, []).extend(parts)
        else:
            self.options[name] = value

    @staticmethod
    def _read_bool(negative: bool, flag: str, value: str | None) -> bool:
        if value is not None and value.lower() not in ("true", "false", "on", "off", "1", "0"):
            raise BadOptionValue(f"options.{flag}", f"{flag} takes no value, not {value!r}")
        says = value is None or value.lower() in ("true", "on", "1")
        return not says if negative else says

    def _next(self, flag: str) -> str:
        if self.place >= len(self.words):
            raise BadCommand("command", f"{flag} needs a value and is the last word")
        word = self.words[self.place]
        if self.table.for_flag(word) or self.table.owned_flag(word) or word.startswith("--"):
            raise BadCommand("command", f"{flag} needs a value, and {word} follows")
        self.place += 1
        return word

    def _rest(self) -> list[str]:
        """What follows up to the next flag."""
        begin = self.place
        while self.place < len(self.words) and not is_flag(self.words[self.place]):
            self.place += 1
        return self.words[begin : self.place]

    def result(self) -> ParsedCommand:
        self.table.check_env(self.env)
        hub = self.kept.get("hub")
        if hub and ":" not in hub and (file := self.kept.get("hub_file")):
            hub = f"{hub}:{file}"
        model = self.kept.get("model")
        if model and self.table.models_may_be_repos and REPO.fullmatch(model):
            hub, model = model, None
        return ParsedCommand(
            options=self.table.validate(self.options),
            extra_args=tuple(self.extra),
            model=model,
            hub=hub,
            alias=self.kept.get("alias"),
            env=self.env,
            ignored=tuple(self.ignored),
        )


def is_flag(word: str) -> bool:
    """Whether a word begins a new flag; `-1` and `-.5` are values."""
    return word.startswith("-") and len(word) > 1 and not NUMBER.match(word)


def program_name(word: str) -> str:
    """The name of the program that a word is a path to; empty for a flag."""
    if word.startswith("-"):
        return ""
    return PurePath(word.replace("\\", "/")).name.lower().removesuffix(".exe")


def is_python(word: str) -> bool:
    """Whether a word names a Python (`python3`, `/venv/bin/python3.12`)."""
    return re.fullmatch(r"python[\d.]*", program_name(word)) is not None


def program_named(command: str) -> str:
    """The program or Python module that a command line begins with, after assignments; may be empty."""
    words = command.split()
    words = words[next((at for at, word in enumerate(words) if not _is_front(word)), len(words)) :]
    if len(words) > 2 and is_python(words[0]) and words[1] == "-m":
        return words[2]
    return program_name(words[0]) if words else ""


def _is_front(word: str) -> bool:
    return word in ("$", "env") or ASSIGNMENT.match(word) is not None


def is_executable(word: str) -> bool:
    """Whether a command line's first word names the program (`/opt/llama-server`, `vllm`)."""
    name = program_name(word)
    return name.endswith(("llama-server", "llama-cpp-server")) or name in ("llama", "server", "vllm")
