"""A registry of images on loopback, of which a real daemon pulls: one image, as many bytes as asked for.

It speaks as much of the Docker Registry API v2 as a pull needs
(https://distribution.github.io/distribution/spec/api/). Daemons trust registries on 127.0.0.0/8.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """`image` is the name to pull. `gate` holds back the layers until it is set."""

    def __init__(self, files: dict[str, Path], entrypoint: list[str]) -> None:
        self.gate = threading.Event()
        self.gate.set()
        layer = _tar(files)
        packed = gzip.compress(layer, 1)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Entrypoint": entrypoint},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()
        kinds = {"config": "application/vnd.docker.container.image.v1+json"}
        kinds["layer"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        self.blobs = {_digest(config): config, _digest(packed): packed}
        self.layer = _digest(packed)
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": kinds["config"], "size": len(config), "digest": _digest(config)},
                "layers": [{"mediaType": kinds["layer"], "size": len(packed), "digest": self.layer}],
            }
        ).encode()
        self.image = ""

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Type and body of what is at this path."""
        if path == "/v2/":
            return "application/json", b"{}"
        if "/manifests/" in path:
            return MANIFEST, self.manifest
        body = self.blobs.get(path.rpartition("/")[2])
        return None if body is None else ("application/octet-stream", body)


@contextmanager
def serving(registry: Registry) -> Iterator[Registry]:
    """The registry on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.endswith(registry.layer):
                registry.gate.wait(60)
            self._send(with_body=True)

        def do_HEAD(self) -> None:
            self._send(with_body=False)

        def _send(self, *, with_body: bool) -> None:
            found = registry.answer(self.path)
            kind, body = found or ("application/json", b'{"errors": []}')
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", _digest(body))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    registry.image = f"127.0.0.1:{server.server_port}/llama:1"
    try:
        yield registry
    finally:
        registry.gate.set()
        server.shutdown()
        server.server_close()


def _tar(files: dict[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for inside, here in files.items():
            tar.add(here.resolve(), inside.lstrip("/"))
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
