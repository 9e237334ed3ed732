"""Reading a command line of `mlx_lm.server`, an engine that is not run here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostler.core.errors import InvalidField
from ostler.engines.command_line import BadCommand, is_flag, is_python, program_name, split_command
from ostler.engines.options import name_of

_TYPES: Mapping[str, type] = {
    "model": str,
    "host": str,
    "port": int,
    "adapter_path": str,
    "draft_model": str,
    "num_draft_tokens": int,
    "trust_remote_code": bool,
    "log_level": str,
    "chat_template": str,
    "use_default_chat_template": bool,
    "chat_template_args": str,
    "temp": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "max_tokens": int,
}
"""The options of mlx_lm.server (https://github.com/ml-explore/mlx-lm, `mlx_lm/server.py`)."""


def read_mlx(command: str) -> dict[str, Any]:
    """Its options by name; what is not known stands under `extra_args`. Raises BadCommand, InvalidField."""
    words = _without_program(split_command(command))
    found: dict[str, Any] = {}
    extra: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word.startswith("---"):
            raise BadCommand("command", f"{word!r} is not a flag")
        if not is_flag(word):
            found.setdefault("model", word)
            continue
        flag, equals, value = word.partition("=")
        name = name_of(flag)
        if not equals:
            is_bare = _TYPES.get(name) is bool or not words or is_flag(words[0])
            value = "true" if is_bare else words.pop(0)
        if name in _TYPES:
            found[name] = _read(name, value)
        else:
            extra[name] = value
    return {**dict(sorted(found.items())), **({"extra_args": extra} if extra else {})}


def _without_program(words: list[str]) -> list[str]:
    if words and is_python(words[0]) and words[1:2] == ["-m"]:
        return words[3:]
    is_program = bool(words) and program_name(words[0]) in ("mlx_lm.server", "mlx_lm")
    rest = words[1:] if is_program else words
    return rest[1:] if rest[:1] in (["serve"], ["server"]) else rest


def _read(name: str, value: str) -> Any:
    kind = _TYPES[name]
    try:
        return value.lower() == "true" if kind is bool else kind(value)
    except ValueError:
        raise InvalidField(name, f"{name} must be a number, not {value[:80]!r}") from None
