"""Merging and splitting: the result is the same model, the sources stay, and nothing half-done shows."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy
import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import DiskFull, InvalidField, NotAllowed, OstlerError
from ostler.core.events import EventLog
from ostler.core.principals import LOCAL_ADMIN, Principal, Role
from ostler.core.settings import Settings
from ostler.core.states import JobState
from ostler.jobs.records import Job
from ostler.jobs.service import Jobs
from ostler.library.errors import BrokenFile, UnsafePath
from ostler.library.service import Library
from ostler.reshaping import copying
from ostler.reshaping.copying import compare, write_file
from ostler.reshaping.errors import DifferentTensor, NameTaken, NothingToMerge
from ostler.reshaping.layout import merged
from ostler.reshaping.order import STAGING
from ostler.reshaping.service import Reshaping
from tests.library.gguf_files import Tensor, model_metadata, write_gguf, write_model, write_shards


@dataclass
class Bed:
    """One server's reshaping, with the demo model in three parts in the models folder."""

    reshaping: Reshaping
    jobs: Jobs
    library: Library
    models: Path
    reshaped: Path

    async def merge(self, first: Path, *, to: Path | None = None, name: str | None = None) -> Job:
        """Merge to the end, whatever it is."""
        files = await self.library.inspect(first)
        job = await self.reshaping.merge(files, LOCAL_ADMIN, to=to, name=name)
        return await self.jobs.wait(job.id, 60)

    async def split(self, path: Path, **limits: int) -> Job:
        """Split to the end, whatever it is."""
        files = await self.library.inspect(path)
        job = await self.reshaping.split(files, LOCAL_ADMIN, to=None, name=None, **limits)
        return await self.jobs.wait(job.id, 60)

    @property
    def first(self) -> Path:
        return self.models / "ostler-demo-F16-00001-of-00003.gguf"


@pytest.fixture
async def bed(shared: Path, database: Database, events: EventLog, tmp_path: Path) -> AsyncIterator[Bed]:
    shutil.copytree(shared / "demo-model" / "split", tmp_path / "models")
    settings = Settings(
        data_dir=tmp_path / "data", models_dir=tmp_path / "models", hub_cache_dir=tmp_path / "hub"
    )
    library = Library(database, events, Clock(), settings, "here")
    await library.start()
    jobs = Jobs(database, events, Clock(), "here", "server")
    reshaping = Reshaping(jobs, library, lambda: settings)
    await jobs.start()
    yield Bed(reshaping, jobs, library, tmp_path / "models", settings.effective_reshaped_dir)
    await jobs.stop()


def tensors_of(*paths: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Type, shape and hash by tensor, as the field's own reader sees them."""
    found = {}
    for path in paths:
        for tensor in gguf.GGUFReader(path).tensors:
            data = numpy.ascontiguousarray(tensor.data)
            shape = tuple(int(n) for n in tensor.shape)
            found[tensor.name] = (tensor.tensor_type.name, shape, hashlib.sha256(data.tobytes()).hexdigest())
    return found


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and time of change of every file."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


async def test_merged_parts_are_the_model_that_they_were_split_from(bed: Bed, shared: Path) -> None:
    before = state_of(bed.models)
    job = await bed.merge(bed.first)
    whole = bed.reshaped / "ostler-demo-F16.gguf"
    assert (job.state, job.result and job.result["path"]) == (JobState.SUCCEEDED, str(whole))
    assert tensors_of(whole) == tensors_of(shared / "demo-model" / "ostler-demo-F16.gguf")
    fields = gguf.GGUFReader(whole).fields
    assert not [name for name in fields if name.startswith("split.")]
    assert state_of(bed.models) == before
    assert job.progress["bytes_done"] == job.progress["bytes_total"] > 0


async def test_a_merged_model_is_listed_and_can_be_deleted_by_name(bed: Bed) -> None:
    await bed.merge(bed.first)
    listed = {
        item.name: item for item in (await bed.library.list()).items if item.path.parent == bed.reshaped
    }
    plan = await bed.library.plan_delete(listed["ostler-demo-F16"].id, lambda _: None)
    await bed.library.delete(plan, LOCAL_ADMIN)
    assert not list(bed.reshaped.glob("*.gguf"))
    assert bed.first.exists()


async def test_a_split_model_has_parts_of_at_most_that_size_and_merges_back(
    bed: Bed, demo_model: Path
) -> None:
    whole = shutil.copy(demo_model, bed.models / "demo.gguf")
    job = await bed.split(Path(whole), max_bytes=500_000)
    assert job.result is not None
    parts = [Path(path) for path in job.result["files"]]
    assert len(parts) >= 4
    largest = max(tensor.n_bytes for tensor in gguf.GGUFReader(demo_model).tensors)
    for part in parts:
        assert sum(tensor.n_bytes for tensor in gguf.GGUFReader(part).tensors) <= max(500_000, largest)
    assert tensors_of(*parts) == tensors_of(demo_model)
    found = await bed.library.inspect(parts[0])
    assert (found.complete, len(found.files)) == (True, len(parts))
    again = await bed.merge(parts[0], name="again")
    assert again.result is not None
    assert Path(again.result["path"]).read_bytes() == demo_model.read_bytes()


async def test_splitting_by_tensors_puts_at_most_so_many_into_each_part(bed: Bed, demo_model: Path) -> None:
    job = await bed.split(demo_model, max_tensors=10)
    assert job.result is not None
    counts = [len(gguf.GGUFReader(path).tensors) for path in job.result["files"]]
    assert (max(counts), sum(counts)) == (10, len(gguf.GGUFReader(demo_model).tensors))


async def test_asking_twice_for_the_same_makes_it_once(bed: Bed) -> None:
    first = await bed.merge(bed.first)
    made = (bed.reshaped / "ostler-demo-F16.gguf").stat().st_mtime_ns
    second = await bed.merge(bed.models / "ostler-demo-F16-00002-of-00003.gguf")
    assert first.result and second.result
    assert (first.result["already_here"], second.result["already_here"]) == (False, True)
    assert (bed.reshaped / "ostler-demo-F16.gguf").stat().st_mtime_ns == made


async def test_a_file_of_that_name_is_never_written_over(bed: Bed) -> None:
    bed.reshaped.mkdir(parents=True, exist_ok=True)
    mine = write_model(bed.reshaped / "ostler-demo-F16.gguf")
    before = mine.read_bytes()
    with pytest.raises(NameTaken):
        await bed.merge(bed.first)
    assert mine.read_bytes() == before
    job = await bed.merge(bed.first, name="other")
    assert job.state is JobState.SUCCEEDED


async def test_a_missing_part_is_named(bed: Bed) -> None:
    (bed.models / "ostler-demo-F16-00002-of-00003.gguf").unlink()
    with pytest.raises(BrokenFile, match=r"ostler-demo-F16-00002-of-00003\.gguf missing"):
        await bed.merge(bed.first)
    assert not list(bed.reshaped.iterdir())


async def test_parts_of_two_models_are_refused(bed: Bed) -> None:
    write_shards(bed.models, "mixed", 3, claimed_tensors=1_000)
    with pytest.raises(BrokenFile, match="1000"):
        await bed.merge(bed.models / "mixed-00001-of-00003.gguf")


async def test_a_model_in_one_file_has_nothing_to_merge(bed: Bed, demo_model: Path) -> None:
    with pytest.raises(NothingToMerge):
        await bed.merge(demo_model)


@pytest.mark.parametrize("limit", [{"max_bytes": 10**12}, {"max_tensors": 1_000}])
async def test_a_limit_that_makes_one_part_is_refused(
    bed: Bed, demo_model: Path, limit: dict[str, int]
) -> None:
    with pytest.raises(InvalidField, match="1 part;"):
        await bed.split(demo_model, **limit)


async def test_more_parts_than_llama_cpp_reads_are_refused(bed: Bed) -> None:
    tensors = [Tensor(f"t{n}.weight", (32,), "F32") for n in range(1_000)]
    path = write_gguf(bed.models / "many.gguf", model_metadata(), tensors)
    with pytest.raises(InvalidField, match="1000 parts"):
        await bed.split(path, max_tensors=1)


@pytest.mark.parametrize("name", ["../up", "a/b", " ", ".hidden"])
async def test_a_name_that_is_no_file_name_is_refused(bed: Bed, name: str) -> None:
    with pytest.raises(UnsafePath):
        await bed.merge(bed.first, name=name)


async def test_only_managers_write_files_and_only_administrators_write_outside_the_library(
    bed: Bed, manager: Principal, tmp_path: Path
) -> None:
    files = await bed.library.inspect(bed.first)
    with pytest.raises(NotAllowed):
        await bed.reshaping.merge(files, Principal("somebody", Role.POWER_USER), to=None, name=None)
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(NotAllowed):
        await bed.reshaping.merge(files, manager, to=outside, name=None)
    job = await bed.merge(bed.first, to=outside)
    assert job.result and Path(job.result["path"]).parent == outside


async def test_into_the_models_folder_only_where_that_is_asked_for(bed: Bed) -> None:
    job = await bed.merge(bed.first, to=bed.models, name="whole")
    assert job.result and Path(job.result["path"]) == bed.models / "whole.gguf"
    assert not (bed.models / STAGING).exists()


async def test_a_loose_file_in_the_hub_cache_is_refused(bed: Bed, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with pytest.raises(InvalidField, match="hub-cache"):
        await bed.merge(bed.first, to=tmp_path / "hub")


async def test_without_room_on_the_disk_nothing_is_begun(bed: Bed) -> None:
    path = write_gguf(
        bed.models / "huge.gguf",
        model_metadata(),
        [Tensor(f"t{n}.weight", (1 << 18, 1 << 20), "F32") for n in range(4)],
        sparse=True,
    )
    with pytest.raises(DiskFull) as refused:
        await bed.split(path, max_tensors=1)
    assert refused.value.facts["need_bytes"] >= 4 << 40
    assert (await bed.jobs.list()).total == 0


def test_what_an_earlier_try_wrote_is_gone_on_with(shared: Path, tmp_path: Path) -> None:
    new = merged(sorted((shared / "demo-model" / "split").glob("*.gguf")), "whole.gguf")
    told: list[int] = []
    path = write_file(new, tmp_path, lambda step, n: told.append(n))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    told.clear()
    write_file(new, tmp_path, lambda step, n: told.append(n))
    assert path.read_bytes() == whole
    assert told[0] > len(whole) // 4
    assert sum(told) <= len(whole)


@pytest.mark.parametrize("where", [0, -1])
def test_a_tensor_that_is_not_what_it_was_made_of_is_found(shared: Path, tmp_path: Path, where: int) -> None:
    new = merged(sorted((shared / "demo-model" / "split").glob("*.gguf")), "whole.gguf")
    path = write_file(new, tmp_path, lambda step, n: None)
    compare(new, path, lambda step, n: None)
    damaged = bytearray(path.read_bytes())
    damaged[new.pieces[where].at] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DifferentTensor, match=new.pieces[where].name):
        compare(new, path, lambda step, n: None)


async def test_what_was_spoilt_before_a_restart_ends_in_an_error_and_no_file(bed: Bed) -> None:
    files = await bed.library.inspect(bed.first)
    await bed.jobs.stop()
    job = await bed.reshaping.merge(files, LOCAL_ADMIN, to=None, name=None)
    staging = bed.reshaped / STAGING / job.dedupe_key
    staging.mkdir(parents=True)
    new = merged([file.path for file in files.files], "ostler-demo-F16.gguf")
    path = write_file(new, staging, lambda step, n: None)
    damaged = bytearray(path.read_bytes())
    damaged[new.pieces[3].at] ^= 1
    path.write_bytes(damaged)
    await bed.jobs.start()
    ended = await bed.jobs.wait(job.id, 60)
    assert ended.state is JobState.FAILED
    assert ended.error and new.pieces[3].name in ended.error["message"]
    assert not list(bed.reshaped.glob("*.gguf"))


async def test_a_cancelled_merge_leaves_nothing_behind(bed: Bed) -> None:
    files = await bed.library.inspect(bed.first)
    await bed.jobs.stop()
    job = await bed.reshaping.merge(files, LOCAL_ADMIN, to=None, name=None)
    staging = bed.reshaped / STAGING / job.dedupe_key
    staging.mkdir(parents=True)
    (staging / "ostler-demo-F16.gguf").write_bytes(b"GGUF")
    await bed.jobs.cancel(job.id, LOCAL_ADMIN)
    await bed.jobs.start()
    assert (await bed.jobs.wait(job.id, 60)).state is JobState.CANCELLED
    assert not list(bed.reshaped.rglob("*"))


async def test_two_merges_at_once_for_the_same_are_one_job(bed: Bed) -> None:
    files = await bed.library.inspect(bed.first)
    jobs = await asyncio.gather(
        *(bed.reshaping.merge(files, LOCAL_ADMIN, to=None, name=None) for _ in range(5))
    )
    assert len({job.id for job in jobs}) == 1


def test_a_name_that_was_taken_meanwhile_is_left_alone(tmp_path: Path) -> None:
    staged, target = tmp_path / "staging" / "m.gguf", tmp_path / "m.gguf"
    staged.parent.mkdir()
    staged.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(OstlerError, match="already"):
        copying.put_in_place([staged], tmp_path)
    assert (target.read_bytes(), staged.read_bytes()) == (b"old", b"new")
