"""The rows of an option table, and what stands beside them: plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

OptionType = Literal["bool", "int", "float", "text", "path", "json"]
OptionValue = bool | int | float | str | list[Any]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an engine.

    `flags` are its spellings on the command line, the first is the one written; for a `bool`,
    `negative_flags` say no. `words` are allowed beside numbers ("auto"), `choices` are all there
    is. `repeat` takes a list: joined by `joiner`, or the flag once per value where that is None, or
    all values after one flag where it is `spread`. A `json` value is kept as JSON text.
    `default` is the engine's own, `unit` what a number counts, `values` how many arguments a flag
    takes. `since` and `until` are builds of the engine: what has an `until` is understood and kept, but
    never written. `old` says that it does nothing any more. A row without flags is set by `env`.
    `quoted`: a joined value that holds the joiner is put in quotes, as in CSV. `stands_for` names
    other options that all get the value unless they have their own. `admin_only`: it names programs,
    files that the engine writes, or folders that it opens to requests.
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
    repeat: bool = False
    joiner: str | None = None
    spread: bool = False
    quoted: bool = False
    values: int = 1
    old: bool = False
    stands_for: tuple[str, ...] = ()
    admin_only: bool = False

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


@dataclass(frozen=True, slots=True)
class Owned:
    """What Ostler decides for every engine: its flags and variables are refused anywhere else.

    `values` is how many arguments the flags take, and any number where `spread`. `meaning` is what a
    pasted command line's value is kept as: "model", "hub" or "alias"; None means that it is left out.
    """

    flags: tuple[str, ...]
    why: str
    env: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    values: int = 1
    spread: bool = False
    meaning: Literal["model", "hub", "hub_file", "alias"] | None = None


@dataclass(frozen=True, slots=True)
class Renamed:
    """An old spelling of an option. `values` translates what it said; a value not named there
    leaves the option unset. Without `values` the value is the same."""

    name: str
    option: str
    flags: tuple[str, ...] = ()
    negative_flags: tuple[str, ...] = ()
    values: Mapping[bool, OptionValue] | None = None
    env: tuple[str, ...] = ()

    def names(self) -> Iterator[tuple[str, bool]]:
        """Every name it goes by, each with whether it means the opposite."""
        yield self.name, False
        yield from ((name_of(flag), False) for flag in self.flags)
        yield from ((name_of(flag), True) for flag in self.negative_flags)


@dataclass(frozen=True, slots=True)
class Gone:
    """Flags that the engine had once; `instead` is the next step."""

    flags: tuple[str, ...]
    instead: str


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


def plain_flag(flag: str) -> str:
    """A flag as llama-server reads it: `--ctx_size` is `--ctx-size`."""
    return flag.replace("_", "-") if flag.startswith("--") else flag
