"""What the hub knows, as values. Everything in them has passed the checks of `reading.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repo at one commit. `path` is relative, with `/`, and safe to join to a folder."""

    path: str
    size_bytes: int
    sha256: str | None
    """Of the contents, 64 hex digits; only the hub's large files (LFS) have one."""
    blob_id: str
    """The git object, 40 hex digits: for a small file the SHA-1 of `blob <size>\\0` and its contents."""
    lfs: bool

    @property
    def etag(self) -> str:
        """What the hub sends as ETag and the hub cache takes as the blob's file name."""
        return self.sha256 or self.blob_id

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Variant:
    """One model among those of a repo: a GGUF with all its shards, or the safetensors weights.

    `tag` selects it (`Q4_K_M`, `UD-Q4_K_XL`, `safetensors`), `quantization` is what its name claims,
    None where it says nothing. `size_bytes` is the sum over `files`, without the mmproj.
    """

    tag: str
    quantization: str | None
    files: tuple[HubFile, ...]
    size_bytes: int
    format: str = "gguf"
    missing: tuple[str, ...] = ()
    """Shards that the names promise and the repo does not hold."""

    @property
    def primary(self) -> str:
        """Path of the file that an engine is given: the first shard."""
        return self.files[0].path


@dataclass(frozen=True, slots=True)
class RepoInfo:
    """A repo at one commit."""

    repo: str
    """Its name now; `renamed_from` is the name asked for, where it has been renamed since."""
    commit: str
    """40 hex digits."""
    revision: str
    """The branch, tag or commit asked for; `main` when none was."""
    gated: str | None
    """How access is granted: "auto", "manual", or None for an open repo."""
    private: bool
    downloads: int
    likes: int
    tags: tuple[str, ...]
    pipeline_tag: str | None
    license: str | None
    last_modified: datetime | None
    files: tuple[HubFile, ...]
    variants: tuple[Variant, ...]
    mmprojs: tuple[HubFile, ...] = ()
    renamed_from: str | None = None

    @property
    def total_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Resolution:
    """What exactly a spec means: these files at this commit, to be fetched together."""

    repo: str
    revision: str
    """As asked for (`main` when nothing was)."""
    commit: str
    files: tuple[HubFile, ...]
    """All shards and the mmproj; or the safetensors weights with config and tokenizer files."""
    primary: str
    """Path of the file that an engine is given: the first shard, or the first weights file."""
    tag: str | None
    format: str
    """"gguf" or "safetensors"."""
    total_bytes: int
    quantization: str | None = None
    mmproj: str | None = None
    """Path of the multimodal projector among `files`."""
    gated: str | None = None
    renamed_from: str | None = None


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One repo found by a search."""

    repo: str
    downloads: int
    likes: int
    tags: tuple[str, ...]
    pipeline_tag: str | None
    license: str | None
    last_modified: datetime | None
    gated: str | None
    private: bool
    gguf: bool
    """True when the repo holds GGUF files."""
    parameters: int | None = None
    """How many weights, where the hub knows."""
