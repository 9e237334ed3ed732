"""What the worker is asked for, and what it answers: JSON on its stdin and stdout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class OrderedFile:
    """One file. `path` is relative with "/"; `etag` names its contents and its blob in the cache.

    `sha256` is there for large (LFS) files; for the others `etag` is git's SHA-1 of the blob. `twin` is a
    file elsewhere on this disk that may have these contents: it is looked at before anything is fetched.
    """

    path: str
    url: str
    size: int
    etag: str
    sha256: str | None = None
    twin: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A download that is fully decided: files at one commit, and where they go.

    `endpoint` is the hub's address: `token` is sent there and to no other host.
    `repo_dir` is the repo's folder in the hub cache, `staging_dir` ours alone, on the same disk.
    """

    repo: str
    commit: str
    revision: str
    primary: str
    files: tuple[OrderedFile, ...]
    endpoint: str
    repo_dir: str
    staging_dir: str
    token: str | None = field(default=None, repr=False)
    connections: int = 4
    rate_limit: int = 0
    retries: int = 8
    timeout_s: float = 30.0
    backoff_s: float = 0.5

    def to_json(self) -> dict[str, Any]:
        """Plain values, the token among them: for the worker's stdin only."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Order:
        """Read what `to_json` wrote. Raises TypeError or KeyError when it is something else."""
        files = tuple(OrderedFile(**file) for file in data["files"])
        return cls(**{**data, "files": files})
