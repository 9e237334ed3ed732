"""Small checks of a recipe's fields, and what a change makes of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ostler.core.errors import InvalidField
from ostler.models.records import Model, NewModel, Policy

DOCUMENTS = ("options", "env", "request_defaults", "policy", "runtime_options")
_NOT_DEFAULTS = frozenset({"model", "messages", "prompt", "input", "stream"})
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def as_new(model: Model) -> NewModel:
    """The recipe of a model, as one would create it again."""
    shared = {f.name for f in fields(NewModel)} & {f.name for f in fields(Model)}
    values = {name: getattr(model, name) for name in shared}
    return NewModel(**{**values, "policy": model.policy.to_json()})


def merged(model: Model, changes: Mapping[str, Any]) -> NewModel:
    """The recipe after these changes: documents are merged key by key, null taking a key out."""
    new = as_new(model)
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name in DOCUMENTS:
            if not isinstance(value, Mapping):
                raise InvalidField(name, f"{name} must be an object")
            merged = {**getattr(new, name), **value}
            values[name] = {key: item for key, item in merged.items() if item is not None}
        elif name in ("aliases", "extra_args"):
            values[name] = _texts(name, value)
        elif name != "archived":
            values[name] = value
    return replace(new, **values)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise InvalidField(name, f"{name} must be a list of texts")
    return tuple(value)


def text(name: str, value: Any) -> str:
    """The value, if it is a text. Raises InvalidField."""
    if not isinstance(value, str):
        raise InvalidField(name, f"{name} must be a text")
    return value


def flag(name: str, value: Any) -> bool:
    """The value, if it is true or false. Raises InvalidField."""
    if not isinstance(value, bool):
        raise InvalidField(name, f"{name} must be true or false")
    return value


def environment(env: Mapping[str, Any]) -> dict[str, str]:
    """Environment variables for the engine, checked. Raises InvalidField."""
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            raise InvalidField(f"env.{name}", f"{name!r} cannot be the name of an environment variable")
        if not isinstance(value, str) or "\0" in value:
            raise InvalidField(f"env.{name}", f"the value of {name} must be a text")
    return dict(env)


def policy(new: NewModel, options: Mapping[str, Any]) -> Policy:
    """The policy, checked with what the options and the environment say of devices. Raises InvalidField."""
    checked = Policy.from_json(new.policy)
    others = ["the option devices"] if options.get("devices") else []
    others += [f"the variable {name}" for name in new.env if name.endswith("_VISIBLE_DEVICES")]
    if checked.devices and others:
        raise InvalidField(
            "policy.devices",
            f"policy.devices and {others[0]} both say which devices are used",
            hint="Take one of them away; policy.devices is also counted with when room is made.",
        )
    return checked


def defaults(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Request defaults, checked. Raises InvalidField."""
    for name in defaults:
        if name in _NOT_DEFAULTS:
            raise InvalidField(
                f"request_defaults.{name}",
                f"{name} belongs to each request and cannot be a default",
                hint="Defaults are parameters such as temperature, max_tokens or top_p.",
            )
    return dict(defaults)
