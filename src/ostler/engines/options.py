"""Option tables: one row per engine option, and everything that is read from the rows.

The same rows check a request's options, write the command line, read a pasted command line,
draw the form and fill the reference page. Three things are never mixed up: an option that is
unset (absent or None) leaves the engine's own default; `0` is the number nought; `False` says no.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ostler.core.errors import InvalidField
from ostler.core.near import near_names

OptionType = Literal["bool", "int", "float", "text", "path"]
OptionValue = bool | int | float | str | list[Any]

YES = ("true", "on", "yes", "1", "enabled")
NO = ("false", "off", "no", "0", "disabled")


class UnknownOption(InvalidField):
    """The engine has no option of that name."""


class BadOptionValue(InvalidField):
    """An option has a value that it cannot have."""


class OwnedOption(InvalidField):
    """An option, flag or variable that Ostler sets itself."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an engine.

    `flags` are its spellings on the command line, the first is the one written; for a `bool`,
    `negative_flags` say no. `words` are allowed beside numbers ("auto"), `choices` are all there
    is. `repeat` takes a list: joined by `joiner`, or the flag once per value where that is None.
    `default` is the engine's own, `unit` what a number counts, `values` how many arguments a flag
    takes. `since` and `until` are builds of the engine, `old` says that it does nothing any more.
    """

    name: str
    type: OptionType
    flags: tuple[str, ...] = ()
    negative_flags: tuple[str, ...] = ()
    help: str = ""
    group: str = "general"
    env: tuple[str, ...] = ()
    default: bool | int | float | str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    unit: str | None = None
    aliases: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    needs_restart: bool = True
    repeat: bool = False
    joiner: str | None = None
    values: int = 1
    old: bool = False

    @property
    def flag(self) -> str | None:
        """The flag that is written for it (yes, or a value)."""
        return self.flags[0] if self.flags else None

    @property
    def negative_flag(self) -> str | None:
        """The flag that is written for no."""
        return self.negative_flags[0] if self.negative_flags else None

    def names(self) -> Iterator[tuple[str, bool]]:
        """Every name it goes by, each with whether it means the opposite (`no_mmap`)."""
        yield self.name, False
        yield from ((alias, False) for alias in self.aliases)
        yield from ((name_of(flag), False) for flag in self.flags)
        yield from ((name_of(flag), True) for flag in self.negative_flags)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form for forms and clients."""
        return {
            "name": self.name,
            "type": self.type,
            "flag": self.flag,
            "negative_flag": self.negative_flag,
            "flags": [*self.flags, *self.negative_flags],
            "env": list(self.env),
            "default": self.default,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "choices": list(self.choices),
            "words": list(self.words),
            "unit": self.unit,
            "help": self.help,
            "group": self.group,
            "aliases": list(self.aliases),
            "since": self.since,
            "until": self.until,
            "needs_restart": self.needs_restart,
            "repeat": self.repeat,
            "old": self.old,
        }


@dataclass(frozen=True, slots=True)
class Owned:
    """What Ostler decides for every engine: its flags and variables are refused anywhere else.

    `values` is how many arguments the flags take. `meaning` is what a pasted command line's value
    is kept as: "model", "hub" or "alias"; None means that it is left out.
    """

    flags: tuple[str, ...]
    why: str
    env: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    values: int = 1
    meaning: Literal["model", "hub", "hub_file", "alias"] | None = None


@dataclass(frozen=True, slots=True)
class ParsedCommand:
    """What a pasted command line says, in our words.

    `model` is the path given with it, `hub` a repo spec ("org/repo:Q4_K_M"), `ignored` are the
    arguments left out because Ostler decides them, each as it stood there.
    """

    options: Mapping[str, OptionValue] = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    model: str | None = None
    hub: str | None = None
    alias: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def name_of(flag: str) -> str:
    """A flag as an option name: `--ctx-size` is `ctx_size`."""
    return flag.lstrip("-").replace("-", "_")


class OptionTable:
    """The options of one engine, by every name they go by."""

    def __init__(self, engine: str, rows: Sequence[Option], owned: Sequence[Owned] = ()) -> None:
        self.engine = engine
        self.rows = tuple(rows)
        self.owned = tuple(owned)
        self._by_name: dict[str, tuple[Option, bool]] = {}
        for option in self.rows:
            for name, negative in option.names():
                known = self._by_name.setdefault(name, (option, negative))
                if known != (option, negative):
                    raise ValueError(f"{name!r} means both {known[0].name} and {option.name}")
        self._by_flag: dict[str, tuple[Option, bool]] = {
            **{flag: (option, False) for option in self.rows for flag in option.flags},
            **{flag: (option, True) for option in self.rows for flag in option.negative_flags},
        }
        self._owned_flags = {flag: one for one in self.owned for flag in one.flags}
        self._owned_names = {
            **{name_of(flag): one for flag, one in self._owned_flags.items()},
            **{name: one for one in self.owned for name in one.names},
        }
        self._owned_env = {name: one for one in self.owned for name in one.env}
        clash = self._by_name.keys() & self._owned_names.keys()
        if clash:
            raise ValueError(f"both an option and Ostler's own: {sorted(clash)}")

    def __iter__(self) -> Iterator[Option]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, name: str) -> Option:
        """The option of that name or alias. Raises UnknownOption (with near names), OwnedOption."""
        return self._find(name)[0]

    def for_flag(self, flag: str) -> tuple[Option, bool] | None:
        """The option that a flag belongs to, and whether the flag says no."""
        return self._by_flag.get(flag)

    def owned_flag(self, flag: str) -> Owned | None:
        """What Ostler decides under that flag, if it does."""
        return self._owned_flags.get(flag)

    def flags(self) -> frozenset[str]:
        """Every flag that the table knows, Ostler's own included."""
        return frozenset(self._by_flag) | frozenset(self._owned_flags)

    def validate(self, values: Mapping[str, Any]) -> dict[str, OptionValue]:
        """The same options under their own names, in the table's order, each value checked.

        None means unset and is left out. Raises UnknownOption, OwnedOption, BadOptionValue.
        """
        found: dict[str, OptionValue] = {}
        told: dict[str, str] = {}
        for given, value in values.items():
            option, negative = self._find(given)
            if value is None:
                continue
            checked = check_value(option, value, given)
            if negative:
                checked = not checked
            if option.name in found and found[option.name] != checked:
                raise BadOptionValue(
                    f"options.{given}",
                    f"{told[option.name]} and {given} are the same option and disagree",
                    hint=f"Keep one of them: {option.name}",
                )
            found[option.name] = checked
            told[option.name] = given
        order = {option.name: place for place, option in enumerate(self.rows)}
        return dict(sorted(found.items(), key=lambda item: order[item[0]]))

    def to_args(self, values: Mapping[str, Any]) -> list[str]:
        """The options as command-line arguments, always in the table's order."""
        arguments: list[str] = []
        for name, value in self.validate(values).items():
            arguments += write_option(self.get(name), value)
        return arguments

    def check_extra_args(self, extra_args: Sequence[str]) -> None:
        """Refuse further arguments that would take away what Ostler decides. Raises OwnedOption."""
        for argument in extra_args:
            if "\0" in argument:
                raise BadOptionValue("extra_args", "an argument holds a NUL character")
            flag, _, _ = argument.partition("=")
            if argument.startswith("-") and (one := self._owned_flags.get(flag)):
                raise OwnedOption("extra_args", f"{flag} cannot be given: {one.why}", flag=flag)

    def check_env(self, env: Mapping[str, str]) -> None:
        """Refuse variables that would take away what Ostler decides. Raises OwnedOption."""
        for name, value in env.items():
            if not name or "=" in name or "\0" in name or "\0" in str(value):
                raise BadOptionValue("env", f"{name!r} cannot be an environment variable")
            if one := self._owned_env.get(name):
                raise OwnedOption("env", f"{name} cannot be given: {one.why}", variable=name)

    def parse_command(self, command: str | Sequence[str]) -> ParsedCommand:
        """Read a pasted command line. Raises BadCommand, BadOptionValue."""
        from ostler.engines.command_line import parse_command

        return parse_command(self, command)

    def _find(self, given: str) -> tuple[Option, bool]:
        name = name_of(given)
        if found := self._by_name.get(given) or self._by_name.get(name):
            return found
        if one := self._owned_names.get(name):
            raise OwnedOption(f"options.{given}", f"{given} cannot be given: {one.why}", option=name)
        near = near_names(name, [n for n in self._by_name if len(n) > 2])
        near = list(dict.fromkeys(self._by_name[n][0].name for n in near))
        raise UnknownOption(
            f"options.{given}",
            f"{self.engine} has no option {given!r}",
            hint=f"Did you mean {' or '.join(near)}?"
            if near
            else f"See every option with: ostler engines show {self.engine}",
            near=near,
        )


def check_value(option: Option, value: Any, given: str | None = None) -> OptionValue:
    """One value, checked and in its option's type; text is read where a number is wanted."""
    where = given or option.name
    if not option.repeat:
        return _check_one(option, value, where)
    if isinstance(value, str) or not isinstance(value, Iterable):
        value = [value]
    return [_check_one(option, one, where) for one in value]


def _check_one(option: Option, value: Any, where: str) -> bool | int | float | str:
    match option.type:
        case "bool":
            return _check_bool(option, value, where)
        case "int" | "float":
            return _check_number(option, value, where)
        case _:
            return _check_text(option, value, where)


def _bad(option: Option, where: str, must: str, value: Any) -> BadOptionValue:
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    facts = {
        key: limit
        for key, limit in (("minimum", option.minimum), ("maximum", option.maximum))
        if limit is not None
    }
    if option.choices or option.words:
        facts["choices"] = list(option.choices or option.words)  # type: ignore[assignment]
    return BadOptionValue(f"options.{where}", f"{where} must be {must}, not {shown}", **facts)


def _check_bool(option: Option, value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int) else ""
    if text in YES:
        return True
    if text in NO:
        return False
    raise _bad(option, where, "true or false", value)


def _check_number(option: Option, value: Any, where: str) -> int | float | str:
    must = _number_rule(option)
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in option.words:
            return text.lower()
        try:
            value = float(text) if option.type == "float" else int(text)
        except ValueError:
            raise _bad(option, where, must, text) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(option, where, must, value)
    if option.type == "int":
        if isinstance(value, float) and not value.is_integer():
            raise _bad(option, where, must, value)
        value = int(value)
    elif not math.isfinite(value):
        raise _bad(option, where, must, value)
    else:
        value = float(value)
    too_small = option.minimum is not None and value < option.minimum
    too_large = option.maximum is not None and value > option.maximum
    if too_small or too_large:
        raise _bad(option, where, must, value)
    return value


def _number_rule(option: Option) -> str:
    kind = "a whole number" if option.type == "int" else "a number"
    low, high = (None if limit is None else f"{limit:g}" for limit in (option.minimum, option.maximum))
    if option.minimum is not None:
        low = str(int(option.minimum)) if float(option.minimum).is_integer() else low
    if option.maximum is not None:
        high = str(int(option.maximum)) if float(option.maximum).is_integer() else high
    if low and high:
        kind += f" from {low} to {high}"
    elif low:
        kind += f" of at least {low}"
    elif high:
        kind += f" of at most {high}"
    return kind + "".join(f" or {word!r}" for word in option.words)


def _check_text(option: Option, value: Any, where: str) -> str:
    if isinstance(value, bool) and {"on", "off"} <= set(option.choices):
        return "on" if value else "off"
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _bad(option, where, "text", value)
    if "\0" in value:
        raise _bad(option, where, "text without a NUL character", value)
    if option.choices:
        return _check_choice(option, value, where)
    if option.type == "path" and not value.strip():
        raise _bad(option, where, "a path", value)
    return value


def _check_choice(option: Option, value: str, where: str) -> str:
    if value in option.choices:
        return value
    folded = value.strip().lower()
    for choice in option.choices:
        if choice.lower() == folded:
            return choice
    if {"on", "off"} <= set(option.choices) and folded in (*YES, *NO):
        return "on" if folded in YES else "off"
    raise _bad(option, where, "one of " + ", ".join(option.choices), value)


def write_option(option: Option, value: OptionValue) -> list[str]:
    """A checked value as command-line arguments; a `bool` without a fitting flag writes nothing."""
    if isinstance(value, bool):
        flag = option.flag if value else option.negative_flag
        return [flag] if flag else []
    flag = option.flag
    if flag is None:
        return []
    if isinstance(value, list):
        texts = [write_value(one) for one in value]
        if option.joiner is not None:
            return [flag, option.joiner.join(texts)] if texts else []
        return [part for text in texts for part in (flag, *split_values(option, text))]
    return [flag, *split_values(option, write_value(value))]


def split_values(option: Option, text: str) -> list[str]:
    """The arguments of a flag that takes several ("1 8" of a range is two arguments)."""
    return text.split(None, option.values - 1) if option.values > 1 else [text]


def write_value(value: bool | int | float | str) -> str:
    """A number without needless digits, text as it is."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)
