"""Predefined aliases: those that come with Ostler, and an operator's own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.engines.registry import ENGINES
from ostler.hub.specs import parse_spec
from ostler.models.predefined import SHIPPED, Predefined, PredefinedFileUnusable, PredefinedNotFound


def test_every_shipped_alias_names_a_file_and_options_that_the_engine_has() -> None:
    assert len({alias.name for alias in SHIPPED}) == len(SHIPPED) == 11
    (llamacpp,) = (engine for engine in ENGINES if engine.name == "llamacpp")
    for alias in SHIPPED:
        spec = parse_spec(alias.spec)
        assert (spec.repo, spec.selector, spec.revision) == (alias.repo, alias.file, None)
        assert llamacpp.options.validate(alias.options) == alias.options


async def test_an_operators_entry_is_added_and_wins_over_ours(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    predefined = Predefined(lambda: file)
    assert len(await predefined.list()) == len(SHIPPED)
    file.write_text("- {alias: phi3:mini, repo: org/other, filename: a.gguf, context_params: {n_ctx: 512}}\n")
    found = await predefined.get("phi3:mini")
    assert (found.repo, found.file, found.options) == ("org/other", "a.gguf", {"context_length": 512})
    assert len(await predefined.list()) == len(SHIPPED)
    file.write_text("- {alias: my:own, repo: org/other, filename: a.gguf, snapshot: v1}\n")
    assert (await predefined.get("my:own")).spec == "org/other:a.gguf@v1"
    with pytest.raises(PredefinedNotFound, match="my:owm") as none:
        await predefined.get("my:owm")
    assert none.value.hint == "Did you mean my:own?"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("alias: a", "not a list"),
        ("- [", "not valid YAML"),
        ("- {alias: a, repo: org/x}", "entry 1: filename is missing"),
        ("- {alias: a, repo: nothing, filename: a.gguf}", "entry 1"),
        ("- {alias: a, repo: org/x, filename: ../a.gguf}", "leads out"),
        ("- {alias: a, repo: org/x, filename: a.gguf, request_params: {temperature: 3}}", "from 0 to 2"),
        ("- {alias: a, repo: org/x, filename: a.gguf, context_params: {n_ctx: big}}", "whole number"),
        ("- {alias: a, repo: org/x, filename: a.gguf, description: [x]}", "must be texts"),
        ("- {alias: a, repo: org/x, filename: a.gguf, request_params: {user: &a [x, x]}}", "not a list"),
        ("- !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
async def test_a_file_that_says_nonsense_is_told_with_the_place(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(PredefinedFileUnusable, match=reason):
        await Predefined(lambda: file).list()
