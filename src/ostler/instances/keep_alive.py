"""How long a client wants a model to stay after its request, and how long it may.

A wish comes as Ollama's clients send it (https://github.com/ollama/ollama/blob/main/docs/faq.mdx): seconds
as a number, a text such as "5m" or "1h30m", 0 to unload once it is idle, a negative one for "for ever".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ostler.core.errors import InvalidField
from ostler.core.principals import Principal, Role

FIELD = "keep_alive"
MAX_TEXT = 50
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)", re.ASCII)
_WHOLE = re.compile(rf"([+-]?)((?:{_PART.pattern})+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """A wish in seconds, infinite for "for ever". `may_pin`: who wishes it has the right to that."""

    seconds: float
    may_pin: bool = False

    @classmethod
    def asked(cls, value: Any, principal: Principal) -> KeepAlive:
        """Read what a client sent. Raises InvalidField."""
        return cls(_seconds(value), principal.role >= Role.MANAGER)

    def within(self, own_s: float | None, default_s: float, limit_s: float) -> float:
        """Seconds that it stays, infinite for ever: a wish may shorten freely, and lengthen within limits.

        `own_s` is the model's own idle time, which is never passed (None: it has none, 0: for ever),
        `default_s` the setting `idle_timeout_s` (0: for ever), `limit_s` the setting `max_keep_alive_s`.
        """
        unasked_s = (default_s if own_s is None else own_s) or math.inf
        if self.seconds <= unasked_s or own_s is not None:
            return min(self.seconds, unasked_s)
        if self.may_pin and math.isinf(self.seconds):
            return math.inf
        return max(unasked_s, min(self.seconds, limit_s))


def _seconds(value: Any) -> float:
    if isinstance(value, str):
        return _read(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise _wrong(value)
    return math.inf if value < 0 else float(min(value, 1e12))


def _read(text: str) -> float:
    """A Go duration (https://pkg.go.dev/time#ParseDuration), or a bare number of seconds."""
    if len(text) <= MAX_TEXT:
        if re.fullmatch(r"-?\d+(\.\d+)?", text, re.ASCII):
            return _seconds(float(text))
        if whole := _WHOLE.fullmatch(text):
            total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(whole[2]))
            return math.inf if whole[1] == "-" and total else total
    raise _wrong(text)


def _wrong(value: Any) -> InvalidField:
    shown = repr(value)[: MAX_TEXT + 2]
    return InvalidField(
        FIELD,
        f"{FIELD} must be seconds or a duration, not {shown}",
        hint='Such as 300, "5m", 0 (unload when idle) or -1 (for ever).',
    )
