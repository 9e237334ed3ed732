"""A disk that fills during a download, on a real small file system (needs root for the mount)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.core.states import JobState
from tests.downloads.conftest import MakeBed, make_bed
from tests.hub.server import HubServer

__all__ = ["make_bed"]  # a fixture of the downloads' tests

pytestmark = pytest.mark.real

SPEC = "org/tiny-GGUF:Q8_0"
DATA = os.urandom(3 << 20)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 4 MB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_disk_that_fills_fails_the_job_and_what_came_is_used_once_there_is_room(
    make_bed: MakeBed, hub_server: HubServer, small_disk: Path
) -> None:
    hub_server.add_repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": DATA})
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=1 << 20)
    bed = await make_bed(hub_cache_dir=small_disk / "hub", download_retries=1)
    job = await bed.downloads.pull(SPEC, principal=LOCAL_ADMIN)
    async with asyncio.timeout(20):
        while (await bed.jobs.get(job.id)).progress.get("bytes_done", 0) < 1 << 20:
            await asyncio.sleep(0.02)
    other_program = small_disk / "other-program"
    with pytest.raises(OSError, match="No space left"):
        other_program.write_bytes(bytes(8 << 20))
    stalled.release()
    over = await bed.jobs.wait(job.id, 30)
    assert over.state is JobState.FAILED and over.error is not None, over
    assert over.error["code"] == "disk_full" and over.error["hint"]
    assert bed.visible() == []
    other_program.unlink()
    await bed.jobs.retry(job.id, LOCAL_ADMIN)
    over = await bed.jobs.wait(job.id, 30)
    assert over.result is not None and Path(over.result["path"]).read_bytes() == DATA
    assert 0 < over.result["fetched_bytes"] <= len(DATA) - (1 << 20)


async def test_a_disk_that_fills_while_files_get_their_flat_names_lists_no_model_until_there_is_room(
    make_bed: MakeBed, hub_server: HubServer, small_disk: Path
) -> None:
    hub_server.add_repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": DATA})
    bed = await make_bed(llama_cache_dir=small_disk / "flat")
    other_program = small_disk / "other-program"
    with pytest.raises(OSError, match="No space left"):
        other_program.write_bytes(bytes(8 << 20))
    job = await bed.downloads.pull_tag("org/tiny-GGUF", "Q8_0", principal=LOCAL_ADMIN)
    over = await bed.jobs.wait(job.id, 30)
    assert over.state is JobState.FAILED and over.error is not None, over
    assert over.error["code"] == "disk_full" and over.error["hint"]
    assert list(small_disk.glob("flat/manifest*")) == []
    other_program.unlink()
    await bed.jobs.retry(job.id, LOCAL_ADMIN)
    over = await bed.jobs.wait(job.id, 30)
    assert over.result is not None and over.result["fetched_bytes"] == 0, over.error
    model = Path(over.result["path"])
    assert model.read_bytes() == DATA and model.is_symlink(), "on another disk it is a link to the blob"
    assert [path.name for path in small_disk.glob("flat/.ostler-*")] == []
