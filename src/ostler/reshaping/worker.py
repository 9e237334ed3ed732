"""The child process of one merge or split: `python -m ostler.reshaping.worker`.

`jobs/child.py` says how it is spoken to. All bytes are written into a hidden folder beside the target,
read again and compared with the sources, and only then given their names.
"""

from __future__ import annotations

import time
from pathlib import Path

from ostler.core.disk import FULL
from ostler.core.errors import OstlerError
from ostler.jobs.child_side import ChildSide
from ostler.jobs.rate import Rate
from ostler.reshaping.copying import compare, put_in_place, write_file
from ostler.reshaping.order import Order

TELL_EVERY_S = 0.1


class Teller:
    """Says how far it is: bytes written and bytes compared, of twice the size."""

    def __init__(self, server: ChildSide, total_bytes: int) -> None:
        self._server = server
        self._total = total_bytes
        self._done = 0
        self._rate = Rate(time.monotonic)
        self._told_at = 0.0
        self.current_file = ""

    def __call__(self, step: str, n_bytes: int) -> None:
        """So many more bytes are done."""
        self._done = min(self._done + n_bytes, self._total)
        now = time.monotonic()
        if now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        rate = self._rate.at(self._done)
        self._server.say(
            "progress",
            bytes_done=self._done,
            bytes_total=self._total,
            current_file=self.current_file,
            rate_bytes_per_s=round(rate),
            eta_s=round((self._total - self._done) / rate, 1) if rate > 0 else None,
            step=step,
        )


def carry_out(order: Order, server: ChildSide) -> None:
    """Write, compare, put in place. Raises OstlerError and OSError."""
    with server.alone_in(order.staging, "makes the same files"):
        new = order.files()
        total = sum(file.size_bytes for file in new)
        tell = Teller(server, 2 * total)
        written: list[Path] = []
        for file in new:
            tell.current_file = file.name
            written.append(write_file(file, order.staging, tell))
        for file, path in zip(new, written, strict=True):
            tell.current_file = file.name
            compare(file, path, tell)
        put_in_place(written, Path(order.folder))
    server.say("done", bytes=total)


def main() -> None:
    """Carry out the order on stdin. Exit codes: 0 done, 1 failed and said so, 3 nobody waits."""
    server = ChildSide()
    order = Order.from_json(server.read_order())
    server.listen(lambda _: None, lambda: None)
    try:
        carry_out(order, server)
    except OstlerError as error:
        server.say("failed", code=error.code, message=error.message)
        server.exit(1)
    except OSError as error:
        code = "disk_full" if error.errno in FULL else "disk_error"
        server.say("failed", code=code, message=f"{error.strerror}: {error.filename or order.folder}")
        server.exit(1)
    server.exit(0)


if __name__ == "__main__":
    main()
