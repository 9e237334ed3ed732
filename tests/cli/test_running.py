"""Models at work: start, ps, logs, stop, restart, and chatting with run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.held_server import FIRST, HeldServer
from tests.cli.terminal import CTRL_C, CTRL_D

pytestmark = pytest.mark.real

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


def test_a_model_starts_with_its_states_told_and_stops_again(cli: Cli, demo: str) -> None:
    cli.ok("stop", demo)
    started = cli("start", demo)
    assert started.code == 0, started
    told = [line.split(" (")[0] for line in started.err.splitlines()]
    assert told == ["starting the engine", "loading the model", "ready"]

    rows = [line.split() for line in cli.ok("ps").splitlines()]
    assert rows[0] == ["NAME", "ID", "SIZE", "ESTIMATE", "ENGINE", "PROCESSOR", "STATE", "INFLIGHT", "UNTIL"]
    row = next(row for row in rows if row[0] == demo)
    assert "llamacpp" in row and "running" in row and row[-1] == "Forever"
    assert any(item["model_name"] == demo for item in cli.json("ps")["items"])
    assert len(cli.ok("logs", demo, "--tail", "3").splitlines()) == 3

    before = cli.model(demo)["instance"]
    cli.ok("restart", demo)
    after = cli.model(demo)["instance"]
    assert after["state"] == "running" and after["pid"] != before["pid"]
    shown = cli.ok("show", demo)
    assert "Instance" in shown and " measured, " in shown and " estimated (" in shown
    assert after["estimated_bytes"] > 0 and after["memory_bytes"] > 0

    assert f"Stopped {demo}" in cli.ok("stop", demo)
    assert cli.model(demo)["state"] == "stopped"


def test_stats_show_what_each_engine_does(cli: Cli, demo: str) -> None:
    cli.ok("start", demo)
    rows = [line.split() for line in cli.ok("stats").splitlines()]
    assert rows[0][:7] == ["NAME", "STATE", "RUNNING", "WAITING", "IN/S", "OUT/S", "KV"]
    row = next(row for row in rows if row[0] == demo)
    assert row[1:4] == ["running", "0", "0"] and row[6].endswith("%")
    item = next(item for item in cli.json("stats")["items"] if item["model_name"] == demo)
    assert item["error"] is None and item["generation_tokens_total"] is not None


@pytest.fixture
def own_model(cli: Cli, demo: str) -> Iterator[str]:
    """A copy of the demo's recipe that a test may change."""
    cli.ok("cp", demo, "own-context")
    yield "own-context"
    cli.ok("stop", "own-context")
    cli.ok("rm", "own-context")


def test_stop_needs_a_name_or_all(cli: Cli) -> None:
    assert cli("stop").code == 2
    assert cli("stop", "x", "--all").code == 2
    assert cli("stop", "no-such-model").code == 4


def test_an_engine_that_cannot_load_is_exit_code_6_with_the_reason(
    cli: Cli, tmp_path: Path, demo_model: Path
) -> None:
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(demo_model.read_bytes().replace(b"llama", b"camel", 1))
    cli.ok("add", str(strange), "--name", "strange")
    answer = cli("start", "strange")
    assert answer.code == 6, answer
    assert "camel" in answer.err
    assert answer.err.splitlines()[-1].startswith("Try: ")


def test_run_answers_one_question_and_prints_nothing_else(cli: Cli, demo: str) -> None:
    answer = cli("run", demo, QUESTION)
    assert (answer.code, answer.out, answer.err) == (0, ANSWER + "\n", "")


def test_a_model_that_run_started_stops_when_idle_and_one_that_start_keeps_stays(
    cli: Cli, own_model: str
) -> None:
    cli.ok("run", own_model, "What is the capital of France?")
    by_run = cli.model(own_model)
    assert by_run["desired_state"] == "stopped" and by_run["instance"]["expires_at"] is not None
    cli.ok("start", own_model)
    by_start = cli.model(own_model)
    assert by_start["desired_state"] == "running" and by_start["instance"]["expires_at"] is None
    cli.ok("stop", own_model)


def test_run_takes_words_without_quotes_and_what_is_piped_in(cli: Cli, demo: str) -> None:
    assert cli.ok("run", demo, *QUESTION.split()) == ANSWER + "\n"
    assert cli.ok("run", demo, stdin=QUESTION) == ANSWER + "\n"


def test_run_prints_timings_when_asked(cli: Cli, demo: str) -> None:
    answer = cli("run", demo, QUESTION, "--verbose")
    assert answer.out == ANSWER + "\n"
    assert "answer tokens" in answer.err and "tokens/s" in answer.err


def test_run_takes_a_path_and_finds_the_same_model_the_next_time(
    cli: Cli, tmp_path: Path, demo_model: Path
) -> None:
    path = tmp_path / "by-path.gguf"
    path.write_bytes(demo_model.read_bytes())
    assert cli.ok("run", str(path), QUESTION).strip()
    assert cli.ok("run", str(path), QUESTION).strip()
    assert [m["source"]["path"] for m in cli.api("/models?search=by-path")["items"]] == [str(path)]
    cli.ok("stop", "by-path")


def test_run_with_another_context_changes_the_recipe(cli: Cli, demo: str) -> None:
    cli.ok("cp", demo, "smaller")
    assert cli.ok("run", "smaller", "--ctx", "512", QUESTION) == ANSWER + "\n"
    assert cli.model("smaller")["options"]["context_length"] == 512
    cli.ok("stop", "smaller")


def test_run_of_an_unknown_name_is_exit_code_4(cli: Cli) -> None:
    answer = cli("run", "nothing-like-it", "hi")
    assert answer.code == 4 and "nothing-like-it" in answer.err


def test_a_conversation_remembers_obeys_and_ends(cli: Cli, demo: str) -> None:
    with cli.at_terminal("run", demo) as terminal:
        terminal.expect(">>>")
        terminal.line(QUESTION)
        terminal.expect(ANSWER)
        terminal.expect(">>>")
        terminal.line("/?")
        terminal.expect("/set system")
        terminal.line("/set parameter temperature 0.5")
        terminal.expect("temperature set to 0.5")
        terminal.line("/show")
        terminal.expect("Q8_0")
        terminal.expect("temperature")
        terminal.line("/clear")
        terminal.expect("Forgotten.")
        terminal.line('"""What is the capital')
        terminal.expect("...")
        terminal.line('of Italy?"""')
        terminal.expect(">>>")
        terminal.line("/nonsense")
        terminal.expect("Unknown command /nonsense")
        terminal.line("/bye")
        assert terminal.end() == 0


def test_ctrl_d_leaves_the_conversation(cli: Cli, demo: str) -> None:
    with cli.at_terminal("run", demo) as terminal:
        terminal.expect(">>>")
        terminal.type(CTRL_D)
        assert terminal.end() == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(lone: Cli) -> None:
    with HeldServer() as server, lone.at_terminal("--url", server.url, "run", "held") as terminal:
        terminal.expect(">>>")
        terminal.line("Tell me a story.")
        terminal.expect(FIRST)
        terminal.type(CTRL_C)
        terminal.expect(">>>")
        assert server.cut.wait(10), "the answer was not cut off at the server"
        terminal.type("half a line" + CTRL_C)
        terminal.expect(">>>")
        terminal.line("Go on.")
        terminal.expect("there was an inn.")
        terminal.line("/bye")
        assert terminal.end() == 0
    said = [message["content"] for message in server.questions[1]]
    assert said == ["Tell me a story.", FIRST, "Go on."]


def test_ctrl_c_ends_a_command_that_answers_one_question(lone: Cli) -> None:
    with HeldServer() as server, lone.at_terminal("--url", server.url, "run", "held", "A story.") as terminal:
        terminal.expect(FIRST)
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        assert server.cut.wait(10)


def test_nothing_is_coloured_with_no_color(cli: Cli, demo: str) -> None:
    with cli.at_terminal("show", demo) as terminal:
        assert terminal.end() == 0
        assert "\x1b[1m" in terminal.raw
    with cli.at_terminal("show", demo, env={"NO_COLOR": "1"}) as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.raw
    assert "\x1b" not in cli.ok("show", demo)


def test_keys_are_made_once_and_revoked(cli: Cli) -> None:
    made = cli("keys", "create", "laptop", "--expires", "30d", "--rpm", "60")
    key = made.out.strip()
    assert made.code == 0 and key.startswith("ostler-") and len(made.out.splitlines()) == 1
    listed = next(k for k in cli.json("keys", "list")["items"] if k["name"] == "laptop")
    assert key not in json.dumps(listed) and listed["role"] == "user"
    assert "laptop" in cli.ok("keys")
    assert cli("keys", "list", env={"OSTLER_API_KEY": key}).code == 5
    assert cli("keys", "revoke", "nobody").code == 4
    cli.ok("keys", "revoke", "laptop")
    revoked = cli("--key", key, "list")
    assert revoked.code == 5 and revoked.err.splitlines()[-1].startswith("Try: ")


def test_a_key_may_be_for_some_models_and_be_revoked_by_its_id(cli: Cli) -> None:
    cli.ok("keys", "create", "some-models", "--models", "qwen*", "--models", "gemma*")
    made = next(key for key in cli.api("/keys")["items"] if key["name"] == "some-models")
    assert made["models"] == ["qwen*", "gemma*"]
    cli.ok("keys", "revoke", str(made["id"]))
    assert cli("keys", "revoke", "../some-models").code == 4


def test_groups_list_as_json_without_a_command(cli: Cli) -> None:
    for group in ("keys", "jobs", "settings"):
        assert "items" in cli.json(group)
        assert cli(group, "--json", "list").code == 2


def test_run_says_that_a_context_length_stays_in_the_recipe(cli: Cli, own_model: str) -> None:
    answer = cli("run", own_model, "--ctx", "512", QUESTION)
    assert (answer.code, answer.out) == (0, ANSWER + "\n")
    assert len(answer.err.splitlines()) == 1 and "512" in answer.err
    assert cli("run", own_model, "--ctx", "512", QUESTION).err == ""
    cli.ok("stop", own_model)


def test_a_wrong_role_or_time_is_usage(cli: Cli) -> None:
    assert cli("keys", "create", "x", "--role", "emperor").code == 2
    assert cli("keys", "create", "x", "--expires", "soon").code == 2


def test_settings_are_shown_with_their_source_and_changed_live(cli: Cli) -> None:
    def setting(name: str) -> dict[str, object]:
        return next(item for item in cli.api("/settings")["items"] if item["name"] == name)

    assert setting("offline")["origin"] == "environment"
    cli.ok("settings", "set", "max_queue", "9")
    assert (setting("max_queue")["value"], setting("max_queue")["origin"]) == (9, "changed at run time")
    assert "max_queue" in cli.ok("settings")
    cli.ok("settings", "unset", "max_queue")
    assert setting("max_queue")["origin"] == "default"
    assert cli("settings", "set", "port", "1").code != 0
    assert cli("settings", "set", "max_queu", "1").code in (2, 4)


def test_settings_need_no_server(lone: Cli) -> None:
    answer = lone("settings")
    assert answer.code == 0 and "max_running" in answer.out and "No server runs" in answer.err
    listed = {item["name"]: item for item in lone.json("settings", "list")["items"]}
    assert listed["offline"] == {"name": "offline", "value": True, "origin": "environment", "live": False}
