"""The repos of the test hub: files, commits, branches, and who may see them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LFS_SUFFIXES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack")
LFS_SIZE_BYTES = 10 * 1024 * 1024
FIRST_COMMIT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Blob:
    """The contents of a file, in memory or on disk, and its hashes as git and LFS know them."""

    data: bytes | Path
    size: int
    sha256: str
    oid: str
    """Git's object: of the contents, or of the LFS pointer file."""
    lfs: bool

    @classmethod
    def of(cls, data: bytes | Path, *, lfs: bool) -> Blob:
        """Hash the contents once; a file on disk is read in pieces."""
        if isinstance(data, bytes):
            size, sha256, git = len(data), hashlib.sha256(data), hashlib.sha1(b"blob %d\0" % len(data) + data)
        else:
            size, sha256, git = data.stat().st_size, hashlib.sha256(), hashlib.sha1()
            git.update(b"blob %d\0" % size)
            with data.open("rb") as file:
                while piece := file.read(1 << 20):
                    sha256.update(piece)
                    if not lfs:
                        git.update(piece)
        if lfs:
            pointer = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256.hexdigest()}\nsize {size}\n"
            )
            git = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer.encode())
        return cls(data, size, sha256.hexdigest(), git.hexdigest(), lfs)

    @property
    def etag(self) -> str:
        """What the hub gives as the file's ETag."""
        return self.sha256 if self.lfs else self.oid

    def read(self) -> bytes:
        """All of it."""
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


@dataclass(frozen=True)
class Commit:
    """One state of a repo's files."""

    sha: str
    files: Mapping[str, Blob]
    title: str
    date: datetime


@dataclass
class HubRepo:
    """One repo. `commit(...)` moves `main`; `tags`, `downloads`, ... are what the API tells about it."""

    name: str
    gated: str | bool = False
    private: bool = False
    access: set[str] = field(default_factory=set)
    """Tokens that may see a private repo and fetch from a gated one."""
    tags: tuple[str, ...] = ()
    pipeline_tag: str | None = "text-generation"
    downloads: int = 0
    likes: int = 0
    license: str | None = "apache-2.0"
    extra: dict[str, Any] = field(default_factory=dict)
    """More fields of the API's answer, or other values for those it has."""
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    version_tags: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def commit(
        self,
        files: Mapping[str, bytes | Path],
        *,
        remove: tuple[str, ...] = (),
        branch: str = "main",
        title: str = "Upload",
        lfs: bool | None = None,
    ) -> str:
        """Add or replace files, drop those in `remove`, move the branch; the new commit's hash."""
        with self._lock:
            parent = self.branches.get(branch) or self.branches.get("main")
            known = dict(self.at(parent).files) if parent else {}
            for path in remove:
                del known[path]
            for path, data in files.items():
                known[path] = Blob.of(data, lfs=_is_lfs(path, data) if lfs is None else lfs)
            text = f"{self.name}\n{len(self.commits)}\n" + "\n".join(
                f"{path} {blob.sha256}" for path, blob in sorted(known.items())
            )
            sha = hashlib.sha1(text.encode()).hexdigest()
            date = FIRST_COMMIT + timedelta(minutes=len(self.commits))
            self.commits.append(Commit(sha, known, title, date))
            self.branches[branch] = sha
            return sha

    @property
    def head(self) -> str:
        """The commit that `main` points to."""
        return self.branches["main"]

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, tag or hash (also a short one); None if there is none."""
        sha = self.branches.get(revision) or self.version_tags.get(revision) or revision
        return next(
            (c for c in self.commits if c.sha == sha or (len(sha) >= 7 and c.sha.startswith(sha))), None
        )

    def at(self, revision: str) -> Commit:
        """Like `find`, for a revision that must exist."""
        commit = self.find(revision)
        assert commit is not None, revision
        return commit

    def blob(self, path: str, revision: str = "main") -> Blob:
        """A file at a revision."""
        return self.at(revision).files[path]

    def is_visible_to(self, token: str | None) -> bool:
        """Whether the repo exists at all for this token."""
        return not self.private or token in self.access

    def may_fetch(self, token: str | None) -> bool:
        """Whether the files may be fetched with this token."""
        return self.is_visible_to(token) and (not self.gated or token in self.access)

    def to_json(self, commit: Commit, *, blobs: bool, siblings: bool = True) -> dict[str, Any]:
        """The repo as `/api/models/...` tells it; `blobs` adds sizes and hashes."""
        suffixes = {Path(path).suffix for path in commit.files}
        tags = [*self.tags, *(tag for tag in ("gguf", "safetensors") if f".{tag}" in suffixes)]
        answer: dict[str, Any] = {
            "_id": hashlib.sha1(self.name.encode()).hexdigest()[:24],
            "id": self.name,
            "modelId": self.name,
            "author": self.name.partition("/")[0],
            "sha": commit.sha,
            "lastModified": _json_time(commit.date),
            "createdAt": _json_time(self.commits[0].date),
            "private": self.private,
            "gated": "auto" if self.gated is True else self.gated,
            "disabled": False,
            "downloads": self.downloads,
            "likes": self.likes,
            "tags": [*tags, *([f"license:{self.license}"] if self.license else [])],
            "pipeline_tag": self.pipeline_tag,
            "library_name": "transformers",
            "cardData": {"license": self.license} if self.license else {},
            "usedStorage": sum(blob.size for blob in commit.files.values()),
        }
        if siblings:
            answer["siblings"] = [_sibling(path, blob, blobs) for path, blob in sorted(commit.files.items())]
        return {**answer, **self.extra}


def _is_lfs(path: str, data: bytes | Path) -> bool:
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    return path.lower().endswith(LFS_SUFFIXES) or size >= LFS_SIZE_BYTES


def _sibling(path: str, blob: Blob, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    entry: dict[str, Any] = {"rfilename": path, "size": blob.size, "blobId": blob.oid}
    if blob.lfs:
        entry["lfs"] = {"size": blob.size, "sha256": blob.sha256, "pointerSize": 134}
    return entry


def _json_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z")
