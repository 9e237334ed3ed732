"""A data directory on a read-only file system."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import ServerProcess

pytestmark = pytest.mark.real


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system that nobody can write to, root neither."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a file system cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_server_on_a_read_only_data_directory_says_so_and_what_to_do(read_only: Path) -> None:
    for folder in (read_only, read_only / "data"):
        code, said = ServerProcess(folder).refused()
        assert code == 5
        assert "cannot be written: Read-only file system" in said and "--data-dir" in said
        assert "Traceback" not in said
