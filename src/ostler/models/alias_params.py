"""The parameters of an alias as BodhiApp names them, and which field of a model each of them is.

`request_params` become request defaults under the same names, `context_params` options of llama.cpp.
Names and ranges: BodhiApp's guide "Model Management", section "Parameter Configuration Guide".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ostler.core.errors import InvalidField
from ostler.models.records import NEXT_REQUEST

AT_NEXT_REQUEST: Mapping[str, Any] = {"apply_changes": NEXT_REQUEST}
"""The policy of aliases: their clients know no other way to apply a change."""

REQUEST, CONTEXT = "request_params", "context_params"


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. `ours` is the key in the model's document; the bounds are inclusive."""

    name: str
    ours: str
    kind: type
    minimum: float | None = None
    maximum: float | None = None

    def check(self, value: Any, where: str, *, bounded: bool) -> Any:
        """The value, if it has the right type and lies within the bounds. Raises InvalidField."""
        field = f"{where}.{self.name}"
        if self.kind is list:
            return _texts(field, value)
        wanted: tuple[type, ...] = (int, float) if self.kind is float else (self.kind,)
        if isinstance(value, bool) or type(value) not in wanted:
            raise InvalidField(field, f"{self.name} must be {_KINDS[self.kind]}, not {shown(value)}")
        low, high = (self.minimum, self.maximum) if bounded else (None, None)
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = f"from {low:g} to {high:g}" if high is not None else f"at least {low:g}"
            raise InvalidField(field, f"{self.name} must be {bounds}, not {value}")
        return value


_KINDS = {float: "a number", int: "a whole number", str: "a text"}

REQUEST_PARAMS: tuple[Param, ...] = (
    Param("temperature", "temperature", float, 0.0, 2.0),
    Param("max_tokens", "max_tokens", int, 1),
    Param("top_p", "top_p", float, 0.0, 1.0),
    Param("frequency_penalty", "frequency_penalty", float, -2.0, 2.0),
    Param("presence_penalty", "presence_penalty", float, -2.0, 2.0),
    Param("stop", "stop", list),
    Param("seed", "seed", int),
    Param("user", "user", str),
    Param("system_prompt", "system_prompt", str),
)
CONTEXT_PARAMS: tuple[Param, ...] = (
    Param("n_ctx", "context_length", int, 512, 32768),
    Param("n_threads", "threads", int, 1, 64),
    Param("n_parallel", "parallel_slots", int, 1, 16),
    Param("n_predict", "max_tokens", int, -1),
    Param("n_keep", "keep", int, 0),
    Param("n_seed", "seed", int, -1, 2**32 - 1),
)


def to_ours(params: Sequence[Param], given: Any, where: str, *, bounded: bool = True) -> dict[str, Any]:
    """Checked values under our keys; what is null, an empty list or unknown is left out.

    `where` names the object in errors. Not `bounded`: any value of the right type passes, as BodhiApp's own
    files may hold. Raises InvalidField.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidField(where, f"{where} must be an object")
    found = {
        param.ours: param.check(given[param.name], where, bounded=bounded)
        for param in params
        if given.get(param.name) is not None
    }
    return {key: value for key, value in found.items() if value != []}


def to_theirs(params: Sequence[Param], ours: Mapping[str, Any]) -> dict[str, Any]:
    """BodhiApp's object of what is set in a model's document; other keys are not shown."""
    return {param.name: ours[param.ours] for param in params if ours.get(param.ours) is not None}


def replacing(params: Sequence[Param], given: Any, where: str) -> dict[str, Any]:
    """The change that puts an object in place of what is there: null for each key that it leaves out."""
    return {**{param.ours: None for param in params}, **to_ours(params, given, where)}


def shown(value: object) -> str:
    """A value as it may stand in a message. What is nested is only named: YAML may fold what never ends."""
    if value is None or isinstance(value, str | int | float):
        return repr(str(value)[:80])
    return (
        "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "something else"
    )


def _texts(field: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidField(field, f"{field.rpartition('.')[2]} must be a list of texts")
    return value
