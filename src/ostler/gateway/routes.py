"""What is known of the paths under `/v1`: their error dialect and their method.

A path that is not in the table goes to the engine as well, if it is clean: what an engine serves
tomorrow needs no change here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ostler.core.errors import NotAllowed
from ostler.core.near import near_names
from ostler.core.principals import Principal
from ostler.gateway.errors import Dialect, UnknownRoute, WrongMethod
from ostler.gateway.metrics import OTHER

PREFIX = "/v1/"
MODELS = "/v1/models"


class Route(NamedTuple):
    """One path. `label` is its name in metrics; `post_only` where no other method makes sense.

    `scope` is what a key must be for (`principals.SCOPES`), None where only a key for everything will do.
    """

    path: str
    label: str
    dialect: Dialect
    post_only: bool
    scope: str | None = None


def _known(path: str, scope: str | None = None, dialect: Dialect = Dialect.OPENAI) -> tuple[str, Route]:
    return path, Route(path, path, dialect, True, scope)


ROUTES: dict[str, Route] = dict(
    (
        _known("/v1/chat/completions", "chat"),
        _known("/v1/completions", "completions"),
        _known("/v1/embeddings", "embeddings"),
        _known("/v1/responses", "chat", Dialect.RESPONSES),
        _known("/v1/messages", "chat", Dialect.ANTHROPIC),
        _known("/v1/messages/count_tokens", "chat", Dialect.ANTHROPIC),
        _known("/v1/rerank", "embeddings"),
        _known("/v1/reranking", "embeddings"),
        _known("/v1/score", "embeddings"),
        _known("/v1/classify", "embeddings"),
        _known("/v1/pooling", "embeddings"),
        _known("/v1/moderations"),
        _known("/v1/audio/speech"),
        _known("/v1/audio/transcriptions"),
        _known("/v1/audio/translations"),
        _known("/v1/images/generations"),
        _known("/v1/images/edits"),
    )
)

_CLEAN = re.compile(r"/v1(?:/[A-Za-z0-9_~@:+,=-][A-Za-z0-9._~@:+,=-]*)+")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def dialect_of(path: str) -> Dialect:
    """Whose error shape this path speaks, known or not."""
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.RESPONSES if path.startswith("/v1/responses") else Dialect.OPENAI


def route_of(path: str, method: str) -> Route:
    """The route of a path that goes to an engine.

    The path is joined to the engine's address, so it may hold no dots between slashes, no empty
    parts and nothing that a URL parser would read as something else. Raises UnknownRoute, WrongMethod.
    """
    route = ROUTES.get(path)
    if route is not None:
        expect_post(path, method)
        return route
    if not _CLEAN.fullmatch(path):
        near = near_names(path, [MODELS, *ROUTES])
        hint = f"Did you mean {near[0]}?" if near else "See GET /v1/models, or the guide at /docs."
        raise UnknownRoute(f"there is nothing at {path[:200]!r}", hint=hint)
    if method not in _METHODS:
        raise WrongMethod(f"{method} is not understood", allow=", ".join((*_METHODS, "OPTIONS")))
    return Route(path, OTHER, dialect_of(path), post_only=False)


def expect_post(path: str, method: str) -> None:
    """Raise WrongMethod for any other method than POST."""
    if method != "POST":
        raise WrongMethod(f"{path} takes POST, not {method}", allow="POST, OPTIONS")


class InsufficientScope(NotAllowed):
    """The key is for other kinds of inference."""

    hint = "Ask an administrator for a key with this scope."


def check_scope(principal: Principal, route: Route) -> None:
    """Raise InsufficientScope where the key is not for what this route does."""
    if principal.scopes is not None and route.scope not in principal.scopes:
        raise InsufficientScope(
            f"the key {principal.name} is for {', '.join(sorted(principal.scopes)) or 'no inference'}, "
            f"not for {route.scope or route.path}",
            needs=route.scope,
            has=sorted(principal.scopes),
        )
