"""The launch spec: the fully resolved answer to "what exactly will run".

Engines make it, runtimes carry it out, instances store it. It lives on the floor because
engines and runtimes may not know each other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

HOST_SLOT = "@OSTLER_HOST@"
"""An argument that the runtime replaces by the address to listen on."""
PORT_SLOT = "@OSTLER_PORT@"
"""An argument that the runtime replaces by the port to listen on."""
HIDDEN = "********"
"""What is shown in place of a secret."""

_SECRET = re.compile(r"key|secret|passw|credential|token(?!s|iz)", re.IGNORECASE)


def names_secret(name: str) -> bool:
    """True for the name of a variable or flag whose value looks like a secret."""
    return _SECRET.search(name) is not None


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path that must be visible to the engine; `target` is the path inside a container."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What exactly will run, for any runtime. Immutable; `digest()` tells drift.

    `command` is the executable with its fixed leading arguments (process runtime); `image` the
    container image (docker, kserve). `args` follow either; HOST_SLOT and PORT_SLOT in them are
    replaced by the runtime. `secret_env` names environment variables whose values are handed to
    `Runtime.launch` beside the spec, so that no secret is ever stored or hashed.
    """

    model_id: int
    model_name: str
    engine: str
    runtime: str
    command: tuple[str, ...] = ()
    image: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[str, ...] = ()
    working_dir: str | None = None
    runtime_options: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """A stable hash (64 hex digits) of everything that would need a restart when it changes."""
        body = {k: v for k, v in asdict(self).items() if k not in ("model_name",)}
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; it holds no secret values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LaunchSpec:
        """The inverse of `to_json`."""
        fields = dict(data)
        for name in ("command", "args", "secret_env", "devices"):
            fields[name] = tuple(fields.get(name) or ())
        fields["mounts"] = tuple(Mount(**m) for m in fields.get("mounts") or ())
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Handle:
    """How a runtime finds an instance again: small JSON data that we store.

    `url` is the base URL where the engine listens ("http://127.0.0.1:40123").
    """

    runtime: str
    url: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Handle:
        """The inverse of `to_json`."""
        return cls(runtime=data["runtime"], url=data["url"], data=dict(data.get("data") or {}))
