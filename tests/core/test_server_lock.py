"""One server per data directory, and clients find it."""

import os
from pathlib import Path

import pytest

from ostler.core.server_lock import DataDirInUse, DataDirUnusable, ServerLock, read_server_info


def test_a_second_server_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    first = ServerLock(tmp_path / "data")
    first.take()
    first.publish({"pid": 4711, "url": "http://127.0.0.1:11500"})
    with pytest.raises(DataDirInUse, match=r"pid 4711 at http://127\.0\.0\.1:11500"):
        ServerLock(tmp_path / "data").take()
    first.release()
    assert read_server_info(tmp_path / "data") is None
    ServerLock(tmp_path / "data").take()


def test_a_first_server_that_does_not_listen_yet_is_named_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"pid": 1, "url": "http://127.0.0.1:1"}')  # left by one that died
    ServerLock(tmp_path).take()
    with pytest.raises(DataDirInUse, match=rf"pid {os.getpid()} \(it is starting\)"):
        ServerLock(tmp_path).take()


def test_the_data_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    ServerLock(tmp_path / "deep" / "data").take()
    assert (tmp_path / "deep" / "data").stat().st_mode & 0o777 == 0o700


def test_a_data_directory_that_cannot_be_made_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirUnusable, match="cannot be written") as caught:
        ServerLock(tmp_path / "file" / "data").take()
    assert "--data-dir" in str(caught.value.hint)


def test_a_note_that_is_not_json_is_no_note(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text(f"{os.getpid()}}}")
    assert read_server_info(tmp_path) is None
