"""One accounted request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)
class RequestRecord:
    """One request that was sent to an engine, or failed on the way to it.

    `at` is when it came in; durations are in seconds from then. `first_token_s` is when the first
    byte of the answer's body left for the client. `status` is what the client saw; `error` says why
    it did not get a whole answer. Tokens are None where the engine did not say. `request_id` is what the
    answer's x-request-id said; None for requests of before it was kept.
    """

    at: datetime
    model_id: int | None
    model_name: str
    instance_id: int | None
    key_id: int | None
    user_id: int | None
    org_id: int | None
    principal: str
    path: str
    status: int
    streamed: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    first_token_s: float | None
    duration_s: float
    error: str | None
    request_id: str | None = None
