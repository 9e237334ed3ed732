"""Ostler's HTTP API, as seen from the command line.

The standard library's http.client: it imports in milliseconds, streams line by line without
buffering, and a Ctrl-C ends it by closing the socket. Answers are plain JSON values.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ostler.cli.failures import CommandFailed

API = "/ostler/v1"
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
STREAM_TIMEOUT_S = 3600.0

Json = dict[str, Any]


class ServerUnreachable(CommandFailed):
    """Nothing answers at the address."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event: `kind` is its `event:` line, `data` the parsed JSON (or the raw text)."""

    kind: str
    id: str | None
    data: Any


def model_path(name: str, action: str = "") -> str:
    """The path of a model, or of an action on it. Names may hold "/", ":" and "."."""
    return f"/models/{quote(name, safe='')}{'/' + action if action else ''}"


class Client:
    """Talks to one server. Every failure is a CommandFailed with the server's own words and hint."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._key = key
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")

    def get(self, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **query: Any) -> Json:
        """GET under /ostler/v1; query values of None are left out."""
        return self.request("GET", API + path + _query(query), timeout_s=timeout_s)

    def post(self, path: str, body: Any = None, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Json:
        """POST JSON under /ostler/v1."""
        return self.request("POST", API + path, body, timeout_s=timeout_s)

    def patch(self, path: str, body: Any) -> Json:
        """PATCH JSON under /ostler/v1."""
        return self.request("PATCH", API + path, body)

    def delete(self, path: str) -> Json:
        """DELETE under /ostler/v1."""
        return self.request("DELETE", API + path)

    def every(self, path: str, **query: Any) -> Json:
        """A whole listing, all pages as one: {"items": [...], "total": n}."""
        items: list[Json] = []
        while True:
            page = self.get(path, limit=200, offset=len(items), **query)
            items += page["items"]
            if not page["items"] or len(items) >= page["total"]:
                return {"items": items, "total": len(items)}

    def request(
        self, method: str, path: str, body: Any = None, *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> Json:
        """One call with a JSON answer. Raises ServerUnreachable or the failure that the answer tells of."""
        with self._call(method, path, body, timeout_s, accept="application/json") as answer:
            text = answer.read()
        if not text:
            return {}
        try:
            value = json.loads(text)
        except ValueError:
            raise CommandFailed(
                f"{self.url} did not answer in JSON", hint="Is it an Ostler server? Check --url."
            ) from None
        return value if isinstance(value, dict) else {"items": value}

    @contextmanager
    def events(
        self, path: str, body: Any = None, *, timeout_s: float = STREAM_TIMEOUT_S
    ) -> Iterator[Generator[ServerEvent]]:
        """Server-sent events of a whole path ("/ostler/v1/events", "/v1/chat/completions").

        With a body it is a POST. The stream is closed at the end of the block.
        """
        with self._call(
            "GET" if body is None else "POST", path, body, timeout_s, "text/event-stream"
        ) as answer:
            yield _read_events(answer)

    @contextmanager
    def lines(
        self, path: str, *, timeout_s: float = STREAM_TIMEOUT_S, **query: Any
    ) -> Iterator[Generator[str]]:
        """A text answer line by line, as it comes."""
        with self._call("GET", API + path + _query(query), None, timeout_s, "text/plain") as answer:
            yield (line.decode("utf-8", "replace").rstrip("\r\n") for line in answer)

    @contextmanager
    def _call(
        self, method: str, path: str, body: Any, timeout_s: float, accept: str
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connect()
        headers = {"Accept": accept, "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            try:
                if connection.sock is not None:
                    connection.sock.settimeout(timeout_s)
                connection.request(method, self._prefix + path, payload, headers)
                answer = connection.getresponse()
                if answer.status >= 400:
                    raise _failure(answer.status, answer.read())
                yield answer
            except TimeoutError as error:
                raise CommandFailed(
                    f"{self.url} did not answer within {timeout_s:.0f} s", hint="ostler doctor"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                raise ServerUnreachable(
                    f"the connection to {self.url} was lost ({str(error) or type(error).__name__})",
                    hint="See whether the server still runs: ostler doctor",
                    code="connection_lost",
                ) from error
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            if isinstance(error, socket.gaierror):
                reason = "the host is not known"
            raise ServerUnreachable(
                f"no Ostler server answers at {self.url} ({reason})",
                hint="Start one with: ostler serve",
                code="server_unreachable",
            ) from error
        return connection


def _query(values: Mapping[str, Any]) -> str:
    kept = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in values.items()
        if value is not None
    }
    return f"?{urlencode(kept)}" if kept else ""


def _failure(status: int, body: bytes) -> CommandFailed:
    try:
        told = json.loads(body)
    except ValueError:
        told = {"message": body[:200].decode("utf-8", "replace").strip() or f"HTTP {status}"}
    return CommandFailed.from_problem(status, told if isinstance(told, dict) else {})


def _read_events(answer: http.client.HTTPResponse) -> Generator[ServerEvent]:
    """Parse the event stream format (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    kind, event_id = "message", None
    data: list[str] = []
    for raw in answer:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if data:
                yield ServerEvent(kind, event_id, _parsed("\n".join(data)))
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            event_id = value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
