"""A pull brings the files of a spec into the hub cache as other programs know it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from ostler.core.errors import DiskFull, NotAllowed, Offline
from ostler.core.principals import LOCAL_ADMIN, Principal
from ostler.core.settings import Settings
from ostler.core.states import JobState
from ostler.hub.errors import RepoNotFound
from tests.downloads.conftest import Bed, MakeBed
from tests.hub.server import HubServer

SMALL = os.urandom(300_000)
SPEC = "org/tiny-GGUF:Q8_0"
FILE = "tiny-Q8_0.gguf"


async def test_what_was_pulled_is_found_by_huggingface_hub(
    bed: Bed, hub_server: HubServer, demo_model: Path
) -> None:
    repo = hub_server.add_repo("org/tiny-GGUF", {FILE: demo_model, "README.md": b"# Tiny"})
    job = await bed.pulled(SPEC)
    assert job.state is JobState.SUCCEEDED and job.result is not None
    assert Path(job.result["path"]).read_bytes() == demo_model.read_bytes()
    assert job.result["commit"] == repo.head and job.result["bytes"] == demo_model.stat().st_size
    assert job.progress["bytes_done"] == job.progress["bytes_total"] == demo_model.stat().st_size
    scanned = scan_cache_dir(bed.cache)
    assert not scanned.warnings and [found.repo_id for found in scanned.repos] == ["org/tiny-GGUF"]
    found = hf_hub_download("org/tiny-GGUF", FILE, cache_dir=bed.cache, local_files_only=True)
    assert found == job.result["path"] and not Path(found).readlink().is_absolute()


async def test_the_library_lists_what_was_pulled(bed: Bed, hub_server: HubServer, demo_model: Path) -> None:
    hub_server.add_repo("org/tiny-GGUF", {FILE: demo_model})
    assert (await bed.library.list()).total == 0
    await bed.pulled(SPEC)
    assert [item.repo for item in (await bed.library.list()).items] == ["org/tiny-GGUF"]


async def test_small_files_are_checked_by_their_git_hash_and_come_with_the_model(
    bed: Bed, hub_server: HubServer, demo_model: Path
) -> None:
    files = {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "model.safetensors": SMALL}
    hub_server.add_repo("org/tiny", files)
    job = await bed.pulled("org/tiny")
    assert job.result is not None, job.error
    assert {path.name: path.read_bytes() for path in Path(job.result["path"]).iterdir()} == files


async def test_a_second_pull_of_what_is_here_fetches_nothing(bed: Bed, hub_server: HubServer) -> None:
    hub_server.add_repo("org/tiny-GGUF", {FILE: SMALL})
    await bed.pulled(SPEC)
    before = len(hub_server.requests_for("*resolve*"))
    again = await bed.pulled(SPEC)
    assert again.result is not None and again.result["already_here"]
    assert len(hub_server.requests_for("*resolve*")) == before


async def test_contents_that_a_former_commit_brought_are_not_fetched_again(
    bed: Bed, hub_server: HubServer
) -> None:
    repo = hub_server.add_repo("org/tiny-GGUF", {FILE: SMALL})
    await bed.pulled(SPEC)
    commit = repo.commit({"README.md": b"news"})
    job = await bed.pulled(SPEC)
    assert job.result is not None and (job.result["commit"], job.result["fetched_bytes"]) == (commit, 0)
    assert (bed.cache / "models--org--tiny-GGUF/refs/main").read_text() == commit
    assert len(list((bed.cache / "models--org--tiny-GGUF/blobs").iterdir())) == 1


async def test_the_same_spec_asked_twice_is_one_job(bed: Bed, hub_server: HubServer) -> None:
    hub_server.add_repo("org/tiny-GGUF", {FILE: SMALL})
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=1000)
    first = await bed.downloads.pull(SPEC, principal=LOCAL_ADMIN)
    again = await bed.downloads.pull(f"hf.co/org/tiny-GGUF:{FILE}", principal=LOCAL_ADMIN)
    assert again.id == first.id
    stalled.release()
    assert (await bed.jobs.wait(first.id, 30)).state is JobState.SUCCEEDED


async def test_the_plan_says_what_is_here_already_and_what_is_missing(
    bed: Bed, hub_server: HubServer
) -> None:
    hub_server.add_repo("org/tiny-GGUF", {FILE: SMALL})
    plan = await bed.downloads.plan(SPEC, principal=LOCAL_ADMIN)
    assert (plan.total_bytes, plan.have_bytes, plan.need_bytes) == (len(SMALL), 0, len(SMALL))
    assert plan.fits_disk and not plan.complete and not bed.cache.exists()
    await bed.pulled(SPEC)
    plan = await bed.downloads.plan(SPEC, principal=LOCAL_ADMIN)
    assert plan.need_bytes == 0 and plan.complete and Path(plan.target).is_file()


async def test_no_byte_is_fetched_when_the_disk_would_be_too_full(
    make_bed: MakeBed, hub_server: HubServer
) -> None:
    bed = await make_bed(disk_reserve_bytes=1 << 60)
    hub_server.add_repo("org/tiny-GGUF", {FILE: SMALL})
    with pytest.raises(DiskFull) as caught:
        await bed.downloads.pull(SPEC, principal=LOCAL_ADMIN)
    assert caught.value.facts["need_bytes"] == len(SMALL)
    assert not hub_server.requests_for("*resolve*")


async def test_offline_mode_makes_no_call(make_bed: MakeBed, hub_server: HubServer) -> None:
    bed = await make_bed(offline=True)
    with pytest.raises(Offline):
        await bed.downloads.pull(SPEC, principal=LOCAL_ADMIN)
    assert not hub_server.requests


async def test_a_user_may_not_download(bed: Bed, hub_server: HubServer, user: Principal) -> None:
    with pytest.raises(NotAllowed):
        await bed.downloads.pull(SPEC, principal=user)
    assert not hub_server.requests


async def test_the_token_goes_to_the_hub_and_not_to_the_host_it_redirects_to(
    make_bed: MakeBed, hub_server: HubServer
) -> None:
    bed = await make_bed(hf_token="hf_good")
    hub_server.add_repo("org/tiny-GGUF", {FILE: SMALL}, gated="manual", token="hf_good")
    assert (await bed.pulled(SPEC)).state is JobState.SUCCEEDED
    assert {request.token for request in hub_server.requests_for("*resolve*", host="hub")} == {"hf_good"}
    elsewhere = hub_server.requests_for(host="cdn")
    assert elsewhere and all(request.token is None for request in elsewhere)
    assert not any("hf_good" in str(request.headers) for request in elsewhere)


async def test_a_model_with_a_token_of_its_own_fetches_with_it_and_others_do_not(
    make_bed: MakeBed, hub_server: HubServer
) -> None:
    bed = await make_bed(tokens={7: "hf_own"}, hf_token="hf_server")
    hub_server.add_repo("org/tiny-GGUF", {FILE: SMALL}, gated="manual", private=True, token="hf_own")
    hub_server.add_token("hf_server")
    with pytest.raises(RepoNotFound):
        await bed.pulled(SPEC)
    asked_before = len(hub_server.requests)
    job = await bed.pulled(SPEC, for_model=7)
    assert job.state is JobState.SUCCEEDED, job.error
    assert {request.token for request in hub_server.requests[asked_before:]} == {"hf_own", None}
    assert {request.token for request in hub_server.requests_for(host="cdn")} == {None}
    assert "hf_own" not in str(job), "no token is kept with a job"


async def test_a_gated_repo_fails_with_where_to_ask(bed: Bed, hub_server: HubServer) -> None:
    hub_server.add_repo("org/tiny-GGUF", {FILE: SMALL}, gated="manual")
    try:
        job = await bed.pulled(SPEC)
    except NotAllowed as error:  # the hub's own room may notice first
        assert "HF_TOKEN" in (error.hint or "") or "access" in (error.hint or "")
        return
    assert job.error is not None and job.error["code"] == "gated_repo"
    assert "org/tiny-GGUF" in job.error["hint"]


async def test_a_renamed_repo_is_found_under_its_new_name(bed: Bed, hub_server: HubServer) -> None:
    hub_server.add_repo("org/old-GGUF", {FILE: SMALL})
    hub_server.rename("org/old-GGUF", "org/tiny-GGUF")
    job = await bed.pulled("org/old-GGUF:Q8_0")
    assert job.result is not None and job.result["repo"] == "org/tiny-GGUF"


async def test_a_commit_that_moves_during_the_download_never_mixes_revisions(
    bed: Bed, hub_server: HubServer
) -> None:
    names = [f"tiny-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    old = {name: os.urandom(200_000) for name in names}
    repo = hub_server.add_repo("org/tiny-GGUF", old)
    commit = repo.head
    hub_server.faults.run("*resolve*", lambda: repo.commit({name: os.urandom(200_000) for name in names}))
    job = await bed.pulled(SPEC)
    assert job.result is not None and job.result["commit"] == commit != repo.head
    assert [Path(path).read_bytes() for path in job.result["files"]] == [old[name] for name in names]


async def test_a_hub_that_serves_another_commit_is_not_believed(bed: Bed, hub_server: HubServer) -> None:
    repo = hub_server.add_repo("org/tiny-GGUF", {FILE: SMALL})
    old = repo.head
    job_commit = repo.commit({FILE: os.urandom(300_000)})
    hub_server.faults.redirect(f"*resolve/{job_commit}/*", f"/org/tiny-GGUF/resolve/{old}/{FILE}", times=None)
    job = await bed.pulled(SPEC)
    assert job.error is not None and job.error["code"] == "changed_on_hub"
    assert f"commit {old}" in job.error["message"]
    assert bed.visible() == []


def test_the_settings_of_these_tests_reach_no_other_hub(hub_server: HubServer) -> None:
    assert Settings(hf_endpoint=hub_server.endpoint).hf_endpoint.startswith("http://127.0.0.1:")
