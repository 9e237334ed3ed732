"""Giving a downloaded model its names in llama.cpp's flat cache, so that llama.cpp finds it there.

The bytes are in the hub cache; the flat names are further names of the same files (hard links, or
links to the blobs where that cannot be). llama.cpp read the flat names until 2026; since then it
reads `models--org--name/snapshots/...` in the folder that LLAMA_CACHE names, so links there lead to
the flat names. docs/design/015-llama-cache.md says why it is done so.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ostler.downloads.order import OrderedFile
from ostler.downloads.partial import sync_folder
from ostler.downloads.placing import Placing, single_name
from ostler.library.layouts.llama_cache import ETAG, flat_name, manifest_name, repo_folder_name
from ostler.library.paths import safe_join

_NO_HARD_LINK = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
)

REF = "main"
"""llama.cpp looks at the snapshot that this branch points to."""


@dataclass(frozen=True, slots=True)
class FlatPlace:
    """One tag of a repo in the flat cache `folder`. `manifest` and `preset` are as the hub sent them."""

    folder: Path
    repo: str
    tag: str
    commit: str
    files: Sequence[OrderedFile]
    manifest: bytes
    preset: bytes | None

    def name_of(self, file: OrderedFile) -> Path:
        """Where a file is found by its flat name. Raises UnsafePath."""
        return self.folder / single_name(flat_name(self.repo, file.path))

    def is_complete(self, placing: Placing) -> bool:
        """True when every name is there and means the same bytes as in the hub cache. Blocking."""
        manifest = self.folder / manifest_name(self.repo, self.tag)
        return (
            manifest.is_file()
            and all(_same(self.name_of(file), placing.pointer(file)) for file in self.files)
            and all(link.exists() for link, _ in self._links(placing))
        )

    def place(self, placing: Placing, etags: Mapping[str, str]) -> None:
        """Make the names; the manifest, by which the model is listed, comes last. Blocking.

        `etags` are the ETag headers with which files came; others are known by what the hub announced.
        Raises OSError, UnsafePath.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.files:
            name = self.name_of(file)
            if not _same(name, placing.pointer(file)):
                _into_place(name, partial(_name_too, os.path.realpath(placing.pointer(file))))
                self._write(name.name + ETAG, etags.get(file.path, f'"{file.etag}"').encode())
        if self.preset is not None:
            self._write(flat_name(self.repo, "preset.ini"), self.preset)
        links = self._links(placing)
        for link, target in links:
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                _into_place(link, partial(os.symlink, target))
        if links:
            ref = safe_join(self.folder, f"{repo_folder_name(self.repo)}/refs/{REF}")
            ref.parent.mkdir(parents=True, exist_ok=True)
            _into_place(ref, partial(_write_through, self.commit.encode()))
        self._write(manifest_name(self.repo, self.tag), self.manifest)
        sync_folder(self.folder)

    def _links(self, placing: Placing) -> Sequence[tuple[Path, str]]:
        """Links in the hub cache's layout beside the flat files, with what each leads to.

        None where the folder is the hub cache itself: there is the real thing.
        """
        if placing.repo_dir.parent == self.folder:
            return ()
        inside = f"{repo_folder_name(self.repo)}/snapshots/{self.commit}"
        return [
            (
                safe_join(self.folder, inside) / file.path,
                "../" * (3 + file.path.count("/")) + flat_name(self.repo, file.path),
            )
            for file in self.files
        ]

    def _write(self, name: str, contents: bytes) -> None:
        path = self.folder / single_name(name)
        if not path.is_file() or path.read_bytes() != contents:
            _into_place(path, partial(_write_through, contents))


def _into_place(path: Path, make: Callable[[Path], object]) -> None:
    """Make something under a passing name, then give it its own in one step."""
    fresh = path.parent / f".ostler-{secrets.token_hex(8)}"
    try:
        make(fresh)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _name_too(source: str, fresh: Path) -> None:
    """Another name for a file: a hard link, or a link where the disk is another or knows none."""
    try:
        os.link(source, fresh)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
        fresh.symlink_to(source)


def _write_through(contents: bytes, fresh: Path) -> None:
    with fresh.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())


def _same(name: Path, pointer: Path) -> bool:
    """True where both names mean one file."""
    try:
        return name.samefile(pointer)
    except OSError:
        return False
