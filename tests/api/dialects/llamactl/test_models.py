"""Downloads and cached models in llamactl's API."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostler.core.principals import LOCAL_ADMIN
from tests.api.conftest import Api, MakeApi
from tests.api.dialects.llamactl.shapes import failure
from tests.hub.server import HubServer

REPO = "org/tiny-GGUF"
BASES = ("//api/v1/backends/llama-cpp/models", "//api/v1/models")
BASE = BASES[0]


@pytest.fixture
async def llamactl(make_api: MakeApi, hub_server: HubServer, tmp_path: Path, demo_model: Path) -> Api:
    """A server whose hub has a small repo with two quantizations."""
    data = demo_model.read_bytes()
    hub_server.add_repo(
        REPO,
        {"tiny-Q8_0.gguf": data, "tiny-Q4_K_M.gguf": data + bytes(32), "preset.ini": b"[*]\n"},
    )
    return await make_api(
        offline=False,
        hf_endpoint=hub_server.endpoint,
        llama_cache_dir=tmp_path / "flat",
        disk_reserve_bytes=0,
        download_retries=1,
    )


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return tmp_path / "flat"


async def asked(api: Api, repo: str, base: str = BASE, **more: Any) -> str:
    """The id of a download's job."""
    answer = await api("POST", f"{base}/download", {"repo": repo, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def over(api: Api, job_id: str, base: str = BASE) -> dict[str, Any]:
    """The job once it is over."""
    await api.services.jobs.wait(job_id, 30)
    job: dict[str, Any] = (await api.get(f"{base}/jobs/{job_id}")).json()
    return job


async def pulled(api: Api, repo: str, **more: Any) -> dict[str, Any]:
    job = await over(api, await asked(api, repo, **more))
    assert job["status"] == "completed", job
    return job


Answers = Callable[..., Awaitable[httpx2.Response]]


async def test_nothing_here_is_an_empty_list_and_no_null(llamactl: Api) -> None:
    for base in BASES:
        for path in (base, f"{base}/"):
            assert (await llamactl.get(path)).text == "[]\n"
        assert (await llamactl.get(f"{base}/jobs")).text == '{"jobs":[]}\n'


@pytest.mark.parametrize("base", BASES)
async def test_a_download_is_a_job_that_ends_in_a_listed_model(llamactl: Api, flat: Path, base: str) -> None:
    answer = await llamactl("POST", f"{base}/download", {"repo": f"{REPO}:Q8_0"})
    assert answer.status_code == 202
    job_id = answer.json()["job_id"]
    assert answer.json() == {"job_id": job_id, "repo": REPO, "tag": "Q8_0"}
    assert len(job_id) == 16 and int(job_id, 16) >= 0
    job = await over(llamactl, job_id, base)
    path = flat / "org_tiny-GGUF_tiny-Q8_0.gguf"
    size = path.stat().st_size
    assert job == {
        "id": job_id,
        "repo": REPO,
        "tag": "Q8_0",
        "status": "completed",
        "progress": {"bytes_downloaded": size, "total_bytes": size, "current_file": "tiny-Q8_0.gguf"},
        "created_at": job["created_at"],
        "completed_at": job["completed_at"],
        "model_path": str(path),
    }
    assert (await llamactl.get(f"{base}/jobs")).json() == {"jobs": [job]}
    preset = flat / "org_tiny-GGUF_preset.ini"
    (model,) = (await llamactl.get(base)).json()
    files = [
        {
            "name": file.name,
            "path": str(file),
            "size": file.stat().st_size,
            "size_bytes": file.stat().st_size,
            "modified": int(file.stat().st_mtime),
            "type": kind,
        }
        for file, kind in ((path, "gguf"), (preset, "preset"))
    ]
    total = size + 4
    assert model == {
        "node": "main",
        "repo": REPO,
        "tag": "Q8_0",
        "files": files,
        "total_size": total,
        "size_bytes": total,
        "file_count": 2,
    }


async def test_without_a_tag_it_is_latest_also_in_the_answer(llamactl: Api, flat: Path) -> None:
    answer = await llamactl("POST", f"{BASE}/download", {"repo": REPO})
    assert answer.json()["tag"] == "latest"
    await over(llamactl, answer.json()["job_id"])
    assert [model["tag"] for model in (await llamactl.get(BASE)).json()] == ["latest"]


async def test_a_request_that_is_none_is_refused_with_400(llamactl: Api) -> None:
    for repo in (
        "tiny",
        "a/b/c",
        "../etc",
        "org/..",
        "org/a:b/c",
        "/",
        "org/",
        "/x",
        "org/x:..",
        "a b/c",
        "",
    ):
        failure(await llamactl("POST", f"{BASE}/download", {"repo": repo}), 400, "invalid_request")
    assert failure(await llamactl("POST", f"{BASE}/download", {}), 400)["details"] == "repo is required"
    for body in ({"repo": 7}, {"repo": REPO, "format": "zip"}, {"repo": REPO, "format": 1}):
        failure(await llamactl("POST", f"{BASE}/download", body), 400, "invalid_request")
    failure(await llamactl("POST", f"{BASE}/download", content=b"{"), 400, "invalid_request")
    assert (await llamactl.get(f"{BASE}/jobs")).json() == {"jobs": []}


async def test_what_the_hub_does_not_have_is_a_failed_job_with_a_reason(llamactl: Api) -> None:
    for repo in ("org/nothing:Q8_0", f"{REPO}:Q2_K"):
        job = await over(llamactl, await asked(llamactl, repo))
        assert job["status"] == "failed" and repo.partition(":")[0] in job["error"]
        assert "model_path" not in job and job["completed_at"] >= job["created_at"]
    assert (await llamactl.get(BASE)).json() == []


async def test_safetensors_go_to_the_hub_cache_and_are_listed_too(
    llamactl: Api, hub_server: HubServer, shared: Path
) -> None:
    folder = shared / "demo-model" / "hf"
    hub_server.add_repo("org/tiny", {path.name: path for path in folder.iterdir()})
    job = await pulled(llamactl, "org/tiny", base=BASES[1], format="safetensors")
    assert job["tag"] == "main" and (Path(job["model_path"]) / "model.safetensors").is_file()
    await pulled(llamactl, f"{REPO}:Q8_0")
    listed = {(model["repo"], model["tag"]): model for model in (await llamactl.get(BASE)).json()}
    assert listed.keys() == {("org/tiny", "main"), (REPO, "Q8_0")}
    assert listed["org/tiny", "main"]["file_count"] == len(list(folder.iterdir()))
    deleted = await llamactl("DELETE", BASE, params={"repo": "org/tiny", "tag": "main"})
    assert deleted.status_code == 204
    assert not Path(job["model_path"]).exists()


async def test_a_cancelled_job_stays_cancelled(llamactl: Api, hub_server: HubServer) -> None:
    for base, number in ((BASES[0], 0), (BASES[1], 1)):
        stall = hub_server.faults.stall("/cdn/*", after_bytes=1000)
        job_id = await asked(llamactl, f"{REPO}:Q8_0")
        await asyncio.to_thread(stall.reached.wait, 10)
        assert (await llamactl.get(f"{base}/jobs/{job_id}")).json()["status"] == "downloading"
        assert (await llamactl("DELETE", f"{base}/jobs/{job_id}")).status_code == 204
        stall.release()
        job = await over(llamactl, job_id)
        assert job["status"] == "cancelled" and "error" not in job and job["completed_at"]
        assert len((await llamactl.get(f"{base}/jobs")).json()["jobs"]) == number + 1
    assert (await llamactl.get(BASE)).json() == []


async def test_a_job_that_is_over_cannot_be_cancelled_and_is_forgotten_by_the_later_path(
    llamactl: Api,
) -> None:
    job = await pulled(llamactl, f"{REPO}:Q8_0")
    refused = failure(await llamactl("DELETE", f"{BASES[0]}/jobs/{job['id']}"), 409, "cannot_cancel")
    assert refused["details"] == "cannot cancel job with status: completed"
    assert (await llamactl("DELETE", f"{BASES[1]}/jobs/{job['id']}")).status_code == 204
    for method in ("GET", "DELETE"):
        gone = failure(await llamactl(method, f"{BASES[1]}/jobs/{job['id']}"), 404, "job_not_found")
        assert gone["details"] == f"job not found: {job['id']}"
    assert len((await llamactl.get(BASE)).json()) == 1, "the files stay"


async def test_deleting_one_tag_keeps_what_another_needs(llamactl: Api, flat: Path, demo_model: Path) -> None:
    await pulled(llamactl, f"{REPO}:Q8_0")
    await pulled(llamactl, f"{REPO}:Q4_K_M")
    await pulled(llamactl, REPO)
    latest = flat / "org_tiny-GGUF_tiny-Q4_K_M.gguf"
    assert (await llamactl("DELETE", BASE, params={"repo": REPO, "tag": "Q4_K_M"})).status_code == 204
    assert latest.is_file(), "latest means the same file"
    assert (await llamactl("DELETE", BASE, params={"repo": REPO, "tag": "latest"})).status_code == 204
    assert not latest.exists() and not latest.with_suffix(".gguf.etag").exists()
    assert (flat / "org_tiny-GGUF_preset.ini").is_file(), "Q8_0 is still there"
    (left,) = (await llamactl.get(BASE)).json()
    assert left["tag"] == "Q8_0"
    assert (await llamactl("DELETE", f"{BASE}/", params={"repo": REPO.upper()})).status_code == 204
    assert list(flat.iterdir()) == []
    blobs = (llamactl.data_dir / "hub").rglob("*")
    assert not any(path.is_file() for path in blobs), "the disk has its bytes back"


async def test_deleting_what_is_not_there_is_404(llamactl: Api) -> None:
    await pulled(llamactl, f"{REPO}:Q8_0")
    gone = await llamactl("DELETE", BASE, params={"repo": REPO, "tag": "Q2_K"})
    assert failure(gone, 404, "model_not_found")["details"] == f"model not found: {REPO}:Q2_K"
    for repo in ("org/other", "../..", "org/tiny-GGUF/..", "*"):
        failure(await llamactl("DELETE", BASE, params={"repo": repo}), 404, "model_not_found")
    assert failure(await llamactl("DELETE", BASE), 400, "invalid_request")["details"] == "repo is required"
    assert len((await llamactl.get(BASE)).json()) == 1


async def test_nothing_is_deleted_while_it_is_downloaded(llamactl: Api, hub_server: HubServer) -> None:
    await pulled(llamactl, f"{REPO}:Q8_0")
    stall = hub_server.faults.stall("/cdn/*", after_bytes=1000)
    job_id = await asked(llamactl, f"{REPO}:Q4_K_M")
    await asyncio.to_thread(stall.reached.wait, 10)
    for query in ({"repo": REPO}, {"repo": REPO, "tag": "q4_k_m"}):
        failure(await llamactl("DELETE", BASE, params=query), 409, "model_busy")
    assert (await llamactl("DELETE", BASE, params={"repo": REPO, "tag": "Q8_0"})).status_code == 204
    stall.release()
    assert (await over(llamactl, job_id))["status"] == "completed"


async def test_nothing_is_deleted_while_a_model_runs_on_it(llamactl: Api, flat: Path) -> None:
    job = await pulled(llamactl, f"{REPO}:Q8_0")
    services = llamactl.services
    model = await llamactl.model(Path(job["model_path"]), "by-path")
    await services.instances.start(model.id, LOCAL_ADMIN)
    failure(await llamactl("DELETE", BASE, params={"repo": REPO}), 409, "file_in_use")
    assert Path(job["model_path"]).is_file()
    await services.instances.stop(model.id, LOCAL_ADMIN)
    assert (await llamactl("DELETE", BASE, params={"repo": REPO})).status_code == 204
    assert not Path(job["model_path"]).exists()


async def test_files_of_others_are_left_alone(llamactl: Api, flat: Path, demo_model: Path) -> None:
    flat.mkdir()
    foreign = flat / "ai_smollm2_latest.gguf"
    shutil.copy(demo_model, foreign)
    (flat / "manifest=org=gone=latest.json").write_text('{"ggufFile": {"rfilename": "gone.gguf"}}')
    (flat / "manifest=org=odd=latest.json").write_text("{")
    (flat / "manifest=org=out=latest.json").write_text('{"ggufFile": {"rfilename": "../../etc/passwd"}}')
    (flat / "org_broken_b.gguf").symlink_to(flat / "nothing")
    (flat / "org_link_l.gguf").symlink_to("/etc/passwd")
    (flat / "manifest=org=broken=latest.json").write_text('{"ggufFile": {"rfilename": "b.gguf"}}')
    (flat / "manifest=org=link=latest.json").write_text('{"ggufFile": {"rfilename": "l.gguf"}}')
    assert (await llamactl.get(BASE)).json() == []
    await pulled(llamactl, f"{REPO}:Q8_0")
    assert [model["repo"] for model in (await llamactl.get(BASE)).json()] == [REPO]
    orphan = await llamactl("DELETE", BASE, params={"repo": "org/gone"})
    assert orphan.status_code == 204, "what a download that failed elsewhere left can be removed"
    await llamactl("DELETE", BASE, params={"repo": REPO})
    assert foreign.is_file() and (flat / "org_link_l.gguf").is_symlink()


async def test_what_llama_cpp_fetched_itself_is_listed_and_deleted(
    llamactl: Api, flat: Path, demo_model: Path
) -> None:
    flat.mkdir()
    (flat / "manifest=them=model-GGUF=Q8_0.json").write_text('{"ggufFile": {"rfilename": "m-Q8_0.gguf"}}')
    shutil.copy(demo_model, flat / "them_model-GGUF_m-Q8_0.gguf")
    (model,) = (await llamactl.get(BASE)).json()
    assert (model["repo"], model["tag"], model["file_count"]) == ("them/model-GGUF", "Q8_0", 1)
    assert (
        await llamactl("DELETE", BASE, params={"repo": "them/model-GGUF", "tag": "Q8_0"})
    ).status_code == 204
    assert list(flat.iterdir()) == []


async def test_two_snapshots_of_one_file_are_one_model_and_go_together(
    llamactl: Api, hub_server: HubServer
) -> None:
    services = llamactl.services
    for _ in range(2):
        job = await services.downloads.pull(f"{REPO}:Q8_0", principal=LOCAL_ADMIN)
        await services.jobs.wait(job.id, 30)
        hub_server.repos[REPO].commit({"README.md": os.urandom(8)})
    (model,) = (await llamactl.get(BASE)).json()
    assert (model["tag"], model["file_count"]) == ("Q8_0", 1)
    assert (await llamactl("DELETE", BASE, params={"repo": REPO, "tag": "Q8_0"})).status_code == 204
    assert (await llamactl.get(BASE)).json() == []


async def test_downloads_that_others_asked_for_are_jobs_here_too(llamactl: Api) -> None:
    job = await llamactl.services.downloads.pull(f"{REPO}:Q8_0", principal=LOCAL_ADMIN)
    told = await over(llamactl, job.id)
    assert (told["repo"], told["tag"], told["status"]) == (REPO, "Q8_0", "completed")


async def test_only_this_node_is_asked(llamactl: Api) -> None:
    for node in ("main", llamactl.services.node):
        assert (await llamactl.get(BASE, node=node)).status_code == 200
    answers = [
        await llamactl.get(BASE, node="other"),
        await llamactl("POST", f"{BASE}/download?node=other", {"repo": REPO}),
        await llamactl("DELETE", BASE, params={"repo": REPO, "node": "other"}),
        await llamactl.get(f"{BASE}/jobs", node="other"),
    ]
    for answer in answers:
        failure(answer, 404, "node_not_found")
