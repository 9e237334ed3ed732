"""One request for a span of a file: redirects, who gets the token, what the answer must say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin, urlsplit

from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import SyncResponse

from ostler.downloads.faults import Changed, Fault, Gated, Gone, Passing, RangesIgnored
from ostler.downloads.order import Order, OrderedFile
from ostler.downloads.pacing import retry_after_s

MAX_REDIRECTS = 10
CONNECT_TIMEOUT_S = 20.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what must be the same for a token to be sent."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


class Transfer:
    """Requests of one order over shared connections; used by several threads.

    The address that a file was redirected to is kept for its other spans, so that the hub is asked
    once per file and not once per span; any failure there asks the hub again.
    """

    def __init__(self, order: Order, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._order = order
        self._hub = origin(order.endpoint)
        self._now = now
        self._located: dict[str, str] = {}
        self.etags: dict[str, str] = {}
        """By path, the ETag header of the answer that brought the bytes, with its quotes."""
        self._client = _client(order.timeout_s)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    @contextmanager
    def span(self, file: OrderedFile, begin: int, end: int, *, whole: bool) -> Iterator[Iterator[memoryview]]:
        """The bytes [begin, end) of a file in chunks; with `whole` all of it, without asking for a range.

        Raises Passing for what may go away, RangesIgnored, and other Faults for what will not.
        """
        try:
            url = self._located.get(file.url, file.url)
            for _ in range(MAX_REDIRECTS):
                with self._request(url, None if whole else (begin, end)) as response:
                    if url == file.url or origin(url) == self._hub:
                        self._check_pinned(file, response)
                    if response.status in (301, 302, 303, 307, 308):
                        url = self._next(url, response)
                        continue
                    self._check_answer(file, url, response, begin, end, whole)
                    if etag := response.get_header("etag"):
                        self.etags[file.path] = etag
                    if origin(url) != self._hub:
                        self._located[file.url] = url
                    yield _chunks(response, end - begin)
                    return
            raise Fault(f"{file.path}: the hub redirects in a circle")
        except PyreqwestError as error:
            self._located.pop(file.url, None)
            raise Passing(f"{file.path}: {_reason(error)}") from error
        except Passing:
            self._located.pop(file.url, None)
            raise

    @contextmanager
    def _request(self, url: str, span: tuple[int, int] | None) -> Iterator[SyncResponse]:
        request = self._client.get(url).header("Accept-Encoding", "identity")
        if span is not None:
            request = request.header("Range", f"bytes={span[0]}-{span[1] - 1}")
        if self._order.token and origin(url) == self._hub:
            request = request.header("Authorization", f"Bearer {self._order.token}", is_sensitive=True)
        # Without a buffer each chunk is handed on as it comes, and nothing is lost when the line is cut.
        with request.streamed_read_buffer_limit(0).build_streamed() as response:
            yield response

    def _next(self, url: str, response: SyncResponse) -> str:
        """Where a redirect leads."""
        target = urljoin(url, response.get_header("location") or "")
        old, new = origin(url), origin(target)
        if new[0] not in ("http", "https") or not new[1] or target == url:
            raise Fault(f"the hub redirects to an address that cannot be used: {new[0]}://{new[1]}")
        if old[0] == "https" and new[0] == "http":
            raise Fault(f"the hub redirects from https to plain http on {new[1]}, which is refused")
        return target

    def _check_pinned(self, file: OrderedFile, response: SyncResponse) -> None:
        """The hub itself says of which commit and contents it speaks; it must be what was resolved."""
        if response.status >= 400:
            return
        commit = response.get_header("x-repo-commit")
        if commit and commit != self._order.commit:
            raise Changed(f"{file.path}: the hub serves commit {commit[:40]} and not {self._order.commit}")
        etag = response.get_header("x-linked-etag") or (
            response.get_header("etag") if response.status in (200, 206) and commit else None
        )
        if etag and etag.removeprefix("W/").strip('"') != file.etag:
            raise Changed(f"{file.path}: the hub serves other contents than it announced")

    def _check_answer(
        self, file: OrderedFile, url: str, response: SyncResponse, begin: int, end: int, whole: bool
    ) -> None:
        status = response.status
        if status == 206 and not whole:
            match = _CONTENT_RANGE.fullmatch(response.get_header("content-range") or "")
            if match is None or int(match[1]) != begin or int(match[2]) != end - 1:
                raise Passing(f"{file.path}: the answer is another range than was asked for")
            if match[3] not in ("*", str(file.size)):
                raise Changed(f"{file.path} has {match[3]} bytes, announced were {file.size}")
        elif status == 200:
            length = response.get_header("content-length")
            if length is not None and length != str(file.size):
                raise Changed(f"{file.path} has {length} bytes, announced were {file.size}")
            if not whole and (begin, end) != (0, file.size):
                raise RangesIgnored
        else:
            raise self._refusal(file, url, response)

    def _refusal(self, file: OrderedFile, url: str, response: SyncResponse) -> Exception:
        status, host = response.status, origin(url)[1]
        at_hub = origin(url) == self._hub
        message = f"{file.path}: {host} answered {status}"
        if status in _PASSING_STATUS:
            wait_s = retry_after_s(response.get_header("retry-after"), self._now())
            return Passing(message, retry_after_s=wait_s, code="hub_busy")
        if status in (400, 401, 403, 404, 410) and not at_hub:
            # A signed address of the storage behind the hub has run out: ask the hub for a new one.
            return Passing(message, code="hub_error")
        if status in (401, 403):
            return Gated(f"the hub does not give {file.path} to this account ({status})")
        if status in (404, 410):
            return Gone(f"{file.path} is not in {self._order.repo} at commit {self._order.commit[:12]}")
        return Fault(message)


def _chunks(response: SyncResponse, size: int) -> Iterator[memoryview]:
    """At most `size` bytes of a body; ends early, without an error, only if the server does."""
    reader = response.body_reader
    while size > 0 and (chunk := reader.read_chunk()) is not None:
        view = memoryview(chunk)[:size]
        size -= len(view)
        yield view


def _client(timeout_s: float) -> SyncClient:
    silence = timedelta(seconds=timeout_s)
    builder = (
        SyncClientBuilder()
        .user_agent("ostler")
        .read_timeout(silence)
        .connect_timeout(timedelta(seconds=min(timeout_s, CONNECT_TIMEOUT_S)))
        .follow_redirects(False)
        .referer(False)
    )
    return builder.gzip(False).brotli(False).zstd(False).deflate(False).build()


def _reason(error: PyreqwestError) -> str:
    """The innermost cause, without the address (a signed one is a secret)."""
    details = getattr(error, "details", None) or {}
    causes = [str(cause.get("message", "")) for cause in details.get("causes") or []]
    plain = [cause for cause in causes if cause and "http" not in cause]
    return plain[-1] if plain else str(error).partition("http")[0] or type(error).__name__
