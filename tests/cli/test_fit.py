"""Whether a model fits, at a terminal: the dry run of a start, exit code 3, and the ledger of doctor."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.real

TIGHT = {"OSTLER_DEVICES": "cpu:10MiB", "OSTLER_DEVICE_RESERVE": "0", "OSTLER_OFFLINE": "1"}


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Cli]:
    """A server that plans with 10 MiB; `small` fits, `other` too but not beside it, `large` never."""
    cli = Cli(tmp_path_factory.mktemp("tight"), in_process=True, **TIGHT)
    cli.ok("serve", "--detach")
    for name, context in (("small", 512), ("other", 1024), ("large", 8192)):
        recipe = cli.home / f"{name}.json"
        options = {"context_length": context}
        recipe.write_text(json.dumps({"source": {"path": str(demo_model)}, "options": options}))
        cli.ok("create", name, "--file", str(recipe))
    yield cli
    cli.end_server()


def test_a_start_that_cannot_fit_is_exit_code_3_with_numbers_and_a_way_out(tight: Cli) -> None:
    answer = tight("start", "large")
    assert answer.code == 3, answer
    assert re.search(r"large does not fit: it needs [23]\d MiB on cpu, which has 10 MiB", answer.err)
    assert "context_length=1024" in answer.err and "--ignore-fit" in answer.err
    assert tight.model("large")["state"] == "failed"
    tight.ok("start", "large", "--ignore-fit")
    assert tight.model("large")["state"] == "running"
    tight.ok("stop", "large")


def test_a_dry_run_shows_the_command_the_fit_and_who_would_leave(tight: Cli) -> None:
    tight.ok("start", "small")
    told = tight.ok("start", "other", "--dry-run")
    assert "--ctx-size 1024" in told
    assert re.search(r"cpu +\S+ MB of \S+ MB: does not fit now", told)
    assert "small" in told and "idle for" in told
    planned = tight.json("start", "other", "--dry-run")
    assert planned["would_stop"] == ["small"] and planned["fits"] is True
    assert tight.model("small")["state"] == "running" and tight.model("other")["state"] == "stopped"
    refused = tight("start", "large", "--dry-run")
    assert refused.code == 3 and "does not fit" in refused.err


def test_what_is_left_open_is_chosen_and_shown_until_it_is_set(tight: Cli, demo_model: Path) -> None:
    tight.ok("add", str(demo_model), "--name", "open")
    assert re.search(
        r"Chosen.*\n +context_length = 1024 +as long as the model was trained for", tight.ok("show", "open")
    )
    assert "context_length = 1024" in tight.ok("start", "open", "--dry-run")
    assert "Chosen: context_length = 1024: " in tight.ok("fit", "open")
    assert "ostler start open" in tight.ok("set", "open", "context_length=512", "threads=1")
    assert tight.model("open")["options"] == {"context_length": 512, "threads": 1}
    assert "Chosen" not in tight.ok("show", "open")
    tight.ok("set", "open", "threads=")
    assert tight.model("open")["options"] == {"context_length": 512}
    assert tight("set", "open", "contxt=1").code == 2 and tight("set", "open", "threads").code == 2


def test_errors_have_codes_that_a_start_can_ignore(tight: Cli, demo_model: Path) -> None:
    recipe = tight.home / "odd.json"
    options = {"context_length": 256, "kv_cache_type": "q8_0", "flash_attention": "off"}
    recipe.write_text(json.dumps({"source": {"path": str(demo_model)}, "options": options}))
    tight.ok("create", "odd", "--file", str(recipe))
    planned = tight("start", "odd", "--dry-run")
    assert planned.code == 1 and "[v_cache_needs_flash_attention]" in planned.err
    refused = tight("start", "odd")
    assert refused.code == 1 and "--ignore v_cache_needs_flash_attention" in refused.err
    assert tight("start", "odd", "--dry-run", "--ignore", "v_cache_needs_flash_attention").code == 0
    assert tight("start", "odd", "--ignore", "nonsense").code == 2
    assert tight("start", "odd", "--ignore", "v_cache_needs_flash_attention").code == 6, "the engine refuses"


def test_what_fits_once_others_have_left_is_no_failure(tight: Cli) -> None:
    tight.ok("start", "small")
    told = tight.ok("fit", "other")
    assert "It fits once those who are named below have left." in told
    assert re.search(r"Would leave: small \(idle for \d+ s", told)


def test_doctor_shows_the_ledger(tight: Cli) -> None:
    tight.ok("start", "small")
    found = {check["name"]: check["found"] for check in tight.json("doctor")["checks"]}
    free, promised = (
        float(number)
        for number in re.findall(r"([\d.]+) MB of 10 MB.*promised to them ([\d.]+) MB", found["cpu"])[0]
    )
    assert free > 0 and promised > 0 and abs(free + promised - 10.5) < 0.15


def test_doctor_shows_it_without_a_server_too(tmp_path: Path) -> None:
    cli = Cli(tmp_path, in_process=True, **{**TIGHT, "OSTLER_DEVICES": "2x24GiB,cpu:1GiB"})
    found = {check["name"]: check["found"] for check in json.loads(cli("doctor", "--json").out)["checks"]}
    assert "26 GB of 26 GB" in found["cuda:1"] and "gpu" not in found
