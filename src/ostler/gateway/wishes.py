"""What a request wants of the model beside its answer: how long it stays, and whether it may wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ostler.core.principals import Principal
from ostler.gateway.errors import BadHeader
from ostler.gateway.headers import Incoming
from ostler.instances.keep_alive import FIELD, KeepAlive

FLEX = "flex"
"""OpenAI's `service_tier` for work that may wait (https://platform.openai.com/docs/guides/flex-processing)."""
_BATCH = {b"batch": True, b"interactive": False}


class Wishes(NamedTuple):
    """`is_batch`: its start may come after those that somebody waits for."""

    keep_alive: KeepAlive | None = None
    is_batch: bool = False


def read_wishes(incoming: Incoming, body: Mapping[str, Any] | None, principal: Principal) -> Wishes:
    """From the header x-ostler-priority and the fields `keep_alive` and `service_tier`; the header wins.

    The fields go on to the engine as they are: llama.cpp and vLLM pass over what they do not know.
    Raises BadHeader, InvalidField.
    """
    body = body or {}
    is_batch = body.get("service_tier") == FLEX
    if incoming.priority is not None:
        said = _BATCH.get(incoming.priority.strip().lower())
        if said is None:
            raise BadHeader("the header x-ostler-priority must be batch or interactive")
        is_batch = said
    asked = body.get(FIELD)
    return Wishes(None if asked is None else KeepAlive.asked(asked, principal), is_batch)
