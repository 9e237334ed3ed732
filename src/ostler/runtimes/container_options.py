"""What a model may say of its container: the document `runtime_options`, read and checked.

The rows of `_FIELDS` are all there is; a model's document is kept as it was written, so that nothing
is lost, and read anew for each launch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ostler.core.errors import InvalidField
from ostler.core.near import near_names
from ostler.core.sizes import parse_size

_IMAGE = re.compile(r"[\w][\w.\-:/@]{0,254}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]{0,62}", re.ASCII)
_USER = re.compile(r"[\w.\-]{1,32}(:[\w.\-]{1,32})?", re.ASCII)
LEAST_MEMORY = 6 * 1024 * 1024
"""Docker refuses less."""


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """One model's wishes. None means that the runtime's own default holds.

    Sizes are bytes, `cpus` may be a fraction. `mounts` are `SOURCE:TARGET[:rw]`. `hf_cache`: the
    Hugging Face cache is there as well, read-only or for writing.
    """

    image: str | None = None
    shm_size: int | None = None
    ipc: str = "private"
    cpus: float | None = None
    memory: int | None = None
    pids: int | None = None
    network: str | None = None
    mounts: tuple[str, ...] = ()
    hf_cache: str = "no"
    user: str | None = None
    read_only_root: bool = True

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> ContainerOptions:
        """Read and check a document. Raises InvalidField with the name of the field that is wrong."""
        values = {}
        for name, value in data.items():
            check = _FIELDS.get(name)
            if check is None:
                near = near_names(name, _FIELDS)
                known = f"Known: {', '.join(_FIELDS)}."
                hint = f"Did you mean runtime_options.{near[0]}?" if near else known
                raise InvalidField(f"runtime_options.{name}", f"unknown runtime option {name!r}", hint=hint)
            if value is not None:
                values[name] = check(f"runtime_options.{name}", value)
        return cls(**values)


ADMIN_ONLY = frozenset({"image", "ipc", "network", "mounts", "hf_cache", "user", "read_only_root"})
"""What reaches beyond the model: its program, the host's files, its network and its rights."""


def _text(pattern: re.Pattern[str], what: str) -> Callable[[str, Any], str]:
    def check(where: str, value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise InvalidField(where, f"{where} must be {what}, not {value!r:.80}")
        return value

    return check


def _choice(*known: str) -> Callable[[str, Any], str]:
    def check(where: str, value: Any) -> str:
        if value not in known:
            raise InvalidField(where, f"{where} must be one of {', '.join(known)}, not {value!r:.80}")
        return str(value)

    return check


def _list(check_one: Callable[[str, Any], str]) -> Callable[[str, Any], tuple[str, ...]]:
    def check(where: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise InvalidField(where, f"{where} must be a list of texts")
        return tuple(check_one(where, one) for one in value)

    return check


def _size(minimum: int) -> Callable[[str, Any], int]:
    def check(where: str, value: Any) -> int:
        try:
            size = value if isinstance(value, int) and not isinstance(value, bool) else parse_size(value)
        except (ValueError, AttributeError) as error:
            raise InvalidField(where, f'{where} must be a size such as "8GiB", not {value!r:.80}') from error
        if not minimum <= size < 2**62:
            raise InvalidField(where, f"{where} must be at least {minimum} bytes, not {size}")
        return size

    return check


def _number(minimum: float, *, whole: bool) -> Callable[[str, Any], Any]:
    def check(where: str, value: Any) -> Any:
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not minimum <= value <= 10**6:
            kind = "a whole number" if whole else "a number"
            raise InvalidField(where, f"{where} must be {kind} from {minimum:g}, not {value!r:.80}")
        return value

    return check


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidField(where, f"{where} must be true or false, not {value!r:.80}")
    return value


def _mount(where: str, value: Any) -> str:
    parts = value.split(":") if isinstance(value, str) else []
    paths, mode = parts[:2], parts[2:]
    is_good = len(paths) == 2 and mode in ([], ["ro"], ["rw"])
    if not is_good or any(not p.startswith("/") or ".." in p.split("/") or "\0" in p for p in paths):
        raise InvalidField(
            where,
            f"{value!r:.80} is no mount",
            hint="Write /on/the/host:/in/the/container, with :rw to write.",
        )
    return str(value)


_FIELDS: Mapping[str, Callable[[str, Any], Any]] = {
    "image": _text(_IMAGE, "the name of an image"),
    "shm_size": _size(1),
    "ipc": _choice("private", "host", "shareable", "none"),
    "cpus": _number(0.01, whole=False),
    "memory": _size(LEAST_MEMORY),
    "pids": _number(1, whole=True),
    "network": _text(_NAME, "the name of a network"),
    "mounts": _list(_mount),
    "hf_cache": _choice("no", "ro", "rw"),
    "user": _text(_USER, "a user, or USER:GROUP"),
    "read_only_root": _flag,
}
