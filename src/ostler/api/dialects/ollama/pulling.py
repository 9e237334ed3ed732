"""Pulling a model from the hub, and why none is pushed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from ostler.api.dialects.ollama.answering import Framing
from ostler.api.dialects.ollama.asking import NotHere
from ostler.api.dialects.ollama.door import NamedBody, router
from ostler.api.dialects.ollama.errors import ModelMissing, in_words, line_of
from ostler.api.dialects.ollama.names import find, on_hub, own_name
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.api.streaming import pieces
from ostler.core.errors import Conflict, OstlerError, TimedOut, UpstreamError
from ostler.core.principals import Principal, Role
from ostler.core.states import JobState
from ostler.jobs.records import Job

routes = router("pulling")

TOLD_EVERY_S = 0.25
SUCCESS = {"status": "success"}


class PullFailed(UpstreamError):
    """The download ended without the files."""


class PullIn(NamedBody):
    """What to pull. `insecure` is passed over: the hub's address is a setting."""

    stream: bool | None = None


@routes.post("/api/pull", **needs(Role.POWER_USER))
async def pull(rooms: Rooms, who: Who, body: PullIn, request: Request) -> Response:
    """Fetch a model of the hub: `hf.co/org/repo:Q4_K_M`, `org/repo`.

    It is a job: it goes on when the client leaves, and a second pull of the same watches the same job.
    """
    job = await _pull(rooms, body.its_name, who)
    if body.stream is False:
        async for line in _told(rooms, job):
            if "error" in line:
                raise PullFailed(line["error"])
        return JSONResponse(SUCCESS)
    framing = Framing(wants_stream=True, accept=request.headers.get("accept", ""))
    return stream(rooms, framing, _told(rooms, job))


@routes.post("/api/push", **needs(Role.POWER_USER))
async def push(rooms: Rooms, who: Who, body: PullIn) -> Response:
    """Models are not sent anywhere."""
    raise NotHere(
        "models cannot be pushed from here",
        hint="Upload files to the hub with its own tool: hf upload.",
    )


def stream(rooms: Services, framing: Framing, lines: AsyncIterator[dict[str, Any]]) -> Response:
    """Lines as they come, until the last one or the server's end."""

    async def framed() -> AsyncIterator[bytes]:
        async for line in lines:
            yield framing.of(line)

    return pieces(framed(), rooms.closing, framing.media_type.decode())


async def _pull(rooms: Services, name: str, who: Principal) -> Job:
    alias = own_name(name)
    if rooms.models.find(alias) is None and await rooms.predefined.find(alias) is not None:
        return await rooms.predefined_pulls.pull(alias, who)
    return await rooms.downloads.pull(await _spec(rooms, name), principal=who)


async def _spec(rooms: Services, name: str) -> str:
    """What is to be fetched. Raises ModelMissing for a name that is on no hub, Conflict for own files."""
    model = await find(rooms, name)
    if model is not None and model.source.kind == "hub":
        return model.source.label
    spec = on_hub(name)
    if spec is not None:
        return spec
    if model is not None:
        raise Conflict(f"{model.name} is a file on this machine: there is nothing to pull")
    raise ModelMissing(
        f"model '{name[:200]}' not found",
        hint="Models come from the Hugging Face hub here: name a repo, such as hf.co/org/repo:Q4_K_M.",
    )


async def _told(rooms: Services, job: Job) -> AsyncIterator[dict[str, Any]]:
    """How a download gets on, as Ollama tells it: the sum of its files under the digest of the main one."""
    yield {"status": "pulling manifest"}
    digest, total = _main_file(job)
    last = None
    while not job.state.is_over:
        done = job.progress.get("bytes_done")
        if done is not None:
            line = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total, "completed": done}
            if line != last:
                last = line
                yield line
        try:
            job = await rooms.jobs.wait(job.id, TOLD_EVERY_S)
        except TimedOut:
            job = await rooms.jobs.get(job.id)
        except OstlerError as error:
            yield line_of(error)
            return
    if job.state is not JobState.SUCCEEDED:
        said = job.error or {"message": "the pull was cancelled", "hint": None}
        yield {"error": in_words(str(said["message"]), said.get("hint"))}
        return
    yield {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total, "completed": total}
    for status in ("verifying sha256 digest", "writing manifest", "success"):
        yield {"status": status}


def _main_file(job: Job) -> tuple[str, int]:
    """The digest of the file that is loaded (its ETag where it has no SHA-256), and the bytes of all."""
    files = job.request["files"]
    main = next((file for file in files if file["path"] == job.request["primary"]), files[0])
    return f"sha256:{main['sha256'] or main['etag']}", sum(file["size_bytes"] for file in files)


async def done(lines: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """Lines of what is over already."""
    for line in lines:
        yield line
        await asyncio.sleep(0)
