"""Requests that name their model in the path: the engine gets the same bytes, by the rest of the path.

Who asks, limits, leases, accounting and streaming are those of every request; a dialect says which paths
these are and how failures look (`ports.Address`).
"""

from __future__ import annotations

import json
from collections.abc import Collection

from ostler.core.errors import Busy
from ostler.core.principals import Principal
from ostler.core.states import InstanceState
from ostler.gateway.exchange import Exchange
from ostler.gateway.metrics import OTHER
from ostler.gateway.ports import Address, EngineLeases
from ostler.gateway.routes import ROUTES, Route, check_scope, dialect_of
from ostler.models.records import Model

RETRY_AFTER_S = 5.0
_SCOPES = {"/completion": "completions", "/infill": "completions", "/embeddings": "embeddings"}
_SCOPES["/reranking"] = "embeddings"


class ModelNotRunning(Busy):
    """The model does not run, and this request does not start it."""


def let_in_by_path(exchange: Exchange, address: Address, principal: Principal) -> None:
    """Let this one ask by this path. Raises InsufficientScope, and the dialect's own errors."""
    address.let_in(principal)
    path = address.engine_path
    known = ROUTES.get(path)
    exchange.engine_path, exchange.label = path, known.label if known else OTHER
    check_scope(principal, known or Route(path, OTHER, dialect_of(path), False, _SCOPES.get(path)))


def expect_by_path(address: Address, model: Model, instances: EngineLeases) -> None:
    """Raise an error unless the path is one for this model as it is now. Raises ModelNotRunning."""
    address.expect(model)
    state = instances.view(model.id).state
    if not address.may_start and state != InstanceState.RUNNING:
        raise ModelNotRunning(
            f"instance is not running: {model.name} is {state}",
            retry_after_s=RETRY_AFTER_S,
            hint=f"Start it: ostler start {model.name}",
            model=model.name,
        )


def is_of_instance(name: str, names: Collection[str]) -> bool:
    """Is it `inst/model`, where these are the names of the instance?"""
    instance, slash, _ = name.partition("/")
    return bool(slash) and name not in names and instance in names


def asks_for_stream(exchange: Exchange) -> bool:
    """Does the body ask for an answer piece by piece? What is no JSON object does not."""
    if b'"stream"' not in exchange.body or exchange.incoming.content_type[:10].lower() == b"multipart/":
        return False
    try:
        said = json.loads(exchange.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("stream") is True
