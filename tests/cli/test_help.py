"""The command itself: help, usage, start-up cost, completion, reference page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ostler.cli.docs import render
from ostler.cli.main import GROUPS, SECTIONS
from tests.cli.conftest import Cli

HEAVY = (
    "pydantic",
    "sqlalchemy",
    "fastapi",
    "starlette",
    "huggingface_hub",
    "openai",
    "prompt_toolkit",
    "rich",
    "uvicorn",
    "psutil",
    "asyncio",
    "xllamacpp",
)


def test_help_shows_every_command_in_its_section(lone: Cli) -> None:
    out = lone.ok("--help")
    for section, commands in SECTIONS.items():
        assert f"\n{section}:\n" in out
        for name in commands:
            assert f"\n  {name} " in out
    assert all(f"\n  {name} " in out for name in GROUPS)
    assert "..." not in out.partition("Start here")[2], "a short help is too long for its line"


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    script = f"import sys, ostler.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_wrong_command_is_told_with_the_near_one_and_exit_code_2(lone: Cli) -> None:
    answer = lone("lst")
    assert answer.code == 2 and "'list'" in answer.err


def test_a_wrong_option_ends_with_exit_code_2(lone: Cli) -> None:
    assert lone("list", "--nonsense").code == 2
    assert lone("serve", "--port", "70000").code == 2


def test_without_a_command_the_help_is_shown(lone: Cli) -> None:
    answer = lone()
    assert "Usage: ostler" in answer.out + answer.err


def test_the_reference_page_is_what_the_help_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    assert page.read_text() == render(), "write it again: python -m ostler.cli.docs > docs/cli.md"


def test_every_command_has_an_example_or_explains_itself() -> None:
    without = [
        name
        for commands in SECTIONS.values()
        for name, command in commands.items()
        if "Example: ostler" not in (command.__doc__ or "")
    ]
    assert without == ["demo", "doctor", "version"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shells_complete_model_names(cli: Cli, demo: str, shell: str) -> None:
    words = "ostler show de"
    answer = cli(
        env={
            "_OSTLER_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": words,
            "COMP_CWORD": "2",
            "_TYPER_COMPLETE_ARGS": words,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
    )
    assert demo in answer.out


def test_completion_is_silent_and_starts_nothing_without_a_server(lone: Cli) -> None:
    answer = lone(
        env={"_OSTLER_COMPLETE": "complete_bash", "COMP_WORDS": "ostler show de", "COMP_CWORD": "2"}
    )
    assert (answer.out.strip(), answer.err) == ("", "")
    assert not lone.data.exists()
