"""Option tables: one row per engine option, and everything that is read from the rows.

The same rows check a request's options, write the command line, read a pasted command line,
draw the form and fill the reference page. Three things are never mixed up: an option that is
unset (absent or None) leaves the engine's own default; `0` is the number nought; `False` says no.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ostler.core.errors import InvalidField
from ostler.core.near import near_names
from ostler.engines.rows import (
    Gone,
    Option,
    OptionType,
    OptionValue,
    Owned,
    ParsedCommand,
    Renamed,
    name_of,
    plain_flag,
)
from ostler.engines.values import BadOptionValue, check_value, split_joined, write_env, write_option

__all__ = [
    "BadOptionValue",
    "Gone",
    "Option",
    "OptionTable",
    "OptionType",
    "OptionValue",
    "Owned",
    "OwnedOption",
    "ParsedCommand",
    "Renamed",
    "UnknownOption",
    "check_value",
    "name_of",
    "plain_flag",
    "split_joined",
    "write_option",
]


class UnknownOption(InvalidField):
    """The engine has no option of that name."""


class OwnedOption(InvalidField):
    """An option, flag or variable that Ostler sets itself."""


class OptionTable:
    """The options of one engine, by every name they go by.

    `models_may_be_repos`: where a command line names a model, `org/name` is a repo of the hub.
    """

    def __init__(
        self,
        engine: str,
        rows: Sequence[Option],
        owned: Sequence[Owned] = (),
        renamed: Sequence[Renamed] = (),
        gone: Sequence[Gone] = (),
        *,
        models_may_be_repos: bool = False,
    ) -> None:
        self.engine = engine
        self.models_may_be_repos = models_may_be_repos
        self.rows = tuple(rows)
        self.owned = tuple(owned)
        self.renamed = tuple(renamed)
        self.gone = tuple(gone)
        self._place = {option.name: place for place, option in enumerate(self.rows)}
        self._names: dict[str, tuple[Option | Renamed, bool]] = {}
        self._flags: dict[str, tuple[Option | Renamed, bool]] = {}
        every: list[Option | Renamed] = [*self.rows, *self.renamed]
        for row in every:
            for name, negative in row.names():
                self._add(self._names, name, row, negative)
            for flag in row.flags:
                self._add(self._flags, flag, row, False)
            for flag in row.negative_flags:
                self._add(self._flags, flag, row, True)
        self._owned_flags = {flag: one for one in self.owned for flag in one.flags}
        self._owned_env = {name: one for one in self.owned for name in one.env}
        self._owned_names = {name_of(flag): one for flag, one in self._owned_flags.items()}
        self._owned_names.update({name: one for one in self.owned for name in one.names})
        self._gone_names = {name_of(flag): one for one in self.gone for flag in one.flags}
        if clash := self._names.keys() & (self._owned_names.keys() | self._gone_names.keys()):
            raise ValueError(f"both an option and not: {sorted(clash)}")

    @staticmethod
    def _add(
        index: dict[str, tuple[Option | Renamed, bool]], key: str, row: Option | Renamed, negative: bool
    ) -> None:
        known = index.setdefault(key, (row, negative))
        if known != (row, negative):
            raise ValueError(f"{key!r} means both {known[0].name} and {row.name}")

    def __iter__(self) -> Iterator[Option]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, name: str) -> Option:
        """The option of that name or alias. Raises UnknownOption (with near names), OwnedOption."""
        row, _ = self._find(name)
        return self.rows[self._place[row.option]] if isinstance(row, Renamed) else row

    def for_flag(self, flag: str) -> tuple[Option | Renamed, bool] | None:
        """The row that a flag belongs to, and whether the flag says no."""
        return self._flags.get(plain_flag(flag))

    def for_env(self, name: str) -> Option | None:
        """The option that an environment variable sets."""
        return next((option for option in self.rows if name in option.env), None)

    def owned_flag(self, flag: str) -> Owned | None:
        """What Ostler decides under that flag, if it does."""
        return self._owned_flags.get(plain_flag(flag))

    def flags(self) -> frozenset[str]:
        """Every flag of the engine that the table knows, Ostler's own included."""
        rows = (flag for option in self.rows for flag in (*option.flags, *option.negative_flags))
        return frozenset(rows) | frozenset(self._owned_flags)

    def validate(self, values: Mapping[str, Any]) -> dict[str, OptionValue]:
        """The same options under their own names, in the table's order, each value checked.

        None means unset and is left out. Raises UnknownOption, OwnedOption, BadOptionValue.
        """
        found: dict[str, OptionValue] = {}
        told: dict[str, str] = {}
        for given, value in values.items():
            read = self._read(given, value)
            if read is None:
                continue
            option, checked = read
            if option.name in found and found[option.name] != checked:
                raise BadOptionValue(
                    f"options.{given}",
                    f"{told[option.name]} and {given} are the same option and disagree",
                    hint=f"Keep one of them: {option.name}",
                )
            found[option.name] = checked
            told[option.name] = given
        for name in [name for name in found if self.rows[self._place[name]].stands_for]:
            value = found.pop(name)
            for target in self.rows[self._place[name]].stands_for:
                found.setdefault(target, value)
        return dict(sorted(found.items(), key=lambda item: self._place[item[0]]))

    def _read(self, given: str, value: Any) -> tuple[Option, OptionValue] | None:
        """One given option as its row and its checked value; None where it is unset."""
        row, negative = self._find(given)
        if value is None:
            return None
        if isinstance(row, Renamed):
            option = self.rows[self._place[row.option]]
            if row.values is not None:
                says = check_value(Option(given, "bool"), value, given)
                value = row.values.get((not says) if negative else bool(says))
                if value is None:
                    return None
            return option, check_value(option, value, given)
        checked = check_value(row, value, given)
        return row, (not checked) if negative else checked

    def to_args(self, values: Mapping[str, Any]) -> list[str]:
        """The options as command-line arguments, always in the table's order."""
        arguments: list[str] = []
        for name, value in self.validate(values).items():
            row = self.rows[self._place[name]]
            arguments += write_option(row, value) if row.until is None else ()
        return arguments

    def to_env(self, values: Mapping[str, Any]) -> dict[str, str]:
        """The options that have no flag, as environment variables."""
        return {
            row.env[0]: write_env(value)
            for name, value in self.validate(values).items()
            if (row := self.rows[self._place[name]]).env and not row.flags and row.until is None
        }

    def check_extra_args(self, extra_args: Sequence[str]) -> None:
        """Refuse further arguments that would take away what Ostler decides. Raises OwnedOption."""
        for argument in extra_args:
            if not isinstance(argument, str) or "\0" in argument:
                raise BadOptionValue("extra_args", "arguments are texts without NUL characters")
            flag, _, _ = argument.partition("=")
            if argument.startswith("-") and (one := self.owned_flag(flag)):
                raise OwnedOption("extra_args", f"{flag} cannot be given: {one.why}", flag=flag)

    def check_env(self, env: Mapping[str, str]) -> None:
        """Refuse variables that would take away what Ostler decides. Raises OwnedOption."""
        for name, value in env.items():
            if not name or "=" in name or "\0" in name or "\0" in str(value):
                raise BadOptionValue("env", f"{name!r} cannot be an environment variable")
            if one := self._owned_env.get(name):
                raise OwnedOption("env", f"{name} cannot be given: {one.why}", variable=name)

    def told(
        self, options: Mapping[str, Any], extra_args: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Every option that somebody has set, be it as such, as an argument or as a variable of the engine.

        A value that cannot be read stays as it is. Raises what `validate` raises for `options`.
        """
        named = {row.name: value for name, value in (env or {}).items() if (row := self.for_env(name))}
        found = {**_readable(self, named), **self.validate(options)}
        try:
            return {**found, **self.parse_command(list(extra_args)).options}
        except InvalidField:  # whoever launches it says what is wrong
            return found

    def parse_command(self, command: str | Sequence[str]) -> ParsedCommand:
        """Read a pasted command line. Raises BadCommand, BadOptionValue."""
        from ostler.engines.command_line import parse_command

        return parse_command(self, command)

    def _find(self, given: str) -> tuple[Option | Renamed, bool]:
        name = name_of(given)
        if found := self._names.get(given) or self._names.get(name):
            return found
        if one := self._owned_names.get(name):
            raise OwnedOption(f"options.{given}", f"{given} cannot be given: {one.why}", option=name)
        if gone := self._gone_names.get(name):
            raise UnknownOption(
                f"options.{given}", f"{self.engine} no longer has the option {given}", hint=gone.instead
            )
        near = near_names(name, [n for n in self._names if len(n) > 2])
        near = list(dict.fromkeys(self.get(n).name for n in near))
        raise UnknownOption(
            f"options.{given}",
            f"{self.engine} has no option {given!r}",
            hint=f"Did you mean {' or '.join(near)}?"
            if near
            else f"The options are listed in docs/engines/{self.engine}.md",
            near=near,
        )


def _readable(table: OptionTable, named: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in named.items():
        try:
            found |= table.validate({name: value})
        except InvalidField:
            found[name] = value
    return found
