"""One listing over roots: scan, remember, filter, sort."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostler.core.errors import InvalidField
from ostler.core.near import near_names
from ostler.library.assembly import Where, file_sets
from ostler.library.filesets import FileSet
from ostler.library.inspections import Inspections
from ostler.library.layouts import LAYOUTS
from ostler.library.layouts.folder import FolderLayout
from ostler.library.roots import Root
from ostler.library.scanning import Neighbourhood, Problem, SeenFile, Walk


@dataclass(frozen=True, slots=True)
class Listing:
    """What one scan found. `paths` are all files that were seen, `problems` what was passed over."""

    file_sets: list[FileSet]
    paths: frozenset[str]
    problems: list[Problem]


class Scanner:
    """Scans roots. What did not change since the last scan is not put together again. Blocking."""

    def __init__(self, inspections: Inspections) -> None:
        self._inspections = inspections
        self._known: dict[tuple[int, str], tuple[Any, list[FileSet]]] = {}
        self._remembered: dict[SeenFile, Any] = {}

    def scan(self, roots: Iterable[Root]) -> Listing:
        """Everything in the available ones of these roots."""
        found: list[FileSet] = []
        paths: set[str] = set()
        walk = Walk(remembered=self._remembered)
        current: dict[tuple[int, str], tuple[Any, list[FileSet]]] = {}
        for root, near in _each_once(((root, None) for root in roots), walk):
            key, entry = (root.id, near.key), self._entry(root, near)
            current[key] = entry
            found += entry[1]
            for place in near.places:
                paths.update(file.path for file in place.files.values())
        self._known = current
        return Listing(found, frozenset(paths), walk.problems)

    def scan_scopes(self, scopes: Iterable[tuple[Root, str]]) -> list[FileSet]:
        """Only what lies at these places, each file under one of its names."""
        nearby = _each_once(scopes, Walk())
        return [found for root, near in nearby for found in self._entry(root, near)[1]]

    def scan_within(self, root: Root, within: str) -> list[FileSet]:
        """Only what lies at `within` (see `Layout.scan`)."""
        nearby = LAYOUTS[root.layout].scan(str(root.path), Walk(), within)
        return [found for near in nearby for found in self._entry(root, near)[1]]

    def scan_below(self, root: Root, within: str) -> tuple[list[Neighbourhood], list[FileSet]]:
        """What lies in the folder `within` and in all folders below it, whatever the root's layout."""
        nearby = list(FolderLayout().scan(str(root.path), Walk(), within, deep=True))
        return nearby, [found for near in nearby for found in self._entry(root, near)[1]]

    def forget(self) -> None:
        """Put everything together anew at the next scan."""
        self._known = {}

    def _entry(self, root: Root, near: Neighbourhood) -> tuple[Any, list[FileSet]]:
        signature = (near.refs, [(place.relative, list(place.files.values())) for place in near.places])
        known = self._known.get((root.id, near.key))
        if known is not None and known[0] == signature:
            return known
        return signature, file_sets(Where(root.id, root.path, root.layout), near, self._inspections.read)


def _each_once(scopes: Iterable[tuple[Root, str | None]], walk: Walk) -> Iterator[tuple[Root, Neighbourhood]]:
    """What lies in roots, or at places in them; further names of files that were met before are left out."""
    seen: set[tuple[int, int, int]] = set()
    for root, within in sorted(scopes, key=lambda scope: LAYOUTS[scope[0].layout].names_others):
        if not root.available:
            walk.report(str(root.path), "is not there or cannot be read")
            continue
        layout = LAYOUTS[root.layout]
        for near in layout.scan(str(root.path), walk, within):
            contents = {file.contents for place in near.places for file in place.files.values()}
            if not (layout.names_others and contents <= seen):
                seen |= contents
                yield root, near
        walk.entries = 0


def relative_to_root(root: Root, path: Path) -> str | None:
    """`path` relative to `root`, "" for the root itself; None if it is not in there. Blocking."""
    given = os.path.abspath(path)  # noqa: PTH100 - without following links
    try:
        resolved = os.path.realpath(given)
    except (OSError, ValueError):
        return None  # no file can have such a path
    for base, place in ((str(root.path), given), (os.path.realpath(root.path), resolved)):
        if place == base:
            return ""
        if place.startswith(base.rstrip("/") + "/"):
            return place[len(base.rstrip("/")) + 1 :]
    return None


_SORTS: Mapping[str, Callable[[FileSet], Any]] = {
    "name": lambda item: item.name.lower(),
    "size": lambda item: item.size_bytes,
    "modified": lambda item: item.modified_at,
    "parameters": lambda item: (item.facts.parameters if item.facts else None) or 0,
    "context_length": lambda item: (item.facts.context_length if item.facts else None) or 0,
    "architecture": lambda item: (item.facts.architecture if item.facts else None) or "",
    "quantization": lambda item: (item.facts.quantization if item.facts else None) or "",
    "format": lambda item: item.format,
    "layout": lambda item: item.layout or "",
    "repo": lambda item: (item.repo or "").lower(),
    "path": lambda item: str(item.path),
}


def sorted_by(found: Sequence[FileSet], sort: str, descending: bool) -> list[FileSet]:
    """Sorted, ties always in the same order. Raises InvalidField for an unknown key."""
    aliases = {"size_bytes": "size", "modified_at": "modified"}
    key = _SORTS.get(aliases.get(sort, sort))
    if key is None:
        near = near_names(sort, _SORTS)
        raise InvalidField(
            "sort",
            f"files cannot be sorted by {sort!r}",
            hint=f"Did you mean {near[0]}?" if near else f"One of: {', '.join(_SORTS)}",
        )
    return sorted(sorted(found, key=lambda item: item.id), key=key, reverse=descending)


def matching(
    found: Iterable[FileSet],
    *,
    search: str | None = None,
    layout: str | None = None,
    repo: str | None = None,
    format: str | None = None,
) -> list[FileSet]:
    """Those that match all filters. Every word of `search` must be in name, repo, path or facts."""
    words = search.lower().split() if search else []
    return [
        item
        for item in found
        if (layout is None or item.layout == layout)
        and (repo is None or (item.repo or "").lower() == repo.lower())
        and (format is None or item.format == format)
        and (not words or _has_words(item, words))
    ]


def _has_words(item: FileSet, words: Sequence[str]) -> bool:
    facts = item.facts
    about = [facts.architecture, facts.quantization, facts.name, *facts.capabilities] if facts else []
    text = " ".join([item.name, item.repo or "", str(item.path), *(word or "" for word in about)]).lower()
    return all(word in text for word in words)
