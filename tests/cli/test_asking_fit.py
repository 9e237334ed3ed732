"""`ostler fit`: what a person asks before a download or a start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.hub.server import HubServer

pytestmark = pytest.mark.real


def test_a_file_is_told_by_device_with_a_verdict(cli: Cli, demo_model: Path) -> None:
    lines = cli.ok("fit", str(demo_model)).splitlines()
    assert lines[2].split()[:2] == ["DEVICE", "WEIGHTS"]
    assert lines[3].split()[0] == "cpu" and lines[3].split()[-1] == "yes"
    assert "It fits. Largest context that fits: 1024 tokens." in lines


def test_a_model_that_does_not_fit_is_exit_code_3_with_what_would(cli: Cli, demo_model: Path) -> None:
    answer = cli("fit", str(demo_model), "--ctx", "64m", "--on", "1GiB+1GiB host")
    assert answer.code == 3 and "does not fit" in answer.out
    assert answer.err.splitlines()[-1] == "Try: The largest context that fits is 1024 tokens: --ctx 1024"
    told = cli.json("fit", str(demo_model), "--ctx", "1024", "--on", "1GiB+1GiB host")
    assert told["fits"] is True


def test_several_contexts_are_a_line_each(cli: Cli, demo: str) -> None:
    lines = cli.ok("fit", demo, "--ctx", "512,1k", "--on", "rtx-4090").splitlines()
    assert [line.split()[0] for line in lines] == ["CONTEXT", "512", "1024"]


def test_unified_memory_is_one_sum(cli: Cli, demo: str) -> None:
    told = cli.json("fit", demo, "--on", "m3-max-64gb")
    assert (told["devices"][0]["id"], told["host"]["shared_bytes"]) == (
        "metal:0",
        told["devices"][0]["total_bytes"],
    )
    assert "One memory for the GPU and cpu: together " in cli.ok("fit", demo, "--on", "m3-max-64gb")
    assert cli("fit", demo, "--on", "60MiB unified", "--ngl", "all").code == 3


def test_hardware_comes_from_a_file_of_the_persons_own(cli: Cli, demo: str, tmp_path: Path) -> None:
    described = tmp_path / "box.json"
    described.write_text(json.dumps({"devices": [{"name": "mine", "memory": "2GiB"}], "host": "8GiB"}))
    told = cli.json("fit", demo, "--on", str(described))
    assert told["devices"][0]["name"] == "mine" and told["devices"][0]["free_bytes"] == 2 << 30
    described.write_text("{")
    broken = cli("fit", demo, "--on", str(described))
    assert broken.code == 2 and "devices" in broken.err.splitlines()[-1]


def test_wrong_words_are_exit_code_2_and_an_unknown_model_4(cli: Cli, demo: str) -> None:
    for words in (
        ["--ctx", "much"],
        ["--gpu", "a"],
        ["--tensor-split", "x,y"],
        ["--kv", "q9"],
        ["--on", "?"],
    ):
        answer = cli("fit", demo, *words)
        assert answer.code == 2 and answer.err.splitlines()[-1].startswith("Try: "), words
    assert cli("fit", "no-such-model").code == 4


def test_a_repo_is_answered_from_its_headers_and_nothing_is_downloaded(
    with_hub: Cli, hub: HubServer, demo_model: Path
) -> None:
    hub.add_repo("org/unfetched-GGUF", {"tiny-Q8_0.gguf": demo_model})
    words = ("--ctx", "512", "--parallel", "1", "--on", "8GiB")
    told = with_hub.json("fit", "org/unfetched-GGUF:Q8_0", *words)
    assert told == with_hub.json("fit", str(demo_model), *words)
    assert with_hub.json("jobs")["items"] == [] or all(
        "unfetched" not in job["title"] for job in with_hub.json("jobs")["items"]
    )
    assert "unfetched" not in with_hub.ok("list", "--files", "--json")


def test_it_says_in_words_whether_the_numbers_are_the_engines_or_measured(cli: Cli, demo: str) -> None:
    assert "(exact, by the engine)" in cli.ok("fit", demo, "--ctx", "512").splitlines()[0]
    assert "(estimated)" in cli.ok("fit", demo, "--on", "8GiB").splitlines()[0]
    cli.ok("start", demo)
    cli.ok("stop", demo)
    assert "(measured when it ran)" in cli.ok("fit", demo).splitlines()[0]
    shown = cli.ok("show", demo)
    assert " measured, " in shown and "last loads took" in shown
    assert "takes" in cli.ok("start", demo, "--dry-run")


def test_the_dry_run_of_a_repo_or_a_file_makes_nothing_of_it(
    with_hub: Cli, hub: HubServer, demo_model: Path
) -> None:
    hub.add_repo("org/untouched-GGUF", {"tiny-Q8_0.gguf": demo_model})
    planned = with_hub("start", "org/untouched-GGUF:Q8_0", "--dry-run")
    assert planned.code == 1 and "ostler pull org/untouched-GGUF:Q8_0" in planned.err
    assert "to download" in planned.out and "context_length = 1024" in planned.out
    elsewhere = with_hub.home / "elsewhere-Q8_0.gguf"
    elsewhere.write_bytes(demo_model.read_bytes())
    assert "--ctx-size 1024" in with_hub.ok("start", str(elsewhere), "--dry-run")
    assert not any("untouched" in job["title"] for job in with_hub.json("jobs")["items"])
    listed = with_hub.ok("list")
    assert "untouched" not in listed and "elsewhere" not in listed
