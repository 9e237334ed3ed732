"""`ostler merge` and `ostler split` as a person types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.real


def test_a_split_model_is_merged_and_serves(cli: Cli, shared: Path) -> None:
    first = shared / "demo-model" / "split" / "ostler-demo-F16-00001-of-00003.gguf"
    out = cli.ok("merge", str(first))
    made = cli.data / "reshaped" / "ostler-demo-F16.gguf"
    assert str(made) in out
    assert cli.ok("run", str(made), "hi").strip()
    assert len(cli.json("inspect", str(made))["files"]) == 1


def test_a_model_is_split_by_its_name_and_the_job_is_listed_as_done(cli: Cli, demo_model: Path) -> None:
    cli.ok("add", str(demo_model), "--name", "to-split")
    ended = cli.json("split", "to-split", "--size", "1MB", "--name", "parts")
    assert len(ended["result"]["files"]) == 3
    assert "100%" in next(line for line in cli.ok("jobs").splitlines() if "split parts" in line)


def test_a_wrong_limit_says_what_to_give(cli: Cli, demo_model: Path) -> None:
    for words in ((), ("--size", "much"), ("--size", "1MB", "--tensors", "3")):
        answer = cli("split", str(demo_model), *words)
        assert answer.code == 2 and answer.err.startswith("Error: "), answer
