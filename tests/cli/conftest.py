"""The real `ostler` command against a real server with data of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ostler.cli.client import Client, model_path
from ostler.cli.connection import find_running, is_alive
from ostler.cli.main import main
from tests.cli.terminal import Terminal
from tests.hub.server import HubServer

COMMAND = (sys.executable, "-m", "ostler.cli")


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


class Cli:
    """Runs commands with a home, a data folder and an environment of their own.

    Each is a process of its own, unless `in_process`: what needs a server is then asked from here.
    """

    def __init__(self, home: Path, *, in_process: bool = False, **environment: str) -> None:
        self._in_process = in_process
        self.home = home
        self.data = home / "data"
        foreign = ("OSTLER_", "HF_", "HUGGING", "LLAMA_", "XDG_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment = {
            **own,
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "OSTLER_DATA_DIR": str(self.data),
            "OSTLER_PORT": "0",
            "OSTLER_STOP_ENGINES_ON_EXIT": "1",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "DO_NOT_TRACK": "1",
            "TERM": "xterm",
            **environment,
        }

    def __call__(self, *words: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> Answer:
        """Run one command to its end."""
        environment = {**self.environment, **(env or {})}
        return (
            self._here(words, stdin, environment)
            if self._in_process
            else self._apart(words, stdin, environment)
        )

    def _apart(self, words: Sequence[str], stdin: str | None, environment: Mapping[str, str]) -> Answer:
        ended = subprocess.run(
            [*COMMAND, *words],
            input=stdin or "",
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        return Answer(ended.returncode, ended.stdout, ended.stderr)

    def _here(self, words: Sequence[str], stdin: str | None, environment: Mapping[str, str]) -> Answer:
        """The same command in this process: 0.2 s of imports less for each."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.object(sys, "argv", ["ostler", *words]),
            mock.patch.object(sys, "stdin", io.StringIO(stdin or "")),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        return Answer(code, out.getvalue(), err.getvalue())

    def ok(self, *words: str, stdin: str | None = None) -> str:
        """What a command prints that must work."""
        answer = self(*words, stdin=stdin)
        assert answer.code == 0, (words, answer)
        return answer.out

    def json(self, *words: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.ok(*words, "--json"))

    def api(self, path: str) -> Any:
        """What the server answers, asked without a command: for looking at what a command did."""
        running = find_running(self.data)
        assert running is not None
        return Client(running.url).get(path)

    def model(self, name: str) -> Any:
        """One model as the server knows it."""
        return self.api(model_path(name))

    def at_terminal(self, *words: str, env: Mapping[str, str] | None = None) -> Terminal:
        """Run a command at a terminal of 100 columns."""
        return Terminal([*COMMAND, *words], {**self.environment, **(env or {})})

    def end_server(self) -> None:
        """End the server of this data folder, with its engines."""
        if running := find_running(self.data):
            self("serve", "--stop")
            assert not is_alive(running.pid)


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Cli]:
    """The command where no server runs yet; one that a test starts ends with the test."""
    cli = Cli(tmp_path, OSTLER_OFFLINE="1")
    yield cli
    cli.end_server()


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command with a running server, offline, shared by the tests: they use model names of their own."""
    cli = Cli(tmp_path_factory.mktemp("cli"), in_process=True, OSTLER_OFFLINE="1")
    cli.ok("serve", "--detach")
    yield cli
    cli.end_server()


@pytest.fixture(scope="session")
def demo(cli: Cli, demo_model: Path) -> str:
    """The name of a model on the shared server that answers exactly."""
    recipe = cli.home / "demo.json"
    recipe.write_text(
        json.dumps({"source": {"path": str(demo_model)}, "request_defaults": {"temperature": 0}})
    )
    cli.ok("create", "demo", "--file", str(recipe))
    return "demo"


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    """A hub that the tests of the command line share: they use repos of their own."""
    with HubServer() as hub:
        yield hub


@pytest.fixture(scope="session")
def with_hub(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command with a running server that downloads from that hub."""
    cli = Cli(tmp_path_factory.mktemp("cli-hub"), in_process=True, HF_ENDPOINT=hub.endpoint)
    cli.ok("serve", "--detach")
    yield cli
    cli.end_server()
