"""The demo: everything once, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Cli
from tests.cli.terminal import CTRL_C

pytestmark = pytest.mark.real

ANSWER = "The capital of France is Paris."


@pytest.fixture
def here(lone: Cli, tmp_path: Path) -> Cli:
    """The command with a folder for temporary files of its own."""
    (tmp_path / "tmp").mkdir()
    lone.environment["TMPDIR"] = str(tmp_path / "tmp")
    return lone


def _left(cli: Cli) -> list[str]:
    """Processes and files that belong to this demo."""
    tmp = cli.environment["TMPDIR"]
    processes = [
        " ".join(p.info["cmdline"])
        for p in psutil.process_iter(["cmdline", "status"])
        if p.info["status"] != psutil.STATUS_ZOMBIE and any(tmp in part for part in p.info["cmdline"] or ())
    ]
    return [*processes, *(str(path) for path in Path(tmp).iterdir())]


def test_the_demo_shows_the_whole_way_and_leaves_nothing_behind(here: Cli) -> None:
    answer = here("demo")
    assert answer.code == 0, answer
    for words in (
        "llama",
        "1.9M",
        "Q8_0",
        "1024 tokens",
        "2.1 MB",
        "weights",
        "KV cache",
        "--model",
        "starting the engine",
        "loading the model",
        "ready",
        ANSWER,
        "How to go on",
    ):
        assert words in answer.out, words
    assert "\x1b" not in answer.out and _left(here) == []
    assert not here.data.exists()


def test_ctrl_c_in_the_demo_leaves_nothing_behind_either(here: Cli) -> None:
    with here.at_terminal("demo") as terminal:
        terminal.expect("What exactly will run")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
    assert _left(here) == []


def test_a_kept_demo_goes_on_until_it_is_ended_as_it_says(here: Cli) -> None:
    answer = here("demo", "--keep")
    assert answer.code == 0, answer
    url = next(word for word in answer.out.split() if word.startswith("http://127.0.0.1:"))
    assert here.ok("--url", url, "run", "demo", "What is the capital of France?").strip() == ANSWER
    here.ok("--url", url, "stop", "--all")
    folder = next(Path(here.environment["TMPDIR"]).iterdir())
    here.ok("serve", "--stop", "--data-dir", str(folder))
    assert [left for left in _left(here) if not left.startswith(str(folder))] == []
