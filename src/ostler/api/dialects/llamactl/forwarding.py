"""The paths that go on to an engine: `/llama-cpp/{name}/*` and `/api/v1/instances/{name}/proxy/*`.

The gateway carries them (`gateway/named.py`); here is what they mean. A name with slashes may be written
encoded or as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

from ostler.api.dialects.llamactl.door import NotForManagement
from ostler.api.dialects.llamactl.errors import shape
from ostler.api.errors import trouble_of
from ostler.core.errors import NotFound, OstlerError
from ostler.core.principals import Principal, Role
from ostler.models.records import Model

Scope = MutableMapping[str, Any]

LLAMA_CPP, PROXY = "/llama-cpp/", "/api/v1/instances/"
_GET = frozenset({"props", "slots"})
_POST = frozenset(
    {
        *("apply-template", "completion", "detokenize", "embeddings", "infill", "metrics", "props"),
        *("reranking", "tokenize"),
    }
)
_LOOKS = frozenset({"/health", "/metrics", "/slots", "/props", "/models", "/v1/models"})
_NOT_STARTED = frozenset(
    {
        *("start_failed", "start_blocked", "start_cancelled", "still_loading", "not_on_demand", "no_room"),
        *("will_not_fit", "no_model_file", "model_file_gone", "model_files_missing", "model_file_broken"),
    }
)
"""Codes of errors after which a request's model is not there to answer it."""
_ENGINE = "llamacpp"
_CLEAN = re.compile(r"(?:/[A-Za-z0-9._~@:+,=!$&'()*;%-]*)+")


class NotLlamaCpp(NotFound):
    """The instance is of another engine, which has none of these routes."""

    hint = "Ask it by its name under /v1, or by way of /api/v1/instances/NAME/proxy/."


@dataclass(frozen=True, slots=True)
class Addressed:
    """One request on its way to an engine; see `gateway.ports.Address`."""

    model: str
    engine_path: str
    may_start: bool
    is_managing: bool
    scope: Scope

    @property
    def is_look(self) -> bool:
        """Pages that show how an engine is ask this every minute; that is no reason to keep it."""
        return self.scope["method"] in ("GET", "HEAD") and self.engine_path in _LOOKS

    def let_in(self, principal: Principal) -> None:
        """Raise NotForManagement for a key of inference at a path that manages."""
        if self.is_managing and principal.role < Role.MANAGER:
            raise NotForManagement(f"{principal.name} may not ask engines by way of the proxy")

    def expect(self, model: Model) -> None:
        """Raise NotLlamaCpp where the path is llama.cpp's and the model is not."""
        if not self.is_managing and model.engine != _ENGINE:
            raise NotLlamaCpp(f"{model.name} is no instance of llama.cpp", model=model.name)

    def tell(self, error: OstlerError) -> tuple[int, bytes]:
        """The status and the body of a failure."""
        trouble = trouble_of(error)
        if error.code in _NOT_STARTED:
            trouble = replace(trouble, code="instance_start_failed")
        answer = shape(trouble, self.scope)
        return answer.status_code, bytes(answer.body)


class Forwarded:
    """Reads such paths; see `gateway.ports.Addresses`."""

    def read(self, scope: Scope) -> Addressed | None:
        """What a path means; None where it is none of these, or is not clean."""
        path: str = scope["path"]
        is_managing = path.startswith(PROXY)
        if not is_managing and not path.startswith(LLAMA_CPP):
            return None
        raw: bytes = scope.get("raw_path") or quote(path).encode()
        text = raw.partition(b"?")[0].decode("latin-1")
        parts = text.removeprefix(PROXY if is_managing else LLAMA_CPP).split("/")
        for name, rest in _splits(parts):
            if is_managing:
                found = rest[1:] if rest[0] == "proxy" and len(rest) > 1 else None
            else:
                found = rest if _is_served(scope["method"], rest) else None
            if found is not None and (engine_path := _clean(found)) is not None:
                may_start = not is_managing and engine_path != "/"
                return Addressed(name, engine_path, may_start, is_managing, scope)
        return None


def _splits(parts: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The ways to tell a name from what follows it, the shortest name first."""
    for place in range(1, len(parts)):
        if all(parts[:place]):
            yield unquote("/".join(parts[:place])), parts[place:]


def _is_served(method: str, rest: list[str]) -> bool:
    if method in ("GET", "HEAD") and (rest == [""] or (len(rest) == 1 and rest[0] in _GET)):
        return True
    return method == "POST" and (
        (len(rest) == 1 and rest[0] in _POST) or (rest[0] == "v1" and len(rest) > 1 and all(rest))
    )


def _clean(parts: list[str]) -> str | None:
    """The path for the engine; None for one that a URL reader could take for another."""
    path = "/" + "/".join(parts)
    plain = unquote(path)
    is_clean = _CLEAN.fullmatch(path) is not None and "\\" not in plain and plain.isprintable()
    leaves = any(part in (".", "..") for part in plain.split("/")) or "//" in plain
    return path if is_clean and not leaves else None
