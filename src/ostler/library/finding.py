"""Choosing among file sets: what a path or a repo's tag means."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ostler.library.filesets import FileSet

DEFAULT_TAGS = ("Q4_K_M", "Q8_0")
"""What `org/repo` without a tag means where several quantizations are here; llama.cpp's order."""
DEFAULT_REF = "main"
SHORT_COMMIT = 7


def choose_by_path(found: Sequence[FileSet], path: Path) -> FileSet | None:
    """The set that `path` belongs to: its file, its folder, or the folder that holds it alone. Blocking."""
    target = os.path.abspath(path)  # noqa: PTH100
    for item in found:
        if str(item.path) == target or any(str(file.path) == target for file in item.files):
            return item
    real = os.path.realpath(target)
    for item in found:
        if any(os.path.realpath(file.path) == real for file in item.files):
            return item
        if item.format == "safetensors" and os.path.realpath(item.path) == real:
            return item
    inside = [item for item in found if os.path.realpath(item.path.parent) == real and is_model(item)]
    return inside[0] if len(inside) == 1 else None


def choose_by_repo(
    found: Iterable[FileSet], *, file: str | None, tag: str | None, revision: str | None
) -> FileSet | None:
    """The set that a Hub source means: revision first, then file or tag, complete before incomplete.

    Without a revision `main` counts, else the newest snapshot; without a tag DEFAULT_TAGS.
    """
    candidates = [item for item in found if revision is None or has_revision(item, revision)]
    if file is not None:
        candidates = [item for item in candidates if _has_file(item, file)]
    elif tag is not None and tag.lower() != "latest":
        exact = [item for item in candidates if is_model(item) and _tags(item) & {tag.upper()}]
        candidates = exact or [
            item
            for item in candidates
            if is_model(item) and (item.tag or "").upper().endswith("-" + tag.upper())
        ]
    else:
        candidates = [item for item in candidates if is_model(item)]
    return min(candidates, key=_preference, default=None)


def has_revision(item: FileSet, revision: str) -> bool:
    """True if `revision` is its commit (also shortened), or a branch or tag that points to it."""
    if revision in item.refs or item.revision == revision:
        return True
    return len(revision) >= SHORT_COMMIT and (item.revision or "").startswith(revision.lower())


def is_model(item: FileSet) -> bool:
    """True unless it is known to be something else (a projector, an adapter)."""
    return item.facts is None or item.facts.kind == "model"


def _tags(item: FileSet) -> set[str]:
    read = item.facts.quantization if item.facts else None
    return {name.upper() for name in (item.tag, read) if name}


def _has_file(item: FileSet, file: str) -> bool:
    wanted = PurePosixPath(file)
    return any(PurePosixPath(*part.path.parts[-len(wanted.parts) :]) == wanted for part in item.files)


def _preference(item: FileSet) -> tuple[bool, bool, float, int, str]:
    tag = (item.tag or "").upper()
    rank = DEFAULT_TAGS.index(tag) if tag in DEFAULT_TAGS else len(DEFAULT_TAGS)
    is_default = DEFAULT_REF in item.refs
    # Among snapshots that no branch points to the newest counts; times within one snapshot differ too,
    # so they only matter between revisions that are no default.
    age = 0.0 if is_default else -item.modified_at.timestamp()
    return not item.complete, not is_default, age, rank, str(item.path)
