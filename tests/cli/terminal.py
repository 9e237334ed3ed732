"""A terminal to run a command at: what a person types and sees."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07|\r")
CTRL_C, CTRL_D, ENTER = "\x03", "\x04", "\r"


def _take_terminal() -> None:
    """As a login does: the terminal is ours, and Ctrl-C is heard even where the test run ignores it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class Terminal:
    """A command on a pseudo-terminal; use it as a context manager."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], columns: int = 100) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self.raw = ""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        """Type these keys."""
        os.write(self._master, text.encode())

    def line(self, text: str) -> None:
        """Type a line and Enter."""
        self.type(text + ENTER)

    def expect(self, text: str, timeout_s: float = 30) -> str:
        """Wait until the text appears after what was expected before; all that was new up to it."""
        deadline = time.monotonic() + timeout_s
        while (found := self.screen[self._seen :].find(text)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not appear after {self.screen[self._seen :]!r}")
        start, self._seen = self._seen, self._seen + found + len(text)
        return self.screen[start : self._seen]

    def end(self, timeout_s: float = 30) -> int:
        """Wait for the command to end; its exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    @property
    def screen(self) -> str:
        """All that was printed, without control codes."""
        return _CONTROL.sub("", self.raw)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says so when the command has closed the terminal
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)
