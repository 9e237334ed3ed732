"""The Hub when the network or the hub itself is in trouble, or sends what must not be believed."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from ostler.hub import Hub, HubBusy, HubError, HubUnreachable, UntrustedAnswer, parse_spec
from ostler.hub.calls import Patience
from tests.hub.conftest import MakeHub
from tests.hub.repos import HubRepo
from tests.hub.server import HubServer

IMPATIENT = Patience(silence_s=0.2, total_s=0.5, pauses_s=())


# --- faults


@pytest.mark.parametrize("after_bytes", [-1, 0, 20])
async def test_a_broken_connection_and_a_5xx_are_tried_again(
    hub: Hub, hub_server: HubServer, repo: HubRepo, after_bytes: int
) -> None:
    hub_server.faults.cut("/api/models/*", after_bytes=after_bytes)
    hub_server.faults.status("/api/models/*", status=502, nth=2)
    assert (await hub.repo("org/tiny-GGUF")).commit == repo.head
    assert len(hub_server.requests) == 3


async def test_a_hub_that_stays_broken_is_reported_after_a_few_tries(
    hub: Hub, hub_server: HubServer, repo: HubRepo
) -> None:
    hub_server.faults.status("*", status=500, times=None)
    with pytest.raises(HubError) as broken:
        await hub.repo("org/tiny-GGUF")
    assert broken.value.facts["status"] == 500
    assert broken.value.hint
    assert len(hub_server.requests) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 410])
async def test_an_error_that_will_not_pass_is_asked_once(
    hub: Hub, hub_server: HubServer, repo: HubRepo, status: int
) -> None:
    hub_server.faults.status("*", status=status, times=None)
    with pytest.raises(HubError) as failed:
        await hub.repo("org/tiny-GGUF")
    assert failed.value.facts["status"] == status
    assert len(hub_server.requests) == 1


async def test_a_busy_hub_says_when_to_come_back(hub: Hub, hub_server: HubServer, repo: HubRepo) -> None:
    hub_server.faults.status("*", status=429, retry_after=7, times=None)
    with pytest.raises(HubBusy) as busy:
        await hub.repo("org/tiny-GGUF")
    assert busy.value.retry_after_s == 7
    assert "in 7 s" in (busy.value.hint or "")
    assert len(hub_server.requests) == 1, "a person would not wait so long for an answer"


async def test_a_short_wait_asked_for_by_the_hub_is_kept(
    hub: Hub, hub_server: HubServer, repo: HubRepo
) -> None:
    hub_server.faults.status("*", status=429, retry_after=1)
    await hub.repo("org/tiny-GGUF")
    first, second = hub_server.requests
    assert second.time - first.time >= 1.0


@pytest.mark.parametrize("after_bytes", [-1, 10])
async def test_silence_ends_in_an_error_and_not_in_waiting(
    make_hub: MakeHub, hub_server: HubServer, repo: HubRepo, after_bytes: int
) -> None:
    stalled = hub_server.faults.stall("*", after_bytes=after_bytes, times=None)
    with pytest.raises(HubUnreachable) as silent:
        await make_hub(patience=IMPATIENT).repo("org/tiny-GGUF")
    assert silent.value.hint
    assert stalled.reached.is_set()


async def test_a_drip_that_never_ends_is_cut_off(
    make_hub: MakeHub, hub_server: HubServer, repo: HubRepo
) -> None:
    hub_server.faults.drip("*", bytes_per_s=20, chunk_bytes=1, times=None)
    with pytest.raises(HubUnreachable, match="too slowly"):  # said by the thread, which so ends
        await make_hub(patience=IMPATIENT).repo("org/tiny-GGUF")


async def test_a_hub_that_is_not_there_is_unreachable(make_hub: MakeHub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hub = make_hub(hf_endpoint=f"http://someone:hunter2@127.0.0.1:{port}")
    with pytest.raises(HubUnreachable) as absent:
        await hub.search("x")
    assert "hunter2" not in f"{absent.value} {absent.value.facts}"
    assert "HF_ENDPOINT" in (absent.value.hint or "")


@pytest.mark.parametrize("body", [b"<html>Sign in to the hotel's network</html>", b"", b"[" * 100_000])
async def test_an_answer_of_somebody_else_is_not_taken_for_the_hub(
    hub: Hub, hub_server: HubServer, body: bytes
) -> None:
    hub_server.faults.status("*", status=200, body=body, times=None)
    with pytest.raises(HubError) as odd:
        await hub.repo("org/tiny-GGUF")
    assert odd.value.hint


async def test_an_endless_answer_is_not_read_to_its_end(
    hub: Hub, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostler.hub.calls.MAX_ANSWER_BYTES", 100_000)
    hub_server.faults.status("*", status=200, body=b" " * 5_000_000, times=None)
    with pytest.raises(UntrustedAnswer, match="100,000"):
        await hub.repo("org/tiny-GGUF")


async def test_a_silent_hub_does_not_take_every_thread(
    make_hub: MakeHub, hub_server: HubServer, repo: HubRepo
) -> None:
    stalled = hub_server.faults.stall("*", after_bytes=-1, times=None)
    hub = make_hub()
    asked = [asyncio.create_task(hub.repo("org/tiny-GGUF")) for _ in range(20)]
    await asyncio.to_thread(hub_server.wait_for_request, count=4)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
    assert len(hub_server.requests) == 4
    stalled.release()
    assert len(await asyncio.gather(*asked)) == 20


# --- answers that must not be believed


def edit_file(path: str, **fields: Any) -> Any:
    def change(answer: dict[str, Any]) -> dict[str, Any]:
        for sibling in answer["siblings"]:
            if sibling["rfilename"] == path:
                sibling.update(fields)
        return answer

    return change


@pytest.mark.parametrize(
    "fields",
    [
        *(
            {"rfilename": name}
            for name in ("../evil", "/etc/passwd", "a/../../b", "a\\b", "a\x00b", "", "a//b")
        ),
        *({"rfilename": name} for name in (None, 7, "x" * 5000, "tiny-Q4_K_M.gguf", "README.md/x")),
        *({"blobId": blob} for blob in (None, "../../x", "abc", 7)),
        *({"lfs": "x"}, {"lfs": [1]}, {"lfs": {"size": 5}}, {"lfs": {"sha256": "../x", "size": 5}}),
        {"lfs": {"sha256": "a" * 64, "size": 6, "pointerSize": 1}},
    ],
    ids=repr,
)
async def test_unsafe_names_and_hashes_refuse_the_repo(
    hub: Hub, hub_server: HubServer, repo: HubRepo, fields: dict[str, Any]
) -> None:
    hub_server.faults.edit("*", edit_file("tiny-Q8_0.gguf", **fields))
    with pytest.raises(UntrustedAnswer) as refused:
        await hub.resolve(parse_spec("org/tiny-GGUF:Q4_K_M"))
    assert refused.value.hint
    assert refused.value.message.isprintable()


@pytest.mark.parametrize("path", ["tiny-Q8_0.gguf", "README.md"])
@pytest.mark.parametrize("size", [-1, None, "5", 1.5, True, 2**60])
async def test_an_impossible_size_refuses_the_repo_also_where_no_hash_contradicts_it(
    hub: Hub, hub_server: HubServer, repo: HubRepo, path: str, size: object
) -> None:
    hub_server.faults.edit("*", edit_file(path, size=size))
    with pytest.raises(UntrustedAnswer, match="no usable size"):
        await hub.repo("org/tiny-GGUF")


@pytest.mark.parametrize(
    "fields",
    [
        *({"sha": sha} for sha in (None, "main", "../../x", "A" * 40, 7)),
        *({"id": name} for name in (None, "../..", "org", "a/b/c", 7)),
        *({"siblings": None}, {"siblings": 7}, {"siblings": ["x"]}, {"siblings": [None]}),
    ],
    ids=repr,
)
async def test_an_answer_without_a_usable_name_or_commit_is_refused(
    hub: Hub, repo: HubRepo, fields: dict[str, Any]
) -> None:
    repo.extra.update(fields)
    with pytest.raises(UntrustedAnswer):
        await hub.repo("org/tiny-GGUF")


async def test_another_commit_than_the_one_asked_for_is_refused(hub: Hub, repo: HubRepo) -> None:
    commit = repo.head
    repo.extra["sha"] = "f" * 40
    with pytest.raises(UntrustedAnswer):
        await hub.repo("org/tiny-GGUF", commit)


async def test_odd_texts_and_counts_are_cleaned_and_not_fatal(hub: Hub, repo: HubRepo) -> None:
    repo.extra.update(
        downloads=-5,
        likes="many",
        tags=["\x1b[31mred\x1b[0m", 7, "x" * 10_000, "license:mit"],
        cardData=[],
        lastModified="yesterday",
        gated="somehow",
        pipeline_tag={"a": 1},
    )
    info = await hub.repo("org/tiny-GGUF")
    assert (info.downloads, info.likes, info.license) == (0, 0, "mit")
    assert info.tags[0] == "[31mred [0m"
    assert len(info.tags[1]) == 120
    assert (info.last_modified, info.gated, info.pipeline_tag) == (None, "manual", None)
    (hit,) = await hub.search("tiny")
    assert (hit.downloads, hit.tags) == (0, info.tags)


@pytest.mark.parametrize("answer", [{}, "x", [1], None])
async def test_a_search_result_of_another_shape_is_refused(
    hub: Hub, hub_server: HubServer, answer: object
) -> None:
    hub_server.faults.edit("/api/models", lambda _: answer)
    with pytest.raises(UntrustedAnswer):
        await hub.search("x")
