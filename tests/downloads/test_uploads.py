"""Files that clients send: kept whole or not at all, and placed where the library lists them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ostler.core.errors import DiskFull, InvalidField, NotAllowed
from ostler.core.principals import LOCAL_ADMIN, Principal
from ostler.core.settings import Settings
from ostler.downloads.uploads import KEPT_S, BlobNotFound, Uploads, WrongDigest
from ostler.library.errors import UnsafePath

CONTENT = b"GGUF" + bytes(range(256)) * 64


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def pieces(content: bytes, *, broken_after: int | None = None) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), 1000):
        if broken_after is not None and begin >= broken_after:
            raise ConnectionError("the client went")
        yield content[begin : begin + 1000]


def uploads(tmp_path: Path, *, reserve: int = 0) -> Uploads:
    settings = Settings(data_dir=tmp_path, hub_cache_dir=tmp_path / "hub", disk_reserve_bytes=reserve)
    return Uploads(lambda: settings)


async def send(to: Uploads, content: bytes) -> str:
    digest = digest_of(content)
    await to.receive(digest, pieces(content), len(content), LOCAL_ADMIN)
    return digest


def everything(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "reshaped").rglob("*") if path.is_file())


async def test_a_file_is_kept_once_and_under_its_hash(tmp_path: Path) -> None:
    here = uploads(tmp_path)
    digest = digest_of(CONTENT)
    assert not await here.has(digest)
    assert await here.receive(digest, pieces(CONTENT), None, LOCAL_ADMIN) is True
    assert await here.has(digest) and everything(tmp_path) == [digest[7:]]
    assert await here.receive(digest.replace(":", "-"), pieces(b""), None, LOCAL_ADMIN) is False
    with pytest.raises(InvalidField):
        await here.has("sha256:../../etc/passwd")


async def test_what_is_damaged_broken_off_or_not_allowed_leaves_nothing(
    tmp_path: Path, user: Principal
) -> None:
    here = uploads(tmp_path)
    with pytest.raises(WrongDigest, match="hash"):
        await here.receive(digest_of(b"other"), pieces(CONTENT), None, LOCAL_ADMIN)
    with pytest.raises(ConnectionError):
        await here.receive(digest_of(CONTENT), pieces(CONTENT, broken_after=5000), None, LOCAL_ADMIN)
    with pytest.raises(NotAllowed):
        await here.receive(digest_of(CONTENT), pieces(CONTENT), None, user)
    assert everything(tmp_path) == []


async def test_a_file_that_has_no_room_is_refused_before_its_first_byte(tmp_path: Path) -> None:
    here = uploads(tmp_path, reserve=2**60)

    with pytest.raises(DiskFull):
        await here.receive(digest_of(CONTENT), pieces(CONTENT, broken_after=0), len(CONTENT), LOCAL_ADMIN)


async def test_files_get_their_names_together_and_the_main_one_is_said(tmp_path: Path) -> None:
    here = uploads(tmp_path)
    files = {"m-00001-of-00002.gguf": b"GGUF1", "m-00002-of-00002.gguf": b"GGUF2", "mmproj-m.gguf": b"GGUF3"}
    sent = {name: await send(here, content) for name, content in files.items()}
    async with here.placed(sent) as path:
        assert path.name == "m-00001-of-00002.gguf"
        assert {file.name for file in path.parent.iterdir()} == files.keys()
    assert everything(tmp_path) == sorted(files)
    single = await send(here, CONTENT)
    async with here.placed({"one.gguf": single}):
        pass
    async with here.placed({"another.gguf": single}) as path:  # the same file again: it stays where it is
        assert path.name == "one.gguf" and await here.has(single)
    safetensors = {name: await send(here, name.encode()) for name in ("config.json", "model.safetensors")}
    async with here.placed(safetensors) as path:
        assert path.is_dir()


async def test_what_fails_after_placing_goes_back(tmp_path: Path) -> None:
    here = uploads(tmp_path)
    digest = await send(here, CONTENT)
    with pytest.raises(RuntimeError):
        async with here.placed({"one.gguf": digest}):
            raise RuntimeError("the model could not be made")
    assert everything(tmp_path) == [digest[7:]] and await here.has(digest)
    for files, error in (
        ({"one.gguf": digest, "two.gguf": digest_of(b"never sent")}, BlobNotFound),
        ({"../one.gguf": digest}, InvalidField),
        ({"..": digest}, UnsafePath),
        ({"readme.txt": digest}, InvalidField),
    ):
        with pytest.raises(error):
            async with here.placed(files):
                pass
        assert everything(tmp_path) == [digest[7:]]


async def test_what_nobody_used_for_a_week_is_removed(tmp_path: Path) -> None:
    here = uploads(tmp_path)
    old = await send(here, CONTENT)
    staged = tmp_path / "reshaped" / ".uploads" / old[7:]
    os.utime(staged, (0, staged.stat().st_mtime - KEPT_S - 60))
    fresh = await send(here, b"GGUF fresh")
    assert not await here.has(old) and await here.has(fresh)
