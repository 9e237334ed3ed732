"""A stand-in for an inference server: real HTTP, scripted manners, standard library only.

Run as a program it is an engine for the process runtime; the fake runtime runs the same class inside
the test. `GET /health` says 503 while loading and 200 when ready, as llama.cpp does. Further paths let a
test command it: /exit?code=3, /kill?signal=9, /say?text=hello, /env?name=HOME, /sick.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

REASONS = {200: "OK", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}

CHILD = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


def parse(args: Sequence[str]) -> argparse.Namespace:
    """The manners asked for; unknown arguments (a real engine's) are let pass."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--load-s", type=float, default=0.0, help="seconds until ready; negative: never")
    parser.add_argument("--lines", type=int, default=0, help="numbered lines to print at start")
    parser.add_argument("--say", action="append", default=[], help="a line to print at start")
    parser.add_argument("--junk", type=int, default=0, help="bytes of one line that is not UTF-8")
    parser.add_argument("--exit-code", type=int, help="end at once with this code")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--child", action="store_true", help="have a child that ignores SIGTERM")
    return parser.parse_known_args(list(args))[0]


class StandIn:
    """One server. `say` takes log bytes, `leave` ends the program."""

    def __init__(
        self,
        manners: argparse.Namespace,
        environment: Mapping[str, str],
        say: Callable[[bytes], None],
        leave: Callable[[int], None],
    ) -> None:
        self.manners = manners
        self.environment = environment
        self.say = say
        self.leave = leave
        self.is_ready = False
        self.is_sick = False
        self.is_mute = False
        self.unanswered = 0
        self.server: asyncio.Server | None = None

    def talk(self) -> None:
        """What it prints at start."""
        for number in range(self.manners.lines):
            self.say(b"line %d\n" % number)
        for text in self.manners.say:
            self.say(text.encode() + b"\n")
        if self.manners.junk:
            self.say(b"\xff" * self.manners.junk + b"\n")

    async def listen(self) -> int:
        """Begin to listen; gives the port."""
        self.server = await asyncio.start_server(self._serve, self.manners.host, self.manners.port)
        return int(self.server.sockets[0].getsockname()[1])

    async def load(self) -> None:
        """Become ready after the asked-for time."""
        if self.manners.load_s >= 0:
            await asyncio.sleep(self.manners.load_s)
            self.is_ready = True
            self.say(b"ready\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            url = urlsplit(head.split(b" ", 2)[1].decode())
            if url.path == "/health" and self.is_mute:
                self.unanswered += 1
                await reader.read()  # until the one who asked gives up
                return
            status, body = self._answer(url.path, dict(parse_qsl(url.query)))
            writer.write(
                f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if path == "/health":
            if self.is_sick:
                return 500, b"sick"
            return (200, b'{"status":"ok"}') if self.is_ready else (503, b'{"status":"loading"}')
        if path == "/exit":
            self.leave(int(query["code"]))
        elif path == "/kill":
            self.leave(-int(query["signal"]))
        elif path == "/say":
            self.say(query["text"].encode() + b"\n")
        elif path == "/sick":
            self.is_sick = True
        elif path == "/mute":
            self.is_mute = True
        elif path == "/unanswered":
            return 200, str(self.unanswered).encode()
        elif path == "/env":
            value = self.environment.get(query["name"])
            return (404, b"") if value is None else (200, value.encode())
        return 200, b""


def main() -> None:
    manners = parse(sys.argv[1:])

    def leave(code: int) -> None:
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(code)

    def say(line: bytes) -> None:
        os.write(1, line)

    def end() -> None:
        say(b"bye\n")
        os._exit(0)

    async def run() -> None:
        server = StandIn(manners, os.environ, say, leave)
        loop = asyncio.get_running_loop()
        if manners.ignore_term:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            loop.add_signal_handler(signal.SIGTERM, end)
        if manners.child:
            child = subprocess.Popen([sys.executable, "-S", "-E", "-c", CHILD], stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            say(b"child %d\n" % child.pid)
        server.talk()
        if manners.exit_code is not None:
            leave(manners.exit_code)
        await server.listen()
        await server.load()
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    main()
