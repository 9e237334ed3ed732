"""A whole server as its administrator meets it: started, ended, killed, started twice."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.serving import ServerProcess

pytestmark = pytest.mark.real

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
ANSWER = "The capital of France is Paris."


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server(data_dir: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(data_dir).start()
    yield server
    server.end_everything()


def add_demo(server: ServerProcess, demo_model: Path) -> None:
    server.ask("/ostler/v1/models", {"name": "demo", "source": {"path": str(demo_model)}})


def is_over(engine: psutil.Process) -> bool:
    """Gone, or only a name left that its parent has not yet read."""
    return not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def answer_of(server: ServerProcess) -> str:
    answer = server.ask("/v1/chat/completions", {**CHAT, "temperature": 0})
    return str(answer["choices"][0]["message"]["content"])


def test_an_engine_outlives_a_killed_server_and_is_adopted_by_the_next(
    server: ServerProcess, data_dir: Path, demo_model: Path
) -> None:
    add_demo(server, demo_model)
    server.ask("/ostler/v1/models/demo/start", {})
    (before,) = server.engines()
    server.kill()
    assert before.is_running()

    second = ServerProcess(data_dir).start()
    try:
        instance = second.ask("/ostler/v1/models/demo")["instance"]
        assert instance["state"] == "running"
        assert [engine.pid for engine in second.engines()] == [before.pid]
        assert answer_of(second) == ANSWER
        second.ask("/ostler/v1/instances/stop-all", {})
        assert is_over(before) and second.engines() == []
    finally:
        second.end_everything()


def test_an_engine_that_died_while_no_server_ran_is_not_called_running(
    server: ServerProcess, data_dir: Path, demo_model: Path
) -> None:
    add_demo(server, demo_model)
    assert answer_of(server) == ANSWER  # started on demand: nobody asked for it to be kept
    (engine,) = server.engines()
    server.kill()
    engine.kill()
    engine.wait(10)

    second = ServerProcess(data_dir).start()
    try:
        assert second.ask("/ostler/v1/models/demo")["state"] in ("stopped", "failed")
        assert answer_of(second) == ANSWER
    finally:
        second.end_everything()


def test_a_server_that_is_ended_leaves_its_engines_and_says_so_by_exit_code_0(
    server: ServerProcess, demo_model: Path
) -> None:
    add_demo(server, demo_model)
    assert answer_of(server) == ANSWER
    (engine,) = server.engines()
    assert server.end() == 0
    assert engine.is_running()
    assert not (server.data_dir / "server.json").exists()


def test_engines_end_with_the_server_where_that_is_asked_for(data_dir: Path, demo_model: Path) -> None:
    server = ServerProcess(data_dir, "--stop-engines-on-exit").start()
    try:
        add_demo(server, demo_model)
        assert answer_of(server) == ANSWER
        (engine,) = server.engines()
        assert server.end() == 0
        assert is_over(engine)
    finally:
        server.end_everything()


def test_a_second_server_on_the_same_data_is_refused_naming_the_first(server: ServerProcess) -> None:
    code, said = ServerProcess(server.data_dir, "--port", "0").refused()
    assert code != 0
    assert server.process is not None
    assert f"pid {server.process.pid}" in said and server.url in said and "ostler serve --stop" in said
    assert server.status("/health") == 200


def test_a_port_in_use_is_named_with_what_to_do(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = ServerProcess(data_dir, "--port", str(port)).refused()
    assert code != 0 and f"port {port}" in said and "--port 0" in said


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    server = ServerProcess(tmp_path / "file" / "data")
    code, said = server.refused()
    assert code != 0 and "cannot be written" in said and "--data-dir" in said and "Traceback" not in said


def test_an_address_that_others_reach_needs_a_key_and_prints_one_alone_on_its_line(data_dir: Path) -> None:
    server = ServerProcess(data_dir, "--host", "0.0.0.0").start()
    try:
        assert server.process is not None and server.process.stdout is not None
        printed = [*server.said, *(server.process.stdout.readline().rstrip("\n") for _ in range(2))]
        (key,) = [line for line in printed if re.fullmatch(r"ostler-[A-Za-z0-9_-]{43}", line)]
        assert server.status("/ostler/v1/models") == 401
        assert server.status("/v1/models") == 401
        assert server.status("/v1/models", Authorization="Bearer ollama") == 401
        assert server.status("/v1/models", Authorization=f"Bearer {key}") == 200
        assert server.status("/health") == 200
        assert key not in server.log.read_text()
        assert server.end() == 0
        again = ServerProcess(data_dir, "--host", "0.0.0.0").start()
        try:
            assert again.process is not None
            again.end()
            assert not [line for line in again.said if line.startswith("ostler-")]
        finally:
            again.end_everything()
    finally:
        server.end_everything()


def test_log_lines_for_machines_are_json(data_dir: Path, demo_model: Path) -> None:
    server = ServerProcess(data_dir, "--log-format", "json", "--stop-engines-on-exit").start()
    try:
        add_demo(server, demo_model)
        assert answer_of(server) == ANSWER
        assert server.end() == 0
        entries = [json.loads(line) for line in server.log.read_text().splitlines()]
        assert entries and all({"time", "level", "logger", "message"} <= set(entry) for entry in entries)
        assert any("demo" in entry["message"] for entry in entries)
    finally:
        server.end_everything()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Host": "localhost:1"}, 200),
    ],
)
def test_web_pages_from_elsewhere_cannot_reach_a_server_on_loopback(
    server: ServerProcess, headers: dict[str, str], status: int
) -> None:
    for path in ("/v1/models", "/ostler/v1/models", "/ostler/v1/keys"):
        assert server.status(path, **headers) == status


def test_a_body_of_100_mb_is_refused_and_the_server_goes_on(server: ServerProcess) -> None:
    huge = {"model": "demo", "prompt": "x" * 100_000_000}
    for path in ("/v1/completions", "/ostler/v1/models"):
        assert server.status(path, huge) == 413
    assert server.status("/health") == 200
