"""Faults on demand for the test hub.

Each call of `hub.faults.<kind>(...)` adds one fault and returns it. All kinds take

    path    a glob over the request's path ("*/model.gguf", "/api/models/*"); "*" matches "/" too
    host    "hub" or "cdn" (where large files are redirected to); both by default
    method  "GET" or "HEAD"; by default any for `status` and `run`, GET for faults of the body
    nth     from which matching request on it strikes (1 is the first)
    times   how many requests it strikes; None for all that follow

`fault.struck` counts; `fault.reached` is an event that is set when it strikes for the first time.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Fault:
    """One fault; see the functions of `Faults` for what each kind means."""

    kind: str
    path: str = "*"
    host: str | None = None
    method: str | None = None
    nth: int = 1
    times: int | None = 1
    after_bytes: int = 0
    reset: bool = False
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    wrong_at: int = 0
    wrong_count: int = 1
    bytes_per_s: float = 0.0
    chunk_bytes: int = 1024
    change: Callable[[Any], Any] | None = None
    action: Callable[[], object] | None = None
    seen: int = 0
    struck: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """End a stall: the rest of the body follows."""
        self.released.set()

    def strikes(self, host: str, method: str, path: str) -> bool:
        """Count a request, and say whether the fault is for it."""
        if self.host not in (None, host) or self.method not in (None, method):
            return False
        if not fnmatch.fnmatchcase(path, self.path):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times is not None and self.seen >= self.nth + self.times):
            return False
        self.struck += 1
        self.reached.set()
        return True


class Faults:
    """The faults of one hub, safe to change while it runs."""

    def __init__(self) -> None:
        self._all: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Add one made by hand."""
        with self._lock:
            self._all.append(fault)
        return fault

    def clear(self) -> None:
        """Forget all, and end every stall."""
        with self._lock:
            for fault in self._all:
                fault.release()
            self._all.clear()

    def striking(self, host: str, method: str, path: str) -> list[Fault]:
        """Those that strike this request. Every fault counts the request, also when another strikes first."""
        with self._lock:
            return [fault for fault in self._all if fault.strikes(host, method, path)]

    def cut(self, path: str = "*", *, after_bytes: int = 0, reset: bool = False, **where: Any) -> Fault:
        """Close the connection after so many bytes of the body (-1: before the status line).

        `reset` sends RST instead of FIN.
        """
        where.setdefault("method", "GET")
        return self.add(Fault("cut", path, after_bytes=after_bytes, reset=reset, **where))

    def status(
        self,
        path: str = "*",
        *,
        status: int = 503,
        retry_after: int | str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        **where: Any,
    ) -> Fault:
        """Answer with an error instead, 429 with `retry_after=2` for example."""
        more = {**(headers or {}), **({"Retry-After": str(retry_after)} if retry_after is not None else {})}
        return self.add(Fault("status", path, status=status, headers=more, body=body, **where))

    def wrong_bytes(self, path: str = "*", *, at: int = 0, count: int = 16, **where: Any) -> Fault:
        """Flip `count` bytes at an offset of the file: same length, other contents."""
        where.setdefault("method", "GET")
        return self.add(Fault("wrong_bytes", path, wrong_at=at, wrong_count=count, **where))

    def drip(self, path: str = "*", *, bytes_per_s: float, chunk_bytes: int = 1024, **where: Any) -> Fault:
        """Send the body slowly."""
        where.setdefault("method", "GET")
        return self.add(Fault("drip", path, bytes_per_s=bytes_per_s, chunk_bytes=chunk_bytes, **where))

    def stall(self, path: str = "*", *, after_bytes: int = 0, **where: Any) -> Fault:
        """Fall silent after so many bytes (-1: before the status line) until `fault.release()`."""
        where.setdefault("method", "GET")
        return self.add(Fault("stall", path, after_bytes=after_bytes, **where))

    def no_ranges(self, path: str = "*", **where: Any) -> Fault:
        """Ignore the Range header: 200 and the whole file. For all requests unless `times` says less."""
        where.setdefault("times", None)
        return self.add(Fault("no_ranges", path, **where))

    def edit(self, path: str, change: Callable[[Any], Any], **where: Any) -> Fault:
        """Change the JSON of an answer (`change` gets it and returns what is sent). For all requests."""
        where.setdefault("times", None)
        return self.add(Fault("edit", path, change=change, **where))

    def redirect(self, path: str, to: str, *, status: int = 302, **where: Any) -> Fault:
        """Send the client to another address."""
        return self.add(Fault("status", path, status=status, headers={"Location": to}, **where))

    def run(self, path: str, action: Callable[[], object], **where: Any) -> Fault:
        """Do something between this request and the next: `action=lambda: repo.commit({...})`.

        It happens when the answer has been made and before it is sent, so whoever has the answer
        knows that it is done.
        """
        return self.add(Fault("run", path, action=action, **where))
