"""A Hugging Face hub of our own, for tests and benchmarks: a real HTTP server on loopback.

It speaks the part of the hub's API that clients use to find and fetch models, well enough that the
real `huggingface_hub` library and its `hf` command work against it. Large files (LFS) are redirected
to a second host ("cdn": another port, under another name), as the real hub does.

    with HubServer() as hub:
        repo = hub.add_repo("org/model", {"model-Q8_0.gguf": Path("..."), "config.json": b"{}"})
        hub.faults.cut("*/model-Q8_0.gguf", after_bytes=1000)
        ...                                     # point a client at hub.endpoint
        assert hub.requests_for("/cdn/*")[0].token is None

`repos.py` holds the repos, `faults.py` the faults, `routes.py` the answers; here are sockets only.
It runs in threads of the calling process; for benchmarks, `python -m tests.hub.server org/name=FOLDER`
runs it as a process of its own and prints its address.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import secrets
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.faults import Fault, Faults
from tests.hub.repos import HubRepo
from tests.hub.routes import Answer, Body, answer

PIECE_BYTES = 4 * 1024 * 1024


@dataclass
class Request:
    """One request as it came in, and what became of it."""

    host: str
    """"hub" or "cdn"."""
    method: str
    path: str
    """Decoded, without the query."""
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    time: float
    """time.monotonic() at arrival."""
    body: bytes = b""
    raw_path: str = ""
    status: int = 0
    bytes_sent: int = 0
    faults: tuple[str, ...] = ()

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")

    @property
    def token(self) -> str | None:
        """The bearer token that came with it, if any."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" and token else None


class HubServer:
    """The hub. `endpoint` is its address; see the module's text for an example.

    `redirect_lfs=False` serves large files from the hub itself; `xet=True` also offers Xet (the
    headers only: there is no Xet storage behind them).
    """

    def __init__(self, *, redirect_lfs: bool = True, xet: bool = False, page_size: int = 1000) -> None:
        self.redirect_lfs = redirect_lfs
        self.xet = xet
        self.page_size = page_size
        self.repos: dict[str, HubRepo] = {}
        self.renamed: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        """Tokens that the hub knows, with the name of their owner; every other one gets 401."""
        self.faults = Faults()
        self.requests: list[Request] = []
        self.signature = secrets.token_hex(8)
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._listeners: list[_Listener] = []

    def start(self) -> HubServer:
        """Listen on two free ports of loopback."""
        self._listeners = [_Listener(self, "hub"), _Listener(self, "cdn")]
        for listener in self._listeners:
            threading.Thread(
                target=listener.serve_forever, kwargs={"poll_interval": 0.05}, name="test hub", daemon=True
            ).start()
        return self

    def stop(self) -> None:
        """Close every connection; stalled answers end."""
        self.stopping.set()
        self.faults.clear()
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def __enter__(self) -> HubServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT has to be."""
        return f"http://127.0.0.1:{self._listeners[0].server_address[1]}"

    @property
    def cdn(self) -> str:
        """Where large files are: another host by name and by port."""
        return f"http://localhost:{self._listeners[1].server_address[1]}"

    def add_token(self, token: str, owner: str = "ada") -> str:
        """Make a token known."""
        self.tokens[token] = owner
        return token

    def add_repo(
        self,
        name: str,
        files: Mapping[str, bytes | Path],
        *,
        gated: str | bool = False,
        private: bool = False,
        token: str | None = None,
        lfs: bool | None = None,
        **about: Any,
    ) -> HubRepo:
        """Make a repo with one commit on `main`.

        `gated` is True, "auto" or "manual"; `token` is made known and may see and fetch this repo;
        `lfs` forces all files to be large or small ones; `about` are more fields of HubRepo.
        """
        repo = HubRepo(name, gated=gated, private=private, **about)
        if token is not None:
            repo.access.add(self.add_token(token))
        repo.commit(files, lfs=lfs)
        self.repos[name] = repo
        return repo

    def rename(self, old: str, new: str) -> None:
        """Give a repo another name; the old one redirects from now on."""
        repo = self.repos.pop(old)
        repo.name = new
        self.repos[new] = repo
        self.renamed[old] = new

    def requests_for(
        self, path: str = "*", *, method: str | None = None, host: str | None = None
    ) -> list[Request]:
        """The requests so far whose path matches the glob."""
        matches = Fault("", path, host=host, method=method, times=None).strikes
        with self._changed:
            return [r for r in self.requests if matches(r.host, r.method, r.path)]

    def wait_for_request(self, path: str = "*", *, count: int = 1, timeout_s: float = 10.0) -> None:
        """Return when so many matching requests have come in. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests_for(path)) >= count, timeout_s):
                raise TimeoutError(f"no {count} requests for {path} within {timeout_s} s")

    def record(self, request: Request) -> None:
        """Keep a request and wake who waits for it."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()


class _Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """One port: the hub's or the CDN's."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, hub: HubServer, role: str) -> None:
        self.hub = hub
        self.role = role
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for the host's full name here, which can take seconds.
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._open_lock:
            self._open.add(connection)
        return connection, address

    def close_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that went away is no news
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Stop listening and end every connection."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the listening thread at once
        self.shutdown()
        self.server_close()
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Cut(Exception):
    """The connection ends here, on purpose."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection: reads requests, applies the faults, sends the answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: requests are recorded, not printed."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_GET

    def _serve(self) -> None:
        url = urlsplit(self.path)
        hub = self.server.hub
        request = Request(
            host=self.server.role,
            method=self.command,
            path=unquote(url.path),
            raw_path=url.path,
            query=parse_qs(url.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            time=time.monotonic(),
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        faults = hub.faults.striking(request.host, request.method, request.path)
        request.faults = tuple(fault.kind for fault in faults)
        if any(fault.kind == "no_ranges" for fault in faults):
            request.headers.pop("range", None)
        hub.record(request)
        reply = self._answer(request, faults)
        for fault in faults:
            if fault.action is not None:
                fault.action()
        try:
            self._send(request, reply, faults)
        except (_Cut, ConnectionError):
            self.close_connection = True

    def _answer(self, request: Request, faults: list[Fault]) -> Answer:
        for fault in faults:
            if fault.kind == "status":
                return Answer(fault.status, dict(fault.headers), Body(fault.body))
        reply = answer(self.server.hub, request)
        for fault in faults:
            if fault.change is not None and reply.json is not None:
                reply = Answer.of_json(fault.change(reply.json), reply.status, reply.headers)
        return reply

    def _send(self, request: Request, reply: Answer, faults: list[Fault]) -> None:
        body, breaks = reply.body, [fault for fault in faults if fault.kind in ("cut", "stall")]
        for fault in breaks:
            if fault.after_bytes < 0:
                self._break(fault)
        request.status = reply.status
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(body.size))
        self.end_headers()
        if request.method == "HEAD":
            return
        wrong = next((f for f in faults if f.kind == "wrong_bytes"), None)
        drip = next((f for f in faults if f.kind == "drip"), None)
        send = self._drip(drip) if drip else self.wfile.write
        start = 0
        for fault in sorted(breaks, key=lambda f: f.after_bytes):
            if fault.after_bytes < 0:
                continue
            self._send_part(request, body, start, min(fault.after_bytes, body.size), send, wrong)
            start = min(fault.after_bytes, body.size)
            self._break(fault)
        self._send_part(request, body, start, body.size, send, wrong)

    def _send_part(
        self,
        request: Request,
        body: Body,
        start: int,
        end: int,
        send: Callable[[bytes], object],
        wrong: Fault | None,
    ) -> None:
        with body.open() as file:
            if (
                wrong is None
                and send == self.wfile.write
                and not isinstance(body.data, bytes)
                and end > start
            ):
                # The kernel copies: this thread holds no lock of Python's while it does.
                self.connection.sendfile(file, body.offset + start, end - start)
                request.bytes_sent += end - start
                return
            for piece_start in range(start, end, PIECE_BYTES):
                file.seek(body.offset + piece_start)
                piece = file.read(min(PIECE_BYTES, end - piece_start))
                if wrong is not None:
                    piece = _flip(piece, wrong, body.offset + piece_start)
                send(piece)
                request.bytes_sent += len(piece)

    def _drip(self, fault: Fault) -> Callable[[bytes], object]:
        def send(piece: bytes) -> None:
            for start in range(0, len(piece), fault.chunk_bytes):
                chunk = piece[start : start + fault.chunk_bytes]
                self.wfile.write(chunk)
                if self.server.hub.stopping.wait(len(chunk) / fault.bytes_per_s):
                    raise _Cut

        return send

    def _break(self, fault: Fault) -> None:
        if fault.kind == "stall":
            fault.released.wait()
            if self.server.hub.stopping.is_set():
                raise _Cut
            return
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Cut


def _flip(piece: bytes, fault: Fault, offset: int) -> bytes:
    """The piece with the bytes of [wrong_at, wrong_at + wrong_count) of the file inverted."""
    first = max(fault.wrong_at - offset, 0)
    last = min(fault.wrong_at + fault.wrong_count - offset, len(piece))
    if first >= last:
        return piece
    return piece[:first] + bytes(byte ^ 0xFF for byte in piece[first:last]) + piece[last:]


def folder_files(folder: Path) -> dict[str, bytes | Path]:
    """Every file below a folder, by its path in the repo."""
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def main() -> None:
    """Serve folders as repos until interrupted: `python -m tests.hub.server org/name=FOLDER ...`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("repos", nargs="+", metavar="ORG/NAME=FOLDER")
    arguments = parser.parse_args()
    with HubServer() as hub:
        for text in arguments.repos:
            name, _, folder = text.partition("=")
            hub.add_repo(name, folder_files(Path(folder)))
        print(hub.endpoint, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
