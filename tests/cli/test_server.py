"""Which server a command talks to; serve, its background and its end; version and doctor."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from ostler.cli.connection import find_running, is_alive, normal_url
from ostler.cli.failures import CommandFailed
from ostler.core.server_lock import ServerLock
from tests.cli.conftest import COMMAND, Cli

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:1234", "http://localhost:1234"),
        ("box", "http://box:11500"),
        ("https://llm.example.org/", "https://llm.example.org"),
        ("http://[::1]:11500", "http://[::1]:11500"),
    ],
)
def test_an_address_is_a_url_or_host_and_port(text: str, url: str) -> None:
    assert normal_url(text) == url


@pytest.mark.parametrize("text", ["ftp://x", "http://", "http://x:port", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(CommandFailed) as failure:
        normal_url(text)
    assert failure.value.exit_code == 2


def test_the_note_of_a_dead_server_is_ignored(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    (tmp_path / "server.json").write_text(json.dumps({"pid": ended.pid, "url": "http://127.0.0.1:1"}))
    assert find_running(tmp_path) is None
    (tmp_path / "server.json").write_text("{")
    assert find_running(tmp_path) is None


def test_a_command_starts_a_server_in_the_background_and_says_how_to_end_it(lone: Cli) -> None:
    first = lone("list")
    assert first.code == 0
    assert "ostler serve --stop" in first.err and len(first.err.splitlines()) == 2
    assert "ostler pull" in first.err, "an empty list says what to do next"
    assert first.out == ""
    running = find_running(lone.data)
    assert running is not None and os.getsid(running.pid) == running.pid

    second = lone("ps")
    assert "Started" not in second.err and "ostler run" in second.err

    taken = lone("serve")
    assert taken.code == 1 and running.url in taken.err and str(running.pid) in taken.err

    assert "has ended" in lone.ok("serve", "--stop")
    assert not is_alive(running.pid)
    again = lone("serve", "--stop")
    assert again.code == 4 and "Try: Start one with: ostler serve" in again.err


def test_two_commands_at_once_start_one_server(lone: Cli) -> None:
    commands = [
        subprocess.Popen([*COMMAND, "list", "--json"], env=lone.environment, stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    answers = [command.communicate(timeout=60) for command in commands]
    assert [command.returncode for command in commands] == [0, 0], answers
    assert [json.loads(out)["items"] for out, _ in answers] == [[], []]


def test_a_command_whose_server_gives_way_waits_for_the_one_that_was_first(lone: Cli, cli: Cli) -> None:
    first = find_running(cli.data)
    assert first is not None
    lock = ServerLock(lone.data)
    lock.take()
    try:
        command = subprocess.Popen([*COMMAND, "list", "--json"], env=lone.environment, stdout=-1, text=True)
        log = lone.data / "logs" / "server.log"
        while not log.exists() or "already uses" not in log.read_text():
            assert command.poll() is None
            time.sleep(0.05)
        while psutil.Process(command.pid).children():
            time.sleep(0.01)
        lock.publish({"pid": first.pid, "url": first.url})
        out, _ = command.communicate(timeout=60)
        assert command.returncode == 0 and json.loads(out)["total"] == cli.json("list")["total"]
    finally:
        lock.release()


@pytest.mark.parametrize("words", [("--no-start", "list"), ("list", "--no-start")])
def test_no_start_fails_where_no_server_runs(lone: Cli, words: tuple[str, ...]) -> None:
    answer = lone(*words)
    assert answer.code == 1 and answer.err.splitlines()[-1] == "Try: Start one with: ostler serve"
    assert not lone.data.exists()


def test_a_named_server_that_does_not_answer_is_not_replaced_by_another(lone: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    answer = lone("list", env={"OSTLER_URL": url})
    assert answer.code == 1 and url in answer.err and not lone.data.exists()


def test_a_server_that_cannot_start_is_told_with_its_reason(lone: Cli) -> None:
    answer = lone("list", env={"OSTLER_MAX_RUNNING": "many"})
    assert answer.code == 1 and "max_running" in answer.err and "server.log" in answer.err


def test_serve_reads_the_configuration_file_and_logs_json(lone: Cli, tmp_path: Path) -> None:
    config = tmp_path / "ostler.toml"
    config.write_text("max_running = 7\n")
    lone.ok("serve", "--detach", "--config", str(config), "--log-format", "json", "--log-level", "debug")
    settings = {item["name"]: item for item in lone.json("settings", "list")["items"]}
    assert settings["max_running"]["value"] == 7
    lone.ok("serve", "--stop")
    lines = (lone.data / "logs" / "server.log").read_text().splitlines()
    assert any(line.startswith('{"time"') and json.loads(line) for line in lines)


def test_version_names_the_server_where_one_runs(cli: Cli) -> None:
    told = cli.json("version")
    assert told["server"]["version"] == told["version"]
    assert cli.ok("--version").strip() == f"ostler {told['version']}"


def test_version_needs_no_server(lone: Cli) -> None:
    assert lone.json("version")["server"] is None
    assert not lone.data.exists()


def test_doctor_finds_what_is_there(cli: Cli) -> None:
    told = cli.json("doctor")
    checks = {check["name"]: check for check in told["checks"]}
    assert told["ok"] is True
    assert checks["hub"]["found"].startswith("offline")
    assert "llamacpp" in checks["engines"]["found"]
    assert checks["database"]["level"] == "ok" and "ostler.db" in checks["database"]["found"]
    assert "memory free" in checks["cpu"]["found"]
    assert checks["docker"]["level"] != "failed" and "unix://" in checks["docker"]["found"]
    assert "version" in checks["server"]["found"]


def test_doctor_fails_with_a_hint_where_the_data_folder_is_of_no_use(lone: Cli) -> None:
    lone.data.write_text("a file, not a folder")
    answer = lone("doctor", "--json")
    told = {check["name"]: check for check in json.loads(answer.out)["checks"]}
    lone.data.unlink()
    assert answer.code == 1
    assert told["data folder"]["level"] == "failed" and "OSTLER_DATA_DIR" in told["data folder"]["hint"]


def test_doctor_finds_a_broken_database(lone: Cli) -> None:
    lone.data.mkdir()
    (lone.data / "ostler.db").write_bytes(b"this is no database" * 100)
    answer = lone("doctor")
    assert answer.code == 1 and "failed   database" in answer.out
