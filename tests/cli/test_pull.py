"""Pulling from the hub: progress, resuming, running what was pulled, jobs, search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ostler.cli.targets import file_source, hub_spec
from tests.cli.conftest import Cli
from tests.cli.terminal import CTRL_C
from tests.hub.server import HubServer

pytestmark = pytest.mark.real

QUESTION = "What is the capital of France?"


def test_a_spec_of_the_hub_is_told_from_a_path(tmp_path: Path) -> None:
    assert hub_spec("org/repo") == hub_spec("hf.co/org/repo") == hub_spec("https://huggingface.co/org/repo")
    assert hub_spec("org/repo:Q4_K_M@main") == "org/repo:Q4_K_M@main"
    assert hub_spec("just-a-name") is None and hub_spec("a/b/c") is None
    assert file_source("org/repo:Q4_K_M") is None and file_source("name") is None
    assert file_source("~/x.gguf") == {"path": str(Path.home() / "x.gguf")}
    assert file_source(str(tmp_path)) == {"path": str(tmp_path)}


def test_pull_shows_its_progress_and_makes_a_model_that_runs(
    with_hub: Cli, hub: HubServer, demo_model: Path
) -> None:
    hub.add_repo("org/pulled-GGUF", {"tiny-Q8_0.gguf": demo_model})
    planned = with_hub.ok("pull", "org/pulled-GGUF", "--dry-run")
    assert "tiny-Q8_0.gguf" in planned and "2.1 MB" in planned

    pulled = with_hub("pull", "org/pulled-GGUF")
    assert pulled.code == 0, pulled
    assert "100%  2.1 MB/2.1 MB" in pulled.err
    assert "ostler run org/pulled-GGUF:Q8_0" in pulled.out

    job = next(j for j in with_hub.json("jobs", "list")["items"] if "org/pulled-GGUF" in j["title"])
    assert job["state"] == "succeeded"
    assert job["id"][:8] in with_hub.ok("jobs") and "succeeded" in with_hub.ok("jobs", "show", job["id"][:8])
    assert with_hub("jobs", "show", "ffffffff").code == 4

    requests = len(hub.requests)
    assert with_hub.ok("run", "org/pulled-GGUF", QUESTION).strip()
    assert with_hub.ok("run", "hf.co/org/pulled-GGUF:Q8_0", QUESTION).strip()
    assert len(hub.requests) == requests, "what is here needs no hub"

    refused = with_hub("rm", "org/pulled-GGUF:Q8_0", "--files", "--yes")
    assert refused.code == 1 and "ostler stop" in refused.err
    with_hub.ok("stop", "org/pulled-GGUF:Q8_0")
    with_hub.ok("cp", "org/pulled-GGUF:Q8_0", "shares-the-files")
    removed = with_hub("rm", "org/pulled-GGUF:Q8_0", "--files", "--yes")
    assert removed.code == 0 and "freed" in removed.out and "shares-the-files" in removed.err
    assert with_hub.json("list", "org/pulled", "--files")["items"] == []


def test_a_predefined_alias_is_pulled_by_its_name(with_hub: Cli, hub: HubServer, demo_model: Path) -> None:
    hub.add_repo("microsoft/Phi-3-mini-4k-instruct-gguf", {"Phi-3-mini-4k-instruct-fp16.gguf": demo_model})
    pulled = with_hub("pull", "phi3:mini")
    assert pulled.code == 0 and "Ready: phi3:mini" in pulled.out, pulled
    assert with_hub.json("show", "phi3:mini")["options"] == {"parallel_slots": 4}
    assert with_hub("pull", "phi4:mini").code == 2


def test_a_model_on_the_hub_is_inspected_and_shown_without_downloading_it(
    with_hub: Cli, hub: HubServer, demo_model: Path
) -> None:
    hub.add_repo("org/looked-at-GGUF", {"tiny-Q8_0.gguf": demo_model})
    for command in ("inspect", "show"):
        out = with_hub.ok(command, "org/looked-at-GGUF:Q8_0")
        assert "llama" in out and "Q8_0" in out and "ostler pull org/looked-at-GGUF:Q8_0" in out
        told = with_hub.json(command, "org/looked-at-GGUF")
        assert told["facts"]["context_length"] and told["fetched_bytes"] < told["size_bytes"]
    assert with_hub.json("list", "org/looked-at", "--files")["items"] == []
    assert with_hub("inspect", "org/not-there-GGUF").code == with_hub("show", "org/not-there-GGUF").code == 4
    assert with_hub("inspect", "org/looked-at-GGUF", env={"OSTLER_OFFLINE": "1"}).code != 0


def test_run_pulls_what_is_missing_and_prints_the_answer_only(
    with_hub: Cli, hub: HubServer, demo_model: Path
) -> None:
    hub.add_repo("org/run-it-GGUF", {"tiny-Q8_0.gguf": demo_model})
    answer = with_hub("run", "org/run-it-GGUF:Q8_0", QUESTION)
    assert answer.code == 0, answer
    assert len(answer.out.splitlines()) == 1 and answer.out.strip()
    assert "100%" in answer.err


def test_ctrl_c_keeps_what_is_here_and_the_next_pull_goes_on(
    with_hub: Cli, hub: HubServer, demo_model: Path
) -> None:
    hub.add_repo("org/stopped-GGUF", {"tiny-Q8_0.gguf": demo_model})
    stalled = hub.faults.stall("*tiny-Q8_0.gguf", host="cdn", after_bytes=1_000_000)
    with with_hub.at_terminal("pull", "org/stopped-GGUF:Q8_0") as terminal:
        assert stalled.reached.wait(30)
        terminal.expect("MB/2.1 MB")
        terminal.type(CTRL_C)
        terminal.expect("kept")
        terminal.expect("ostler pull org/stopped-GGUF:Q8_0")
        assert terminal.end() == 130
    stalled.release()
    hub.faults.clear()
    before = len(hub.requests)
    with with_hub.at_terminal("pull", "org/stopped-GGUF:Q8_0") as terminal:
        terminal.expect("100%")
        terminal.expect("Ready: org/stopped-GGUF:Q8_0")
        assert terminal.end() == 0
    ranges = [r.range for r in hub.requests[before:] if r.host == "cdn" and r.method == "GET"]
    assert any(r and not r.startswith("bytes=0-") for r in ranges), ranges


def test_a_detached_pull_is_waited_for_by_its_job(with_hub: Cli, hub: HubServer, demo_model: Path) -> None:
    hub.add_repo("org/detached-GGUF", {"tiny-Q8_0.gguf": demo_model})
    job = json.loads(with_hub.ok("pull", "org/detached-GGUF", "--detach", "--json"))
    assert "succeeded" in with_hub.ok("jobs", "wait", job["id"][:8])


def test_what_the_hub_does_not_have_is_told_with_what_it_has(
    with_hub: Cli, hub: HubServer, demo_model: Path
) -> None:
    hub.add_repo("org/wrong-GGUF", {"tiny-Q8_0.gguf": demo_model})
    wrong_quant = with_hub("pull", "org/wrong-GGUF:Q4_K_M")
    assert wrong_quant.code == 4 and "Q8_0" in wrong_quant.err
    assert with_hub("pull", "org/none").code == 4
    assert with_hub("pull", "just-a-name").code == 2


def test_search_lists_repos(with_hub: Cli, hub: HubServer, demo_model: Path) -> None:
    hub.add_repo("org/found-GGUF", {"tiny-Q8_0.gguf": demo_model}, tags=("gguf",))
    assert "org/found-GGUF" in with_hub.ok("search", "found")
    assert with_hub.json("search", "found")["items"][0]["repo"] == "org/found-GGUF"
    nothing = with_hub("search", "zebra")
    assert nothing.code == 0 and "Nothing found" in nothing.err


def test_offline_pull_makes_no_call_and_says_so(cli: Cli) -> None:
    answer = cli("pull", "org/repo:Q4_K_M")
    assert answer.code == 1 and "OSTLER_OFFLINE" in answer.err
