"""Questions to the hub: one bounded GET for JSON, tried again, with the hub's errors in our words.

It stands on huggingface_hub's connection pool and its reading of error headers. Its `HfApi` is not
used, because `list_models` takes no timeout and repeats for minutes, no answer has a largest size,
and building its headers may first ask huggingface.co, whatever the endpoint is (2.4, `_detect_agent`).
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ostler import __version__
from ostler.core.errors import Offline, OstlerError
from ostler.hub.errors import (
    GatedRepo,
    HubBusy,
    HubError,
    HubUnreachable,
    RepoNotFound,
    RevisionNotFound,
    TokenRefused,
    UntrustedAnswer,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

USER_AGENT = f"ostler/{__version__}"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
LONGEST_PAUSE_S = 5.0
"""A hub that asks for a longer pause than this is reported as busy at once."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a1-\uffff]+")


@dataclass(frozen=True, slots=True)
class Call:
    """One question to the hub. `repo` and `revision` are what errors speak of."""

    path: str
    params: Mapping[str, str | int | Sequence[str]]
    repo: str | None = None
    revision: str | None = None
    user_agent: str = USER_AGENT


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait: for a silent connection, for the whole answer, and before each further try."""

    silence_s: float = 10.0
    total_s: float = 30.0
    pauses_s: tuple[float, ...] = (0.25, 1.0)


def get_json(endpoint: str, call: Call, token: str | None, patience: Patience) -> Any:
    """The decoded answer; see `get_bytes`."""
    body = get_bytes(endpoint, call, token, patience)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HubError(
            f"{shown(endpoint)} does not answer like a Hugging Face hub",
            hint="Check HF_ENDPOINT, and whether a proxy or a login page stands in between.",
        ) from error


def get_bytes(endpoint: str, call: Call, token: str | None, patience: Patience) -> bytes:
    """The answer as it came. Blocks, so call it in a thread; ends within about `patience.total_s`.

    Broken connections and 5xx answers are tried again. Raises the errors of this room.
    """
    deadline = time.monotonic() + patience.total_s
    return patiently(
        lambda: _get_once(endpoint, call, token, patience.silence_s, deadline),
        endpoint,
        call,
        token,
        patience,
        deadline,
    )


def patiently(
    once: Callable[[], T], endpoint: str, call: Call, token: str | None, patience: Patience, deadline: float
) -> T:
    """What `once` gives, tried again after broken connections and 5xx answers.

    `deadline` is a time of `time.monotonic()`. `once` may raise huggingface_hub's HfHubHTTPError; what
    comes out are the errors of this room.
    """
    # Imported here and not above: huggingface_hub takes over 0.1 s, see the package's text.
    from huggingface_hub.errors import HfHubHTTPError

    for pause_s in (*patience.pauses_s, None):
        try:
            return once()
        except HfHubHTTPError as error:
            pause_s = _pause_asked_for(error, pause_s)
            if pause_s is None or time.monotonic() + pause_s > deadline:
                raise _in_our_words(error, call, token, endpoint) from error
            reason: object = f"status {error.response.status_code}"
        except HubUnreachable as error:
            if pause_s is None or time.monotonic() + pause_s > deadline:
                raise
            reason = error
        log.info("asking the hub again for %s in %.2g s: %s", call.path, pause_s, reason)
        threading.Event().wait(pause_s)
    raise AssertionError("the last try either answers or raises")


def _get_once(endpoint: str, call: Call, token: str | None, silence_s: float, deadline: float) -> bytes:
    """One try. Raises HubUnreachable, UntrustedAnswer, Offline, or huggingface_hub's HfHubHTTPError."""
    import httpx2
    from huggingface_hub import get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    headers = {"user-agent": call.user_agent, "accept": "application/json"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    try:
        # A redirect to another host loses the authorization header: httpx2 sees to that.
        with get_session().stream(
            "GET", endpoint + call.path, params=call.params, headers=headers, timeout=silence_s
        ) as response:
            body = _read_bounded(response, deadline)
    except OfflineModeIsEnabled as error:
        raise Offline("HF_HUB_OFFLINE is set in the environment, so the hub is not asked") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise unreachable(endpoint, error) from error
    raise_for_status(response, body)
    return body


def raise_for_status(response: Any, body: bytes) -> None:
    """Raise huggingface_hub's HfHubHTTPError where the answer is an error; `body` is what was read of it."""
    import httpx2
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]  # exported late

    known = [(name, value) for name, value in response.headers.multi_items() if name in _ERROR_HEADERS]
    hf_raise_for_status(
        httpx2.Response(response.status_code, headers=known, content=body, request=response.request)
    )


_ERROR_HEADERS = frozenset({"x-error-code", "x-error-message", "retry-after", "content-type"})


def _read_bounded(response: Any, deadline: float) -> bytes:
    body = bytearray()
    for piece in response.iter_bytes():  # as it comes in: with a size given it would wait for so much
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise UntrustedAnswer(f"the hub's answer is over {MAX_ANSWER_BYTES:,} bytes long")
        if time.monotonic() > deadline:
            raise HubUnreachable("the hub answers too slowly")
    return bytes(body)


def _pause_asked_for(error: Any, pause_s: float | None) -> float | None:
    """How long to wait before the next try; None when there is none."""
    if pause_s is None or error.response.status_code not in (408, 429, 500, 502, 503, 504):
        return None
    asked_s = _retry_after_s(error)
    if asked_s is None:
        return pause_s if error.response.status_code != 429 else None
    return max(asked_s, pause_s) if asked_s <= LONGEST_PAUSE_S else None


def _retry_after_s(error: Any) -> float | None:
    text = error.response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def _in_our_words(error: Any, call: Call, token: str | None, endpoint: str) -> OstlerError:
    """The hub's error as one of ours, without the token even where the hub repeats it."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return gated(call.repo or "?", endpoint, token)
    if isinstance(error, RevisionNotFoundError):
        return RevisionNotFound(
            f"{call.repo} has no revision {call.revision!r}",
            hint=f"Leave it out to take main, or see {shown(endpoint)}/{call.repo}/tree/main",
            repo=call.repo,
            revision=call.revision,
        )
    if isinstance(error, DisabledRepoError):
        return HubError(f"access to {call.repo} has been disabled by the hub", hint=None, repo=call.repo)
    if isinstance(error, RepositoryNotFoundError):
        return _repo_not_found(call.repo or "?", token)
    said = _server_says(error, token)
    if status == 401 or (status == 403 and token is not None):
        return TokenRefused(f"the hub does not accept the token{said}", status=status)
    if status == 429 or (status == 503 and _retry_after_s(error) is not None):
        wait_s = _retry_after_s(error)
        when = f"in {wait_s:.0f} s" if wait_s is not None else "later"
        return HubBusy(
            f"the hub asks to come back {when} (status {status})",
            retry_after_s=wait_s,
            hint=f"Try again {when}"
            + ("." if token else "; with a token (HF_TOKEN) it allows more requests."),
        )
    return HubError(f"the hub answers with status {status}{said}", status=status)


def gated(repo: str, endpoint: str, token: str | None) -> GatedRepo:
    """The error for a repo whose owner has not let this token in."""
    page = f"{shown(endpoint)}/{repo}"
    if token is None:
        hint = f"Accept its terms at {page}, then set HF_TOKEN or log in with: hf auth login"
    else:
        hint = f"Ask for access at {page} with the account of your token, then try again."
    return GatedRepo(f"{repo} is gated: its owner decides who may fetch it", hint=hint, repo=repo, url=page)


def _repo_not_found(repo: str, token: str | None) -> RepoNotFound:
    hint = f"Look for it with: ostler search {repo.partition('/')[2]}"
    if token is None:
        return RepoNotFound(
            f"the hub has no repo {repo} that is open to everyone",
            hint=f"{hint} (a private one needs HF_TOKEN, or: hf auth login)",
            repo=repo,
        )
    return RepoNotFound(f"the hub has no repo {repo}, or your token may not see it", hint=hint, repo=repo)


def unreachable(endpoint: str, error: Exception) -> HubUnreachable:
    """The error for a connection that failed, without a password that may stand in the address."""
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return HubUnreachable(f"no answer from {shown(endpoint)} in time", endpoint=shown(endpoint))
    reason = type(error).__name__ if not str(error) else _clean(str(error), 160)
    return HubUnreachable(f"{shown(endpoint)} cannot be reached: {reason}", endpoint=shown(endpoint))


def _server_says(error: Any, token: str | None) -> str:
    said = str(getattr(error, "server_message", None) or "")
    if token:
        said = said.replace(token, "***")
    said = _clean(said, 200)
    return f": {said}" if said else ""


def _clean(text: str, limit: int) -> str:
    """Text from outside for a message: one line, no terminal codes, not long."""
    text = _UNPRINTABLE.sub(" ", text).strip()
    return text if len(text) <= limit else text[:limit] + "..."


def shown(endpoint: str) -> str:
    """The endpoint without a password that may stand in it."""
    url = urlsplit(endpoint)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
