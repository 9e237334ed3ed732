"""The contract of runtimes: every runtime must pass these tests.

A test module makes a fixture `subject` that gives a `Subject`, and a class that inherits
`RuntimeContract`. The engine that is launched is `stand_in.py` with scripted manners.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import pytest
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import RequestError

from ostler.core.launch import Handle, LaunchSpec
from ostler.runtimes.base import LaunchFailed, Runtime


class MakeSpec(Protocol):
    def __call__(self, *manners: str, model_id: int = 1, secret_env: tuple[str, ...] = ()) -> LaunchSpec: ...


@dataclass
class Subject:
    """A runtime under test.

    `spec` makes a launch spec of the stand-in engine with these manners; `again` gives a runtime as a
    restarted server would have it; `broken_spec` names a program that does not exist.
    """

    runtime: Runtime
    spec: MakeSpec
    again: Callable[[], Runtime]
    broken_spec: LaunchSpec


async def ask(handle: Handle, path: str) -> tuple[int, str]:
    """One request to the engine."""
    async with ClientBuilder().build() as client:
        response = await client.get(handle.url + path).build().send()
        return response.status, await response.text()


async def up(handle: Handle) -> None:
    """Return when the engine says ready."""
    async with asyncio.timeout(20):
        while True:
            try:
                if (await ask(handle, "/health"))[0] == 200:
                    return
            except RequestError:
                pass
            await asyncio.sleep(0.01)


async def lines(stream: AsyncIterator[str]) -> list[str]:
    """All lines of a log that ends."""
    async with asyncio.timeout(20):
        return [line async for line in stream]


class RuntimeContract:
    async def test_a_launched_engine_answers_at_its_url(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec(), instance_id=1, secrets={})
        await up(handle)
        seen = await subject.runtime.inspect(handle)
        assert seen.is_alive
        assert not seen.port_taken
        assert seen.memory_bytes is None or seen.memory_bytes > 0

    async def test_launch_does_not_wait_until_the_engine_is_ready(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec("--load-s", "-1"), instance_id=1, secrets={})
        assert (await subject.runtime.inspect(handle)).is_alive

    async def test_two_engines_have_two_addresses(self, subject: Subject) -> None:
        first = await subject.runtime.launch(subject.spec(), instance_id=1, secrets={})
        second = await subject.runtime.launch(subject.spec(model_id=2), instance_id=2, secrets={})
        assert first.url != second.url
        await up(first)
        await up(second)

    async def test_an_engine_that_ends_by_itself_is_exited_with_its_code(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec("--exit-code", "3"), instance_id=1, secrets={})
        seen = await asyncio.wait_for(subject.runtime.wait_exit(handle), 20)
        assert (seen.state, seen.exit_code, seen.oom_killed) == ("exited", 3, False)
        assert (await subject.runtime.inspect(handle)).exit_code == 3

    async def test_an_engine_that_is_killed_is_exited_by_a_signal(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec(), instance_id=1, secrets={})
        await up(handle)
        waiting = asyncio.create_task(subject.runtime.wait_exit(handle))
        with pytest.raises(RequestError):
            await ask(handle, "/kill?signal=9")
        seen = await asyncio.wait_for(waiting, 20)
        assert seen.state == "exited"
        assert seen.exit_code in (-9, 137)

    async def test_stop_lets_the_engine_end_by_itself(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec(), instance_id=1, secrets={})
        await up(handle)
        await subject.runtime.stop(handle, grace_s=20)
        assert not (await subject.runtime.inspect(handle)).is_alive
        assert (await lines(subject.runtime.logs(handle, tail_lines=None, follow=False)))[-1] == "bye"
        with pytest.raises(RequestError):
            await ask(handle, "/health")

    async def test_stop_kills_an_engine_that_does_not_listen(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec("--ignore-term"), instance_id=1, secrets={})
        await up(handle)
        await asyncio.wait_for(subject.runtime.stop(handle, grace_s=0.1), 20)
        assert not (await subject.runtime.inspect(handle)).is_alive

    async def test_stop_of_what_is_gone_succeeds(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec(), instance_id=1, secrets={})
        await subject.runtime.stop(handle, grace_s=0)
        await subject.runtime.stop(handle, grace_s=0)
        assert (await subject.again().inspect(handle)).state == "gone"

    async def test_a_stopped_engine_is_not_discovered(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec(), instance_id=1, secrets={})
        await subject.runtime.stop(handle, grace_s=0)
        assert await subject.runtime.discover() == []

    async def test_a_restarted_server_finds_its_engines(self, subject: Subject) -> None:
        spec = subject.spec(model_id=7)
        handle = await subject.runtime.launch(spec, instance_id=41, secrets={})
        await up(handle)
        after = subject.again()
        (found,) = await after.discover()
        assert (found.handle, found.model_id, found.instance_id) == (handle, 7, 41)
        assert found.spec_digest == spec.digest()
        assert (await after.inspect(found.handle)).is_alive
        await after.stop(found.handle, grace_s=5)
        assert not (await after.inspect(found.handle)).is_alive

    async def test_a_restarted_server_sees_at_once_when_its_engine_ends(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec(), instance_id=1, secrets={})
        await up(handle)
        waiting = asyncio.create_task(subject.again().wait_exit(handle))
        with pytest.raises(RequestError):
            await ask(handle, "/exit?code=5")
        seen = await asyncio.wait_for(waiting, 20)
        assert not seen.is_alive
        assert seen.exit_code in (None, 5)

    async def test_a_handle_survives_being_stored_as_json(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec(), instance_id=1, secrets={})
        stored = Handle.from_json(json.loads(json.dumps(handle.to_json())))
        assert (await subject.runtime.inspect(stored)).is_alive

    async def test_a_secret_reaches_the_engine_and_is_stored_nowhere(self, subject: Subject) -> None:
        spec = subject.spec(secret_env=("ENGINE_KEY",))
        handle = await subject.runtime.launch(spec, instance_id=1, secrets={"ENGINE_KEY": "s3cret"})
        await up(handle)
        assert await ask(handle, "/env?name=ENGINE_KEY") == (200, "s3cret")
        assert "s3cret" not in json.dumps(handle.to_json())
        assert "s3cret" not in repr(await subject.runtime.discover())

    async def test_the_tail_of_a_log_is_its_last_lines_in_order(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(
            subject.spec("--lines", "30", "--exit-code", "0"), instance_id=1, secrets={}
        )
        await asyncio.wait_for(subject.runtime.wait_exit(handle), 20)
        assert await lines(subject.runtime.logs(handle, tail_lines=2, follow=False)) == ["line 28", "line 29"]
        everything = await lines(subject.runtime.logs(handle, tail_lines=None, follow=False))
        assert everything == [f"line {n}" for n in range(30)]

    async def test_a_followed_log_goes_on_until_the_engine_ends(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec("--say", "hello"), instance_id=1, secrets={})
        await up(handle)
        stream = subject.runtime.logs(handle, tail_lines=None, follow=True)
        assert await anext(stream) == "hello"
        assert await anext(stream) == "ready"
        await ask(handle, "/say?text=again")
        assert await asyncio.wait_for(anext(stream), 20) == "again"
        with pytest.raises(RequestError):
            await ask(handle, "/exit?code=0")
        assert await lines(stream) == []

    async def test_log_bytes_that_are_no_text_and_huge_lines_do_no_harm(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(
            subject.spec("--junk", "200000", "--exit-code", "0"), instance_id=1, secrets={}
        )
        await asyncio.wait_for(subject.runtime.wait_exit(handle), 20)
        got = await lines(subject.runtime.logs(handle, tail_lines=5, follow=False))
        assert "".join(got) == "\ufffd" * 200_000
        assert max(map(len, got)) < 200_000

    async def test_a_program_that_is_not_there_cannot_be_launched(self, subject: Subject) -> None:
        with pytest.raises(LaunchFailed) as caught:
            await subject.runtime.launch(subject.broken_spec, instance_id=1, secrets={})
        assert caught.value.hint
        assert await subject.runtime.discover() == []

    async def test_what_was_never_launched_is_gone(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec(), instance_id=1, secrets={})
        await subject.runtime.stop(handle, grace_s=0)
        assert (await subject.runtime.inspect(handle)).state in ("gone", "exited")

    async def test_this_host_can_do_it(self, subject: Subject) -> None:
        check = await subject.runtime.check()
        assert check.ok
        assert check.reason == ""

    async def test_tidying_leaves_what_runs_alone(self, subject: Subject) -> None:
        handle = await subject.runtime.launch(subject.spec("--say", "hello"), instance_id=1, secrets={})
        await up(handle)
        await subject.runtime.tidy()
        assert (await subject.runtime.inspect(handle)).is_alive
        assert "hello" in await lines(subject.runtime.logs(handle, tail_lines=10, follow=False))
