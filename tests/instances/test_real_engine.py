"""The real thing: llama.cpp as a process, with the demo model."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pyreqwest.client import ClientBuilder

from ostler.core.database import Database
from ostler.core.principals import LOCAL_ADMIN
from ostler.instances.errors import StartFailed, WillNotFit
from ostler.runtimes.process import ProcessRuntime
from tests.fit.small_models import Sizes, write_model
from tests.instances.conftest import House, running_house

pytestmark = pytest.mark.real


@pytest.fixture
async def real(database: Database, tmp_path: Path, models_dir: Path) -> AsyncIterator[House]:
    runtime = ProcessRuntime(tmp_path / "engines", 1_000_000)
    async with running_house(database, tmp_path, runtime) as house:
        yield house
        await house.instances.stop_all(LOCAL_ADMIN, now=True)


async def test_the_engine_answers_through_a_lease_with_its_own_key_only(real: House) -> None:
    model = await real.add("a")
    lease = await real.lease(model)
    async with ClientBuilder().build() as client:
        url = lease.base_url + "/v1/chat/completions"
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        refused = await client.post(url).body_json(body).build().send()
        answer = await client.post(url).bearer_auth(lease.api_key).body_json(body).build().send()
    lease.release()
    assert refused.status == 401
    assert (await answer.json())["choices"]
    view = real.instances.view(model.id)
    assert view.memory_bytes is not None and view.memory_bytes > 10_000_000


async def test_what_it_takes_is_measured_and_kept(real: House) -> None:
    model = await real.add("a")
    (await real.lease(model)).release()
    await real.instances.stop("a", LOCAL_ADMIN)
    report = await real.instances.memory_of(model)
    assert report is not None and report["exactness"] == "measured" and report["has_served"]
    host = report["devices"][-1]
    assert host["id"] == "cpu" and host["measured_bytes"] > 10_000_000 and report["load_seconds"][0] > 0


async def test_a_file_that_is_cut_short_after_the_create_is_a_failure_in_words(
    real: House, models_dir: Path
) -> None:
    await real.add("a")
    whole = (models_dir / "a.gguf").read_bytes()
    (models_dir / "a.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Exception, match=r".") as caught:
        await real.instances.start("a", LOCAL_ADMIN)
    assert getattr(caught.value, "hint", None)
    assert real.instances.views()[0].state == "failed"


async def test_an_engine_that_refuses_its_options_says_why_in_its_last_lines(real: House) -> None:
    await real.add("a", options={"lora": ["/no/such/adapter.gguf"]})
    with pytest.raises(StartFailed) as caught:
        await real.instances.start("a", LOCAL_ADMIN)
    failure = caught.value.failure
    assert failure.exit_code not in (None, 0)
    assert failure.log_tail
    assert "exit code" in failure.reason


async def test_the_real_engine_killed_while_serving_is_started_again(real: House) -> None:
    model = await real.add("a")
    first = await real.instances.start("a", LOCAL_ADMIN)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    failed = await real.until("instance.failed")
    assert failed.data["exit_code"] == -9
    lease = await real.lease(model)
    lease.release()
    assert real.instances.view(model.id).pid != first.pid


async def test_its_log_can_be_followed_until_it_stops(real: House) -> None:
    await real.add("a")
    await real.instances.start("a", LOCAL_ADMIN)
    log = real.instances.logs("a", tail=None, follow=True)
    assert await anext(log)
    await real.instances.stop("a", LOCAL_ADMIN)
    rest = [line async for line in log]
    assert rest


async def test_what_is_chosen_really_runs_and_so_does_the_way_out_of_a_refusal(
    database: Database, tmp_path: Path, models_dir: Path
) -> None:
    sizes = Sizes(n_embd=512, heads=8, kv_heads=8, head=64, n_ff=256, vocab=2_000, context=65_536)
    write_model(models_dir, "llama", sizes).rename(models_dir / "d.gguf")
    runtime = ProcessRuntime(tmp_path / "engines", 1_000_000)
    settings = {"devices": "cpu:512MiB", "device_reserve": "0"}
    async with running_house(database, tmp_path, runtime, settings=settings) as house:
        model = await house.add("d")
        (chosen,) = (await house.instances.dry_run("d")).chosen
        assert chosen["name"] == "context_length" and 8192 < chosen["value"] < 65_536
        lease = await house.lease(model)
        async with ClientBuilder().build() as client:
            answer = await client.get(f"{lease.base_url}/props").bearer_auth(lease.api_key).build().send()
        assert (await answer.json())["default_generation_settings"]["n_ctx"] == chosen["value"]
        lease.release()
        view = house.instances.view(model.id)
        assert view.memory_bytes and view.estimated_bytes
        assert abs(view.memory_bytes - view.estimated_bytes) < 0.15 * view.estimated_bytes

        await house.instances.stop("d", LOCAL_ADMIN)
        await house.models.update("d", {"options": {"context_length": 65_536}}, LOCAL_ADMIN)
        with pytest.raises(WillNotFit) as refused:
            await house.instances.start("d", LOCAL_ADMIN)
        fitting = refused.value.facts["context_length_that_fits"]
        await house.models.update("d", {"options": {"context_length": fitting}}, LOCAL_ADMIN)
        await house.instances.start("d", LOCAL_ADMIN)
        assert house.state(model) == "running"
        await house.instances.stop_all(LOCAL_ADMIN, now=True)


async def test_the_context_of_one_request_is_told_and_a_longer_prompt_is_refused_not_cut(real: House) -> None:
    model = await real.add("a", options={"context_length": 1024, "parallel": 2, "kv_unified": False})
    lease = await real.lease(model)
    async with asyncio.timeout(20):
        while (told := real.instances.view(model.id).context_length) is None:
            await asyncio.sleep(0.01)
    assert told == 512, "each of two slots has a half"
    async with ClientBuilder().build() as client:
        body = {"model": "a", "messages": [{"role": "user", "content": "word " * 600}], "max_tokens": 4}
        request = client.post(lease.base_url + "/v1/chat/completions").bearer_auth(lease.api_key)
        answer = await request.body_json(body).build().send()
        said = (await answer.json())["error"]
    lease.release()
    assert answer.status == 400
    assert "exceed" in said["message"] and "512" in said["message"]
