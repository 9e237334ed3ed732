"""What the hub tells llama.cpp of a tag: which GGUF file it means, and the projector beside it.

`GET /v2/{org}/{name}/manifests/{tag}` answers with the files' names only to one whose User-Agent has
the word `llama-cpp` (common/arg.cpp of llama.cpp until 2026). Small files of a repo are fetched here
too, where they are few bytes and wanted as a whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from typing import Any

from ostler import __version__
from ostler.hub.errors import BadSpec, IncompleteRepo, NoSuchFile, UnsupportedRepo, UntrustedAnswer
from ostler.hub.records import HubFile, RepoInfo, Resolution, Variant
from ostler.hub.specs import check_relative

log = logging.getLogger(__name__)

USER_AGENT = f"llama-cpp/ostler/{__version__}"
DEFAULT_TAG = "latest"
PRESET = "preset.ini"
MAX_MANIFEST_BYTES = 256 * 1024
MAX_PRESET_BYTES = 256 * 1024

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,126}")


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a tag of a repo means now. `manifest` and `preset` are bytes as the hub sent them."""

    found: Resolution
    manifest: bytes
    preset: bytes | None


def check_tag(tag: str) -> str:
    """The tag, unchanged, when a manifest can have it: no slash, no `..`. Raises BadSpec."""
    if not _TAG.fullmatch(tag) or ".." in tag:
        raise BadSpec(f"{tag[:120]!r} cannot be a tag", hint="Such as Q4_K_M; left out it is latest.")
    return tag


def resolution_of(info: RepoInfo, tag: str, manifest: bytes) -> Resolution:
    """The files that a manifest names, with sizes and hashes as the repo lists them, all parts among them.

    Raises UnsupportedRepo where it names no GGUF, IncompleteRepo, NoSuchFile, UntrustedAnswer.
    """
    said = _decoded(info.repo, tag, manifest)
    path = _path(said, "ggufFile")
    if path is None:
        raise UnsupportedRepo(f"no GGUF file in manifest of {info.repo}:{tag}", repo=info.repo)
    variant = _variant_with(info, path)
    if variant.missing:
        raise IncompleteRepo(
            f"{info.repo} lacks {', '.join(variant.missing[:3])} of {tag}",
            repo=info.repo,
            missing=list(variant.missing[:20]),
        )
    projector = _path(said, "mmprojFile")
    beside = () if projector is None else (_file(info, projector),)
    files = (*variant.files, *beside)
    return Resolution(
        repo=info.repo,
        revision=info.revision,
        commit=info.commit,
        files=files,
        primary=variant.primary,
        tag=variant.tag,
        format="gguf",
        total_bytes=sum(file.size_bytes for file in files),
        quantization=variant.quantization,
        mmproj=projector,
        gated=info.gated,
        renamed_from=info.renamed_from,
    )


def preset_in(info: RepoInfo) -> HubFile | None:
    """The repo's file of recommended settings, if it has one of a sensible size."""
    found = next((file for file in info.files if file.path == PRESET), None)
    return found if found is not None and found.size_bytes <= MAX_PRESET_BYTES else None


def is_whole(file: HubFile, contents: bytes) -> bool:
    """True for the contents that the hub announced."""
    if file.sha256 is not None:
        return hashlib.sha256(contents).hexdigest() == file.sha256
    header = b"blob %d\0" % len(contents)
    return hashlib.sha1(header + contents, usedforsecurity=False).hexdigest() == file.blob_id


def _decoded(repo: str, tag: str, manifest: bytes) -> dict[str, Any]:
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise UntrustedAnswer(f"the manifest of {repo}:{tag} has {len(manifest):,} bytes")
    try:
        said = json.loads(manifest)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise UntrustedAnswer(f"the manifest of {repo}:{tag} is not a JSON object")
    return said


def _path(said: dict[str, Any], key: str) -> str | None:
    entry = said.get(key)
    path = entry.get("rfilename") if isinstance(entry, dict) else None
    if path is None:
        return None
    try:
        return check_relative(path if isinstance(path, str) else "")
    except BadSpec as error:
        raise UntrustedAnswer(f"a manifest names a file with an unsafe name: {error.message}") from error


def _variant_with(info: RepoInfo, path: str) -> Variant:
    for variant in info.variants:
        if any(file.path == path for file in variant.files) or path in variant.missing:
            return variant
    file = _file(info, path)  # a GGUF that does not look like a model by its name: the hub means it
    return Variant(tag=path, quantization=None, files=(file,), size_bytes=file.size_bytes)


def _file(info: RepoInfo, path: str) -> HubFile:
    found = next((file for file in info.files if file.path == path), None)
    if found is None:
        raise NoSuchFile(f"{info.repo} has no {path}, which its manifest names", repo=info.repo)
    return found
