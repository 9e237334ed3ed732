"""Reading parts of a hub's file by HTTP range: who gets the token, and what an answer must say.

The redirect is followed here and not by the client: the address that the hub gives is kept for the
other parts of the file, so that the hub is asked once for each file.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from ostler.core.errors import Offline
from ostler.hub.calls import USER_AGENT, Call, Patience, patiently, raise_for_status, shown, unreachable
from ostler.hub.errors import HubError, HubUnreachable, RangesRefused, StorageRefused, UntrustedAnswer
from ostler.hub.records import HubFile

log = logging.getLogger(__name__)

MAX_REDIRECTS = 5
MAX_ERROR_BYTES = 16 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RUN_OUT = frozenset({400, 401, 403, 404, 410})
"""What the storage behind the hub answers when a signed address is no longer good."""


@dataclass(slots=True)
class Spent:
    """What reading has cost so far: requests on the wire (redirects too), and bytes of answers."""

    requests: int = 0
    fetched_bytes: int = 0


class RemoteFile:
    """One file of a repo at one commit, read in parts. Blocking; for one thread."""

    def __init__(
        self, endpoint: str, url: str, file: HubFile, call: Call, token: str | None, patience: Patience
    ) -> None:
        self._endpoint = endpoint
        self._url = url
        self._located: str | None = None
        self._call = call
        self._token = token
        self._patience = patience
        self.file = file
        self.spent = Spent()

    def read(self, offset: int, length: int) -> bytes:
        """The bytes [offset, offset + length), fewer only at the file's end.

        Tried again after broken connections and 5xx answers. Raises the errors of this room, among
        them RangesRefused when the answer is the whole file, and UntrustedAnswer when it is another part.
        """
        end = min(offset + length, self.file.size_bytes)
        if offset >= end:
            return b""
        deadline = time.monotonic() + self._patience.total_s
        return patiently(
            lambda: self._once(offset, end, deadline),
            self._endpoint,
            self._call,
            self._token,
            self._patience,
            deadline,
        )

    def _once(self, offset: int, end: int, deadline: float) -> bytes:
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        url = self._located or self._url
        try:
            return self._follow(url, offset, end, deadline)
        except StorageRefused:
            if self._located is None:
                raise
            self._located = None  # the hub gives another one
            return self._follow(self._url, offset, end, deadline)
        except OfflineModeIsEnabled as error:
            raise Offline("HF_HUB_OFFLINE is set in the environment, so the hub is not asked") from error
        except HfHubHTTPError:  # an httpx2.HTTPError too, and an answer all the same
            raise
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise unreachable(_host(url), error) from error

    def _follow(self, url: str, offset: int, end: int, deadline: float) -> bytes:
        from huggingface_hub import get_session

        for _ in range(MAX_REDIRECTS):
            headers = {
                "user-agent": USER_AGENT,
                "accept-encoding": "identity",
                "range": f"bytes={offset}-{end - 1}",
            }
            is_hub = _origin(url) == _origin(self._endpoint)
            if self._token is not None and is_hub:
                headers["authorization"] = f"Bearer {self._token}"
            self.spent.requests += 1
            with get_session().stream(
                "GET", url, headers=headers, timeout=self._patience.silence_s, follow_redirects=False
            ) as answer:
                if is_hub:
                    self._check_pinned(answer)
                if answer.status_code in _REDIRECTS:
                    url = _target(url, answer.headers.get("location", ""))
                    continue
                if not is_hub and answer.status_code in _RUN_OUT:
                    raise StorageRefused(
                        f"{_origin(url)[1]} answers {answer.status_code} for {self.file.path}"
                    )
                body = self._body(answer, offset, end, deadline)
            if not is_hub:
                self._located = url
            return body
        raise HubError(f"the hub redirects {self.file.path} in a circle")

    def _check_pinned(self, answer: Any) -> None:
        """The hub says of which commit and contents it speaks; it must be what was resolved."""
        if answer.status_code >= 400:
            return
        etag = answer.headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
        if etag and etag != self.file.etag:
            raise UntrustedAnswer(f"the hub serves other contents of {self.file.path} than it announced")
        commit = answer.headers.get("x-repo-commit")
        if commit and self._call.revision and commit != self._call.revision:
            raise UntrustedAnswer(f"the hub serves another commit of {self.file.path} than it announced")

    def _body(self, answer: Any, offset: int, end: int, deadline: float) -> bytes:
        """The part asked for; the connection is closed unread where the answer is anything else."""
        if answer.status_code >= 400 and answer.status_code != 416:
            raise_for_status(answer, self._take(answer, MAX_ERROR_BYTES, deadline))
        size = self.file.size_bytes
        if answer.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
            if match is None or (int(match[1]), int(match[2]) + 1) != (offset, end):
                raise UntrustedAnswer(f"the hub sends another part of {self.file.path} than was asked for")
            if match[3] not in ("*", str(size)):
                raise UntrustedAnswer(f"{self.file.path} has {match[3]} bytes, the hub announced {size}")
        elif answer.status_code == 200:
            if (offset, end) != (0, size):
                raise self._refused()
        else:
            raise UntrustedAnswer(f"the hub does not have the part of {self.file.path} that it announced")
        body = self._take(answer, end - offset, deadline)
        if len(body) < end - offset:
            raise HubUnreachable(f"the hub ended its answer about {self.file.path} too early")
        return body

    def _take(self, answer: Any, limit: int, deadline: float) -> bytes:
        """At most `limit` bytes; the rest is never read."""
        body = bytearray()
        for piece in answer.iter_raw():
            body += piece
            self.spent.fetched_bytes += len(piece)
            if len(body) >= limit:
                break
            if time.monotonic() > deadline:
                raise HubUnreachable("the hub answers too slowly")
        return bytes(body[:limit])

    def _refused(self) -> RangesRefused:
        repo = self._call.repo or "org/repo"
        return RangesRefused(
            f"{shown(self._endpoint)} sends all of {self.file.path} where a part of it was asked for",
            hint=f"Check HF_ENDPOINT and the proxies on the way, or download it first: ostler pull {repo}",
            repo=repo,
            file=self.file.path,
        )


def _target(url: str, location: str) -> str:
    """Where a redirect leads. Raises HubError for what must not be followed."""
    target = urljoin(url, location)
    old, new = _origin(url), _origin(target)
    if not location or new[0] not in ("http", "https") or not new[1] or target == url:
        raise HubError("the hub redirects to an address that cannot be used")
    if old[0] == "https" and new[0] == "http":
        raise HubError(f"the hub redirects from https to plain http on {new[1]}, which is refused")
    return target


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what must be the same for a token to be sent."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        port or {"https": 443, "http": 80}.get(parts.scheme, 0),
    )


def _host(url: str) -> str:
    """The address without path and query: a signed one is a secret."""
    scheme, host, _ = _origin(url)
    return f"{scheme}://{host}"
