"""Pulling what a tag means into llama.cpp's flat cache."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from ostler.core.errors import OstlerError
from ostler.core.principals import LOCAL_ADMIN
from ostler.core.states import JobState
from ostler.jobs.records import Job
from tests.downloads.conftest import Bed, MakeBed
from tests.hub.repos import HubRepo
from tests.hub.server import HubServer

pytestmark = pytest.mark.real

DATA = os.urandom(300_000)
MORE = os.urandom(200_000)
REPO = "org/tiny-GGUF"


@pytest.fixture
async def bed(make_bed: MakeBed, tmp_path: Path) -> Bed:
    return await make_bed(llama_cache_dir=tmp_path / "flat", download_retries=1)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return tmp_path / "flat"


@pytest.fixture
def repo(hub_server: HubServer) -> HubRepo:
    return hub_server.add_repo(
        REPO,
        {
            "sub/tiny-Q8_0.gguf": DATA,
            "tiny-Q4_K_M.gguf": MORE,
            "mmproj-tiny-f16.gguf": b"projector",
            "preset.ini": b"[*]\nctx-size = 512\n",
        },
    )


async def pulled(bed: Bed, tag: str = "Q8_0", repo: str = REPO) -> Job:
    job = await bed.downloads.pull_tag(repo, tag, principal=LOCAL_ADMIN)
    return await bed.jobs.wait(job.id, 60)


async def failed(bed: Bed, tag: str = "Q8_0", repo: str = REPO) -> str:
    """The code of the error that the pull ends with."""
    job = await pulled(bed, tag, repo)
    assert job.state is JobState.FAILED and job.error is not None, job
    assert job.error["message"] and job.error["code"] != "internal", job.error
    return str(job.error["code"])


def names(folder: Path) -> list[str]:
    """What lies in the flat cache, without the folders of newer programs."""
    return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.exists() else []


async def test_a_tag_is_placed_under_llama_cpps_names(
    bed: Bed, hub_server: HubServer, repo: HubRepo, flat: Path
) -> None:
    assert not flat.exists(), "the folder is not made before something goes there"
    job = await pulled(bed)
    assert job.state is JobState.SUCCEEDED, job.error
    assert names(flat) == [
        "manifest=org=tiny-GGUF=Q8_0.json",
        "org_tiny-GGUF_mmproj-tiny-f16.gguf",
        "org_tiny-GGUF_mmproj-tiny-f16.gguf.etag",
        "org_tiny-GGUF_preset.ini",
        "org_tiny-GGUF_tiny-Q8_0.gguf",
        "org_tiny-GGUF_tiny-Q8_0.gguf.etag",
    ]
    model = flat / "org_tiny-GGUF_tiny-Q8_0.gguf"
    assert job.result is not None and job.result["path"] == str(model) and model.read_bytes() == DATA
    assert (flat / f"{model.name}.etag").read_text() == f'"{repo.blob("sub/tiny-Q8_0.gguf").sha256}"'
    assert (flat / "org_tiny-GGUF_preset.ini").read_bytes() == b"[*]\nctx-size = 512\n"
    manifest = json.loads((flat / "manifest=org=tiny-GGUF=Q8_0.json").read_bytes())
    assert manifest["ggufFile"]["rfilename"] == "sub/tiny-Q8_0.gguf"
    (asked,) = hub_server.requests_for("/v2/*")
    assert asked.path == "/v2/org/tiny-GGUF/manifests/Q8_0" and "llama-cpp" in asked.headers["user-agent"]


async def test_the_bytes_are_on_the_disk_once_and_in_the_hub_cache_too(
    bed: Bed, repo: HubRepo, flat: Path
) -> None:
    await pulled(bed)
    snapshot = bed.cache / "models--org--tiny-GGUF" / "snapshots" / repo.head
    model = flat / "org_tiny-GGUF_tiny-Q8_0.gguf"
    assert (snapshot / "sub/tiny-Q8_0.gguf").samefile(model)
    beside = flat / "models--org--tiny-GGUF"
    assert (beside / "snapshots" / repo.head / "sub/tiny-Q8_0.gguf").samefile(model)
    assert (beside / "refs/main").read_text() == repo.head
    listed = (await bed.library.list()).items
    assert {item.layout for item in listed} == {"hub-cache"}, "one model, listed once"
    assert [root.layout for root in await bed.library.roots()][-1] == "llama-cache"


async def test_a_repeated_pull_checks_and_fetches_nothing(
    bed: Bed, hub_server: HubServer, repo: HubRepo, flat: Path
) -> None:
    await pulled(bed)
    before = len(hub_server.requests_for("*resolve*.gguf"))
    job = await pulled(bed)
    assert job.result is not None and job.result["already_here"] and job.result["fetched_bytes"] == 0
    assert len(hub_server.requests_for("/v2/*")) == 2
    assert len(hub_server.requests_for("*resolve*.gguf")) == before


async def test_what_changed_on_the_hub_is_fetched_anew(bed: Bed, repo: HubRepo, flat: Path) -> None:
    await pulled(bed)
    repo.commit({"sub/tiny-Q8_0.gguf": MORE})
    job = await pulled(bed)
    assert job.result is not None and job.result["fetched_bytes"] == len(MORE), job
    model = flat / "org_tiny-GGUF_tiny-Q8_0.gguf"
    assert model.read_bytes() == MORE
    assert (flat / f"{model.name}.etag").read_text() == f'"{repo.blob("sub/tiny-Q8_0.gguf").sha256}"'


async def test_a_file_that_is_gone_is_brought_back(bed: Bed, repo: HubRepo, flat: Path) -> None:
    await pulled(bed)
    model = flat / "org_tiny-GGUF_tiny-Q8_0.gguf"
    model.unlink()
    job = await pulled(bed)
    assert job.result is not None and job.result["fetched_bytes"] == 0 and model.read_bytes() == DATA
    model.unlink()
    for blob in (bed.cache / "models--org--tiny-GGUF" / "blobs").iterdir():
        blob.unlink()
    job = await pulled(bed)
    assert job.result is not None and job.result["fetched_bytes"] >= len(DATA) and model.read_bytes() == DATA


async def test_what_another_program_fetched_into_the_flat_cache_is_used(
    bed: Bed, hub_server: HubServer, repo: HubRepo, flat: Path
) -> None:
    flat.mkdir()
    model = flat / "org_tiny-GGUF_tiny-Q8_0.gguf"
    model.write_bytes(DATA)
    job = await pulled(bed)
    assert job.state is JobState.SUCCEEDED, job.error
    assert hub_server.requests_for("/cdn/*tiny-Q8_0.gguf") == []
    assert (bed.cache / f"models--org--tiny-GGUF/snapshots/{repo.head}/sub/tiny-Q8_0.gguf").samefile(model)


async def test_a_file_of_another_program_with_other_contents_is_not_believed(
    bed: Bed, repo: HubRepo, flat: Path
) -> None:
    flat.mkdir()
    model = flat / "org_tiny-GGUF_tiny-Q8_0.gguf"
    model.write_bytes(os.urandom(len(DATA)))
    assert (await pulled(bed)).state is JobState.SUCCEEDED
    assert model.read_bytes() == DATA


async def test_all_parts_of_a_split_model_come_from_their_folder(
    bed: Bed, hub_server: HubServer, flat: Path
) -> None:
    parts = {f"q/m-Q8_0-{n:05}-of-00003.gguf": os.urandom(50_000) for n in (1, 2, 3)}
    hub_server.add_repo("org/split", parts)
    job = await pulled(bed, "latest", "org/split")
    assert job.state is JobState.SUCCEEDED, job.error
    for path, data in parts.items():
        assert (flat / f"org_split_{path.rpartition('/')[2]}").read_bytes() == data
    assert names(flat)[0] == "manifest=org=split=latest.json"


async def test_two_requests_for_one_tag_are_one_job_and_two_doors_fetch_it_once(
    bed: Bed, hub_server: HubServer, repo: HubRepo, flat: Path
) -> None:
    stall = hub_server.faults.stall("*tiny-Q8_0.gguf", host="cdn", after_bytes=1000)
    first = await bed.downloads.pull_tag(REPO, "Q8_0", principal=LOCAL_ADMIN)
    again = await bed.downloads.pull_tag(REPO, "q8_0", principal=LOCAL_ADMIN)
    assert again.id == first.id
    await asyncio.to_thread(stall.reached.wait, 10)
    other = await bed.downloads.pull(f"{REPO}:Q8_0", principal=LOCAL_ADMIN)
    assert other.id != first.id
    stall.release()
    for job in (first, other):
        assert (await bed.jobs.wait(job.id, 30)).state is JobState.SUCCEEDED
    assert sum(request.bytes_sent for request in hub_server.requests_for("/cdn/*tiny-Q8_0.gguf")) == len(DATA)


async def test_cancelling_one_of_two_doors_leaves_the_other_its_files(
    bed: Bed, hub_server: HubServer, repo: HubRepo
) -> None:
    stall = hub_server.faults.stall("*tiny-Q8_0.gguf", host="cdn", after_bytes=1000)
    first = await bed.downloads.pull_tag(REPO, "Q8_0", principal=LOCAL_ADMIN)
    await asyncio.to_thread(stall.reached.wait, 10)
    other = await bed.downloads.pull(f"{REPO}:Q8_0", principal=LOCAL_ADMIN)
    async with asyncio.timeout(20):
        while (await bed.jobs.get(other.id)).state is not JobState.RUNNING:
            await asyncio.sleep(0.02)
    assert (await bed.jobs.cancel(first.id, LOCAL_ADMIN)).state is JobState.CANCELLED
    stall.release()
    assert (await bed.jobs.wait(other.id, 30)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("tag", ["Q2_K", "main"])
async def test_an_unknown_tag_fails_the_job(bed: Bed, repo: HubRepo, tag: str, flat: Path) -> None:
    assert await failed(bed, tag) == "no_such_file"
    assert names(flat) == []


async def test_repos_that_cannot_be_pulled_fail_the_job_with_a_reason(
    bed: Bed, hub_server: HubServer, flat: Path
) -> None:
    hub_server.add_repo("org/empty", {})
    hub_server.add_repo("org/text", {"README.md": b"hello"})
    hub_server.add_repo("org/gated", {"m-Q8_0.gguf": DATA}, gated=True, token="hf_good")
    hub_server.add_repo("org/private", {"m-Q8_0.gguf": DATA}, private=True, token="hf_good")
    hub_server.add_repo("org/part", {"m-Q8_0-00001-of-00003.gguf": DATA, "m-Q8_0-00003-of-00003.gguf": DATA})
    assert await failed(bed, "latest", "org/nothing") == "repo_not_found"
    assert await failed(bed, "latest", "org/empty") == "no_such_file"
    assert await failed(bed, "latest", "org/text") == "no_such_file"
    assert await failed(bed, "latest", "org/gated") == "gated_repo"
    assert await failed(bed, "latest", "org/private") == "repo_not_found"
    assert await failed(bed, "latest", "org/part") == "incomplete_repo"
    assert names(flat) == []


async def test_a_token_opens_gated_and_private_repos_and_goes_to_the_hub_only(
    make_bed: MakeBed, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.add_repo("org/private", {"m-Q8_0.gguf": DATA}, private=True, gated="manual", token="hf_good")
    bed = await make_bed(llama_cache_dir=tmp_path / "flat", hf_token="hf_good")
    assert (await pulled(bed, "latest", "org/private")).state is JobState.SUCCEEDED
    assert all(request.token == "hf_good" for request in hub_server.requests_for("*", host="hub"))
    assert all(request.token is None for request in hub_server.requests_for("*", host="cdn"))


async def test_a_renamed_repo_keeps_the_name_that_was_asked_for(
    bed: Bed, hub_server: HubServer, repo: HubRepo, flat: Path
) -> None:
    hub_server.rename(REPO, "org/small-GGUF")
    assert (await pulled(bed)).state is JobState.SUCCEEDED
    assert "manifest=org=tiny-GGUF=Q8_0.json" in names(flat)


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        ({"schemaVersion": 2}, "unsupported_repo"),
        ({"ggufFile": {"rfilename": "../../etc/passwd"}}, "untrusted_answer"),
        ({"ggufFile": {"rfilename": "nothing.gguf"}}, "no_such_file"),
        ({"ggufFile": {"rfilename": 7}}, "untrusted_answer"),
        ([], "untrusted_answer"),
    ],
)
async def test_a_manifest_is_not_believed(
    bed: Bed, hub_server: HubServer, repo: HubRepo, flat: Path, manifest: object, code: str
) -> None:
    hub_server.faults.edit("/v2/*", lambda _: manifest)
    assert await failed(bed) == code
    assert names(flat) == []


@pytest.mark.parametrize("path", ["/v2/*", "/api/models/*", "*resolve*.gguf", "/cdn/*"])
async def test_a_hub_that_is_down_at_any_step_fails_the_job_and_lists_nothing(
    bed: Bed, hub_server: HubServer, repo: HubRepo, flat: Path, path: str
) -> None:
    hub_server.faults.status(path, status=503, times=None)
    assert await failed(bed) in ("hub_busy", "hub_error")
    assert names(flat) == [] and bed.visible() == []
    hub_server.faults.clear()
    assert (await pulled(bed)).state is JobState.SUCCEEDED


async def test_a_preset_that_cannot_be_had_is_left_out(
    bed: Bed, hub_server: HubServer, repo: HubRepo, flat: Path
) -> None:
    hub_server.faults.status("*preset.ini", status=404, times=None)
    assert (await pulled(bed)).state is JobState.SUCCEEDED
    assert "org_tiny-GGUF_preset.ini" not in names(flat)


@pytest.mark.parametrize("where", ["/v2/*", "/api/models/*", "/cdn/*"])
async def test_a_job_cancelled_at_any_step_stays_cancelled_and_leaves_nothing(
    bed: Bed, hub_server: HubServer, repo: HubRepo, flat: Path, where: str
) -> None:
    stall = hub_server.faults.stall(where, after_bytes=-1)
    job = await bed.downloads.pull_tag(REPO, "Q8_0", principal=LOCAL_ADMIN)
    await asyncio.to_thread(stall.reached.wait, 10)
    cancelled = await bed.jobs.cancel(job.id, LOCAL_ADMIN)
    stall.release()
    assert cancelled.state is JobState.CANCELLED and cancelled.error is None
    assert (await bed.jobs.get(job.id)).state is JobState.CANCELLED
    assert names(flat) == [] and bed.visible() == []
    assert not (bed.cache / ".ostler-staging").exists()


async def test_a_job_goes_on_after_a_restart(
    bed: Bed, make_bed: MakeBed, hub_server: HubServer, repo: HubRepo, flat: Path
) -> None:
    stall = hub_server.faults.stall("*tiny-Q8_0.gguf", host="cdn", after_bytes=100_000)
    job = await bed.downloads.pull_tag(REPO, "Q8_0", principal=LOCAL_ADMIN)
    async with asyncio.timeout(20):
        while (await bed.jobs.get(job.id)).progress.get("bytes_done", 0) < 100_000:
            await asyncio.sleep(0.02)
    await bed.jobs.stop()
    stall.release()
    again = await make_bed(llama_cache_dir=flat)
    over = await again.jobs.wait(job.id, 30)
    assert over.state is JobState.SUCCEEDED and over.result is not None, over.error
    assert over.result["fetched_bytes"] < len(DATA) + len(b"projector")


async def test_a_cache_that_cannot_be_written_fails_the_job(bed: Bed, repo: HubRepo, flat: Path) -> None:
    flat.write_text("a file")
    assert await failed(bed) == "disk_failed"


@pytest.mark.parametrize(
    ("repo_name", "tag"), [("tiny", "x"), ("a/b/c", "x"), ("a/..", "x"), ("a/b", "x/y"), ("a/b", "..")]
)
async def test_names_that_cannot_be_are_refused_before_there_is_a_job(
    bed: Bed, repo_name: str, tag: str
) -> None:
    with pytest.raises(OstlerError) as refused:
        await bed.downloads.pull_tag(repo_name, tag, principal=LOCAL_ADMIN)
    assert refused.value.code == "bad_spec"


async def test_the_flat_cache_may_be_the_hub_cache(
    make_bed: MakeBed, hub_server: HubServer, repo: HubRepo, tmp_path: Path
) -> None:
    bed = await make_bed(hub_cache_dir=tmp_path / "one", llama_cache_dir=tmp_path / "one")
    assert (await pulled(bed)).state is JobState.SUCCEEDED
    assert (tmp_path / "one" / "org_tiny-GGUF_tiny-Q8_0.gguf").read_bytes() == DATA
    listed = (await bed.library.list()).items
    assert {item.layout for item in listed} == {"hub-cache"}
