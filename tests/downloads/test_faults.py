"""Whatever goes wrong on the way, what is placed is right, and what is not right is not placed."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import psutil
import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.core.states import JobState
from ostler.downloads.fetch import PART_BYTES
from tests.downloads.conftest import Bed, MakeBed
from tests.hub.repos import HubRepo
from tests.hub.server import HubServer

pytestmark = pytest.mark.real

DATA = os.urandom(1_500_000)
SPEC = "org/tiny-GGUF:Q8_0"
FILE = "tiny-Q8_0.gguf"


@pytest.fixture
def repo(hub_server: HubServer) -> HubRepo:
    return hub_server.add_repo("org/tiny-GGUF", {FILE: DATA})


async def pulled_right(bed: Bed) -> None:
    job = await bed.pulled(SPEC)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.result is not None and Path(job.result["path"]).read_bytes() == DATA
    assert not (bed.cache / ".ostler-staging").exists()


@pytest.mark.parametrize("after", [-1, 0, 1, 65_537, len(DATA) // 2, len(DATA) - 1])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_connection_cut_at_any_byte_is_taken_up_there(
    bed: Bed, hub_server: HubServer, repo: HubRepo, after: int, reset: bool
) -> None:
    cut = hub_server.faults.cut("*.gguf", host="cdn", after_bytes=after, reset=reset)
    await pulled_right(bed)
    assert cut.struck == 1
    asked = hub_server.requests_for("/cdn/*", method="GET", host="cdn")
    assert len(asked) == 2
    if after > 0 and not reset:  # after a reset, what was on its way may be lost
        assert asked[1].range == f"bytes={after}-{len(DATA) - 1}"


async def test_the_wait_that_the_hub_asks_for_is_kept(bed: Bed, hub_server: HubServer, repo: HubRepo) -> None:
    hub_server.faults.status("*resolve*", status=429, retry_after=1, method="GET")
    await pulled_right(bed)
    first, second, *_ = hub_server.requests_for("*resolve*", method="GET", host="hub")
    assert second.time - first.time >= 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_an_error_of_the_server_is_tried_again(
    bed: Bed, hub_server: HubServer, repo: HubRepo, status: int
) -> None:
    hub_server.faults.status("*resolve*", status=status, method="GET", times=2)
    await pulled_right(bed)


async def test_a_storage_address_is_used_until_it_has_run_out_and_then_asked_for_again(
    make_bed: MakeBed, hub_server: HubServer
) -> None:
    bed = await make_bed(download_connections=1)
    data = os.urandom(1 << 20) * (3 * PART_BYTES // (1 << 20))
    hub_server.add_repo("org/tiny-GGUF", {FILE: data})
    hub_server.faults.status("/cdn/*", host="cdn", status=403, method="GET", nth=2)
    job = await bed.pulled(SPEC)
    assert job.result is not None and Path(job.result["path"]).read_bytes() == data
    assert len(hub_server.requests_for("*resolve*", method="GET", host="hub")) == 2
    assert len(hub_server.requests_for("/cdn/*", method="GET", host="cdn")) == 4


async def test_a_server_that_stays_broken_ends_in_a_failure_that_keeps_what_came(
    make_bed: MakeBed, hub_server: HubServer, repo: HubRepo
) -> None:
    bed = await make_bed(download_retries=2)
    cut = hub_server.faults.cut("*.gguf", host="cdn", after_bytes=100_000)
    hub_server.faults.status("/cdn/*", host="cdn", status=503, nth=2, times=3, method="GET")
    job = await bed.pulled(SPEC)
    assert cut.struck == 1 and job.state is JobState.FAILED
    assert job.error is not None and job.error["code"] == "hub_busy" and "503" in job.error["message"]
    assert bed.visible() == []
    await bed.jobs.retry(job.id, LOCAL_ADMIN)
    assert (await bed.jobs.wait(job.id, 30)).state is JobState.SUCCEEDED
    assert (
        hub_server.requests_for("/cdn/*", method="GET", host="cdn")[-1].range
        == f"bytes=100000-{len(DATA) - 1}"
    )


async def test_wrong_bytes_are_noticed_and_the_file_is_fetched_again(
    bed: Bed, hub_server: HubServer, repo: HubRepo
) -> None:
    hub_server.faults.wrong_bytes("*.gguf", host="cdn", at=777_777, count=1)
    await pulled_right(bed)


async def test_bytes_that_stay_wrong_are_an_error_and_nothing_is_placed(
    bed: Bed, hub_server: HubServer, repo: HubRepo
) -> None:
    wrong = hub_server.faults.wrong_bytes("*.gguf", host="cdn", at=5, count=1, times=None)
    job = await bed.pulled(SPEC)
    assert job.error is not None and job.error["code"] == "wrong_contents" and FILE in job.error["message"]
    assert wrong.struck == 2
    assert bed.visible() == [] and not list(bed.cache.glob("models--*/blobs/*"))


async def test_a_small_file_with_wrong_bytes_is_noticed_too(bed: Bed, hub_server: HubServer) -> None:
    hub_server.add_repo("org/tiny", {"config.json": b'{"a": 1}', "model.safetensors": DATA})
    wrong = hub_server.faults.wrong_bytes("*config.json", count=1)
    job = await bed.pulled("org/tiny")
    assert wrong.struck == 1 and job.result is not None, job.error
    assert (Path(job.result["path"]) / "config.json").read_bytes() == b'{"a": 1}'


async def test_a_silent_connection_is_given_up_and_taken_up_again(
    make_bed: MakeBed, hub_server: HubServer, repo: HubRepo
) -> None:
    bed = await make_bed(download_timeout_s=0.5)
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    await pulled_right(bed)
    assert stalled.struck == 1


async def test_a_connection_that_only_drips_is_given_up_and_taken_up_again(
    make_bed: MakeBed, hub_server: HubServer, repo: HubRepo
) -> None:
    bed = await make_bed(download_timeout_s=0.5)
    hub_server.faults.drip("*.gguf", host="cdn", bytes_per_s=200, chunk_bytes=20)
    await pulled_right(bed)
    second = hub_server.requests_for("/cdn/*", method="GET", host="cdn")[1]
    assert second.range is not None and not second.range.startswith("bytes=0-")


async def test_a_server_that_ignores_ranges_is_asked_for_the_whole_file_once(
    bed: Bed, hub_server: HubServer
) -> None:
    data = os.urandom(1 << 20) * (2 * PART_BYTES // (1 << 20)) + b"the end"
    hub_server.add_repo("org/tiny-GGUF", {FILE: data})
    hub_server.faults.no_ranges("*.gguf")
    job = await bed.pulled(SPEC)
    assert job.result is not None and Path(job.result["path"]).read_bytes() == data
    # Each of the three parts may find it out for itself; only one connection then asks for all of it.
    assert len(hub_server.requests_for("/cdn/*", method="GET", host="cdn")) <= 3 + 1


async def test_a_big_file_comes_over_several_connections(bed: Bed, hub_server: HubServer) -> None:
    data = os.urandom(1 << 20) * (2 * PART_BYTES // (1 << 20)) + b"the end"
    hub_server.add_repo("org/tiny-GGUF", {FILE: data})
    slow = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=1000)
    job = await bed.downloads.pull(SPEC, principal=LOCAL_ADMIN)
    await asyncio.to_thread(hub_server.wait_for_request, "/cdn/*", count=3)
    slow.release()
    over = await bed.jobs.wait(job.id, 30)
    assert over.result is not None and Path(over.result["path"]).read_bytes() == data


async def test_the_limit_of_bandwidth_is_kept(
    make_bed: MakeBed, hub_server: HubServer, repo: HubRepo
) -> None:
    bed = await make_bed(download_rate_limit=1_000_000)
    begun = time.monotonic()
    await pulled_right(bed)
    assert time.monotonic() - begun >= 1.0  # at least: 1.5 MB at 1 MB/s, the last chunk not waited for


async def test_a_redirect_in_a_circle_is_an_error(bed: Bed, hub_server: HubServer, repo: HubRepo) -> None:
    path = f"/org/tiny-GGUF/resolve/{repo.head}/{FILE}"
    hub_server.faults.redirect(path, f"{path}?again", times=None)
    job = await bed.pulled(SPEC)
    assert job.error is not None and job.error["code"] == "hub_error"


async def test_a_file_that_is_gone_is_an_error_that_is_not_tried_again(
    bed: Bed, hub_server: HubServer, repo: HubRepo
) -> None:
    gone = hub_server.faults.status("*resolve*", status=404, times=None, method="GET")
    job = await bed.pulled(SPEC)
    assert job.error is not None and job.error["code"] == "no_such_file" and gone.struck == 1


async def test_while_a_file_is_missing_nothing_of_its_set_is_visible(bed: Bed, hub_server: HubServer) -> None:
    names = [f"tiny-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    hub_server.add_repo("org/tiny-GGUF", {name: os.urandom(100_000) for name in names})
    stalled = hub_server.faults.stall(f"*{names[1]}", host="cdn", after_bytes=1000)
    job = await bed.downloads.pull(SPEC, principal=LOCAL_ADMIN)
    await asyncio.to_thread(stalled.reached.wait, 10)
    async with asyncio.timeout(20):
        while not list(bed.cache.glob("models--*/blobs/*")):
            await asyncio.sleep(0.01)
    assert bed.visible() == []
    stalled.release()
    await bed.jobs.wait(job.id, 30)
    assert bed.visible() == names


async def test_the_token_stands_in_no_log_no_row_and_no_argument(
    make_bed: MakeBed,
    hub_server: HubServer,
    repo: HubRepo,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    bed = await make_bed(hf_token="hf_secret")
    hub_server.add_token("hf_secret")
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=1000)
    hub_server.faults.status("*resolve*", status=503, method="GET")
    job = await bed.downloads.pull(SPEC, principal=LOCAL_ADMIN)
    await asyncio.to_thread(stalled.reached.wait, 10)
    (worker,) = [p for p in psutil.Process().children() if "ostler.downloads.worker" in p.cmdline()]
    assert "hf_secret" not in str(worker.cmdline()) + str(worker.environ())
    stalled.release()
    over = await bed.jobs.wait(job.id, 30)
    assert over.state is JobState.SUCCEEDED
    assert "hf_secret" not in str(over) + caplog.text
