"""Reading llama-server's arguments and variables the way that llama-server reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ostler.core.errors import OstlerError
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.options import Option, OptionValue, Owned, Renamed, check_value, plain_flag, split_joined

YES = ("on", "enabled", "true", "1")


class BadArgument(Exception):
    """An argument that cannot be honoured; the message names the flag."""


@dataclass(slots=True)
class Arguments:
    """`options` by their own names, `owned` by flag ("--host"), each as it will be carried out."""

    options: dict[str, OptionValue] = field(default_factory=dict)
    owned: dict[str, str] = field(default_factory=dict)


def read_arguments(argv: Sequence[str], environ: Mapping[str, str]) -> Arguments:
    """Variables first, then arguments, which win. Raises BadArgument."""
    arguments = Arguments()
    _read_environment(arguments, environ)
    words = list(argv)
    place = 0
    while place < len(words):
        flag = plain_flag(words[place])
        place += 1
        owned, found = TABLE.owned_flag(flag), TABLE.for_flag(flag)
        if owned is None and (found is None or isinstance(found[0], Renamed)):
            raise BadArgument(f"invalid argument: {flag}{_instead(found)}")
        count = _count(owned, found)
        if place + count > len(words):
            raise BadArgument(f"{flag} needs {'a value' if count == 1 else f'{count} values'}")
        value = " ".join(words[place : place + count])
        place += count
        if owned is not None:
            arguments.owned[owned.flags[0] if owned.values else flag] = value
        elif found is not None and isinstance(found[0], Option):
            _take(arguments, found[0], value if count else not found[1], flag)
    return arguments


def _count(owned: Owned | None, found: tuple[Option | Renamed, bool] | None) -> int:
    if owned is not None:
        return owned.values
    row = found[0] if found else None
    return row.values if isinstance(row, Option) and row.type != "bool" else 0


def _instead(found: tuple[Option | Renamed, bool] | None) -> str:
    if found is None or not isinstance(found[0], Renamed):
        return ""
    return f" (it was taken away; use {TABLE.get(found[0].option).flag})"


def _take(arguments: Arguments, option: Option, value: Any, said_by: str) -> None:
    try:
        checked = check_value(option, value, said_by)
    except OstlerError as error:
        raise BadArgument(error.message) from None
    if option.repeat and option.joiner is None:
        earlier = arguments.options.get(option.name)
        checked = [*_as_list(earlier), *_as_list(checked)]
    arguments.options[option.name] = checked


def _as_list(value: OptionValue | None) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_environment(arguments: Arguments, environ: Mapping[str, str]) -> None:
    for option in TABLE:
        for name in option.env:
            if (text := environ.get(name)) is not None:
                _take(arguments, option, text, name)
            elif option.negative_flags and environ.get(name.replace("LLAMA_ARG_", "LLAMA_ARG_NO_")):
                _take(arguments, option, False, name)
    for owned in TABLE.owned:
        for name in owned.env:
            text = environ.get(name) if name.startswith("LLAMA_") else None
            if text and (owned.values or text in YES):
                arguments.owned[owned.flags[0]] = text


def keys_of(arguments: Arguments) -> list[str]:
    """The API keys given by flag, file or variable. Raises BadArgument."""
    keys = split_joined(arguments.owned.get("--api-key", ""), ",", quoted=True)
    if path := arguments.owned.get("--api-key-file"):
        lines = read_file("--api-key-file", path).splitlines()
        keys += [line for line in lines if line and not line.startswith("#")]
    return keys


def read_file(flag: str, path: str) -> str:
    """A text file named by a flag. Raises BadArgument."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be one more import
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadArgument(f"{flag}: {path} cannot be read: {reason}") from None
