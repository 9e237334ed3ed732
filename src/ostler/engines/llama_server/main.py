"""The program: read the arguments, load the model, serve until a signal says stop."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from ostler.engines.llama_server.arguments import Arguments, BadArgument, read_arguments

OK, FAILED, USAGE = 0, 1, 2
"""Exit codes: stopped as asked; could not load or listen; an argument that cannot be honoured."""

FIT_MEMORY = "--fit-memory"
LAST_WORDS_S = 0.3
"""llama.cpp logs from a thread of its own: the reason of a failure must be out before the process ends."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """`ostler-llama-server`; never returns.

    While the model loads, SIGTERM and SIGINT kill at once: the loader holds the interpreter, so
    a handler of ours could not run. Once it serves, they end it with exit code 0. The process
    ends by `os._exit`, because the engine's own clean-up was seen not to return.
    """
    argv = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if any(word in ("--help", "-h", "--usage") for word in argv):
        from ostler.engines.llama_server.usage import help_text

        _say(help_text(), sys.stdout)
        os._exit(OK)
    if "--version" in argv:
        from ostler.engines.llama_server.usage import version_text

        _say(version_text(), sys.stdout)
        os._exit(OK)
    if "--list-devices" in argv:
        from ostler.engines.llama_server.usage import devices_text

        _say(devices_text(_engine()), sys.stdout)
        os._exit(OK)
    try:
        asks_memory = FIT_MEMORY in argv
        arguments = read_arguments([word for word in argv if word != FIT_MEMORY], os.environ)
        x = _engine()
        if asks_memory:
            _tell_memory(arguments, x)
        from ostler.engines.llama_server.parameters import make_parameters

        params = make_parameters(arguments, x)
    except BadArgument as error:
        _say(f"error: {error}\n")
        os._exit(USAGE)
    try:
        server = x.Server(params)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told and ends the process
        time.sleep(LAST_WORDS_S)
        _say(f"error: the engine could not start: {error}\n")
        os._exit(FAILED)
    _say(f"ostler-llama-server: serving on {server.listening_address}\n")
    name = _wait_for_signal()
    _say(f"ostler-llama-server: {name}, stopping\n")
    os._exit(OK)


def _tell_memory(arguments: Arguments, x: Any) -> NoReturn:
    from ostler.engines.llama_server.fit_memory import memory_text

    text = memory_text(arguments, x)
    if text is None:
        _say("error: the engine does not say what it would take\n")
        os._exit(FAILED)
    _say(text, sys.stdout)
    os._exit(OK)


def _engine() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise BadArgument(f"the built-in engine cannot be loaded: {error}") from None
    return xllamacpp


def _say(text: str, stream: Any = None) -> None:
    stream = stream or sys.stderr
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        return  # nobody listens any more; that must not keep an engine from ending


def _wait_for_signal() -> str:
    """Wait for SIGTERM or SIGINT, whichever thread gets it; returns its name."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)

    def handler(_number: int, _frame: FrameType | None) -> None:
        """Only there so that the signal is noted in the pipe instead of killing."""

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
    while True:
        number = os.read(reader, 1)
        if number and number[0] in (signal.SIGTERM, signal.SIGINT):
            return signal.Signals(number[0]).name
