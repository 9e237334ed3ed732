"""Files that clients send here themselves, instead of having them fetched.

A file comes in as a blob that is named by its SHA-256, grows in a hidden folder, and counts only when its
hash is right. `placed` then gives blobs names in a folder of their own among the files that Ostler made
(setting `reshaped_dir`), where the library lists them. A blob that nobody placed is removed after a week.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from ostler.core.disk import FULL, free_bytes, no_room
from ostler.core.errors import Conflict, DiskFull, InvalidField, NotFound
from ostler.core.principals import Principal, Role
from ostler.core.settings import Settings
from ostler.downloads.errors import DiskFailed
from ostler.library.paths import safe_join

log = logging.getLogger(__name__)

STAGING = ".uploads"
WRITE_BYTES = 4 * 1024 * 1024
KEPT_S = 7 * 24 * 3600.0
PARTIAL_KEPT_S = 24 * 3600.0
MAKE_ROOM = "Free some space (ostler rm --files) and send it again."
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


class WrongDigest(Conflict):
    """The bytes do not have the hash that they were sent under."""


class BlobNotFound(NotFound):
    """No file with this hash was sent."""

    hint = "Send it first: POST /api/blobs/sha256:..."


def read_digest(text: str) -> str:
    """The 64 hexadecimal digits of `sha256:...`, in small letters. Raises InvalidField."""
    found = _DIGEST.fullmatch(text)
    if found is None:
        raise InvalidField("digest", f"{text[:100]!r} is no digest", hint="sha256: and 64 hex digits.")
    return found[1].lower()


class Uploads:
    """Takes files in, and places them."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings

    async def has(self, digest: str) -> bool:
        """Is the file with this hash here, placed or not? Raises InvalidField."""
        return await asyncio.to_thread(self._find, read_digest(digest)) is not None

    async def receive(
        self, digest: str, pieces: AsyncIterator[bytes], declared_bytes: int | None, principal: Principal
    ) -> bool:
        """Keep a file as it comes in; False where it was here already. Needs the role power_user.

        Raises InvalidField, WrongDigest, DiskFull (before the first byte where the size is declared) and
        DiskFailed. Whatever happens, nothing half-done is left.
        """
        principal.require(Role.POWER_USER, "upload model files")
        wanted = read_digest(digest)
        if await asyncio.to_thread(self._find, wanted) is not None:
            return False
        await asyncio.to_thread(self._make_ready, declared_bytes)
        fresh = self._staging / f"part-{uuid4().hex}"
        try:
            got = await self._write(fresh, pieces)
            if got != wanted:
                raise WrongDigest(
                    f"the file has the hash sha256:{got}, not sha256:{wanted}",
                    hint="It was damaged on its way, or changed meanwhile: send it again.",
                )
            await asyncio.to_thread(fresh.replace, self._staging / wanted)
        finally:
            await asyncio.to_thread(fresh.unlink, missing_ok=True)
        return True

    @asynccontextmanager
    async def placed(self, files: Mapping[str, str]) -> AsyncIterator[Path]:
        """Where an engine loads these files (digests by name): a GGUF, or the folder of other files.

        If the block raises, what was placed goes back. Raises BlobNotFound, InvalidField, UnsafePath.
        """
        folder, moved = await asyncio.to_thread(self._place, files)
        try:
            yield await asyncio.to_thread(_main_file, folder)
        except BaseException:
            await asyncio.to_thread(_take_back, moved, folder)
            raise

    @property
    def _root(self) -> Path:
        return self._settings().effective_reshaped_dir

    @property
    def _staging(self) -> Path:
        return self._root / STAGING

    def _find(self, digest: str) -> Path | None:
        staged = self._staging / digest
        if staged.is_file():
            return staged
        own = self._root / _folder_name([digest])
        return next((path for path in own.iterdir() if path.is_file()), None) if own.is_dir() else None

    def _make_ready(self, declared_bytes: int | None) -> None:
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskFailed(f"{self._staging} cannot be made: {error.strerror}") from error
        _tidy(self._root, self._staging)
        self._check_room(declared_bytes or 0)

    def _check_room(self, need: int) -> None:
        free, reserve = free_bytes(self._staging), self._settings().disk_reserve_bytes
        if need + reserve > free:
            raise no_room("the upload", need, free, reserve, hint=MAKE_ROOM)

    async def _write(self, path: Path, pieces: AsyncIterator[bytes]) -> str:
        """Write what comes, and give its hash. The loop is never held up by the disk."""
        sha256 = hashlib.sha256()
        waiting: list[bytes] = []
        size = 0

        def write(*, is_last: bool = False) -> None:
            try:
                with path.open("ab") as file:
                    for piece in waiting:
                        sha256.update(piece)
                        file.write(piece)
                    if is_last:
                        file.flush()
                        os.fsync(file.fileno())
            except OSError as error:
                if error.errno in FULL:
                    raise DiskFull("the disk is full", hint=MAKE_ROOM) from error
                raise DiskFailed(f"the upload cannot be written: {error.strerror}") from error
            waiting.clear()

        async for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES:
                size = 0
                await asyncio.to_thread(self._check_room, WRITE_BYTES)
                await asyncio.to_thread(write)
        await asyncio.to_thread(write, is_last=True)
        return sha256.hexdigest()

    def _place(self, files: Mapping[str, str]) -> tuple[Path, list[tuple[Path, Path]]]:
        digests = {name: read_digest(digest) for name, digest in files.items()}
        folder = self._root / _folder_name(sorted(digests.values()))
        moved: list[tuple[Path, Path]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, digest in digests.items():
                if "/" in name:
                    raise InvalidField("files", f"{name[:200]!r} is not the name of a file")
                target = safe_join(folder, name)
                source = self._find(digest)
                if source is None:
                    raise BlobNotFound(f"the file sha256:{digest} was not sent here", digest=digest)
                if source.parent == folder:
                    continue
                if not target.exists():
                    source.rename(target)
                    moved.append((source, target))
        except OSError as error:
            _take_back(moved, folder)
            raise DiskFailed(f"the files cannot be placed: {error.strerror}") from error
        except BaseException:
            _take_back(moved, folder)
            raise
        return folder, moved


def _folder_name(digests: list[str]) -> str:
    """One file has a folder of its own hash, several one of all their hashes."""
    if len(digests) == 1:
        return f"sha256-{digests[0]}"
    return f"sha256-{hashlib.sha256(' '.join(digests).encode()).hexdigest()}"


def _main_file(folder: Path) -> Path:
    """The first GGUF that is no projector, or the folder of safetensors files. Raises InvalidField."""
    names = sorted(path.name for path in folder.iterdir())
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if ggufs:
        models = [name for name in ggufs if "mmproj" not in name.lower()]
        return folder / (models or ggufs)[0]
    if any(name.lower().endswith(".safetensors") for name in names):
        return folder
    raise InvalidField("files", "there is no .gguf and no .safetensors file among the files")


def _take_back(moved: list[tuple[Path, Path]], folder: Path) -> None:
    for source, target in moved:
        try:
            target.rename(source)
        except OSError as error:
            log.warning("%s cannot be moved back: %s", target, error)
    try:
        folder.rmdir()
    except OSError:
        log.debug("%s holds other files", folder)


def _tidy(root: Path, staging: Path) -> None:
    """Remove what nobody goes on with: broken-off uploads of a day ago, blobs that were never used, folders
    whose files were deleted.
    """
    now = time.time()
    for folder in root.glob("sha256-*"):
        try:
            folder.rmdir()
        except OSError:
            log.debug("%s holds files", folder)
    for path in staging.iterdir():
        try:
            kept_s = PARTIAL_KEPT_S if path.name.startswith("part-") else KEPT_S
            if now - path.stat().st_mtime > kept_s:
                path.unlink()
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error)
