"""A server that holds an answer in the middle, so that a test can interrupt it there for certain."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

FIRST = "Once upon a time"


class HeldServer:
    """Answers what `ostler run` asks. The first chat answer stops after FIRST until the client is gone."""

    def __init__(self) -> None:
        self.questions: list[list[dict[str, Any]]] = []
        self.cut = threading.Event()
        self.ended = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> HeldServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        held = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._json({"name": "held", "state": "running", "status": "ok", "source": {}})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                if not self.path.startswith("/v1/"):
                    self._json({"state": "running"})
                    return
                held.questions.append(body["messages"])
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self._piece(FIRST)
                if len(held.questions) == 1:
                    self._hold()
                else:
                    self._piece(" there was an inn.")
                    self.wfile.write(b"data: [DONE]\n\n")

            def _hold(self) -> None:
                try:
                    while not held.ended.wait(0.02):
                        self.wfile.write(b": waiting\n\n")
                except OSError:
                    held.cut.set()

            def _piece(self, text: str) -> None:
                chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

            def _json(self, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler
