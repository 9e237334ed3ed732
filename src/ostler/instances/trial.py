"""Trying out an engine that runs: one small request, as a client would send it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError

from ostler.instances.leases import Lease

BODY_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Trial:
    """What came back. `error` is one sentence where there is no good answer; `status` None: none at all."""

    status: int | None
    answer: Any
    error: str | None


async def try_out(lease: Lease, path: str, body: Mapping[str, Any], *, timeout_s: float) -> Trial:
    """Send it to the engine that the lease is for; never raises OstlerError."""
    builder = ClientBuilder().no_proxy().follow_redirects(False).error_for_status(False)
    async with builder.build() as client:
        request = client.post(lease.base_url + path).timeout(timedelta(seconds=timeout_s))
        if lease.api_key:
            request = request.bearer_auth(lease.api_key)
        try:
            sending = request.body_json(dict(body)).streamed_read_buffer_limit(BODY_LIMIT).build_streamed()
            async with sending as response:
                read = await response.body_reader.read(BODY_LIMIT)
                status = response.status
        except RequestTimeoutError:
            return Trial(None, None, f"the engine did not answer within {timeout_s:g} s")
        except PyreqwestError as error:
            return Trial(None, None, f"the engine cannot be reached: {error}")
    return _read(status, bytes(read or b"").decode(errors="replace"))


def _read(status: int, text: str) -> Trial:
    try:
        answer: Any = json.loads(text)
    except ValueError:
        answer = text
    if status < 400:
        return Trial(status, answer, None)
    said = answer.get("error", answer) if isinstance(answer, Mapping) else answer
    words = said.get("message", said) if isinstance(said, Mapping) else said
    return Trial(status, answer, f"the engine answered {status}: {words}")
