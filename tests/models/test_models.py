"""Recipes: what is accepted, what is refused, and what survives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ostler.core.errors import InvalidField, NotAllowed, OstlerError
from ostler.core.events import EventLog
from ostler.core.principals import Principal
from ostler.core.states import DesiredState
from ostler.models.index import ModelNotFound
from ostler.models.records import Model, NewModel, Policy, Source
from ostler.models.service import ChangedMeanwhile, ModelInUse, Models, NameTaken, ReadOnlyModel
from ostler.models.sources import ModelFileBroken, ModelFileGone

DEMO = NewModel({"path": "demo.gguf"})


async def test_a_file_in_the_models_folder_becomes_a_stopped_llamacpp_model_named_after_it(
    models: Models, admin: Principal, models_dir: Path
) -> None:
    model = await models.create(DEMO, admin)
    assert (model.name, model.engine, model.runtime) == ("demo", "llamacpp", "process")
    assert model.source == Source("file", path=str(models_dir / "demo.gguf"))
    assert model.desired_state is DesiredState.STOPPED and model.revision == 1
    assert (await models.resolve_files(model)).path == models_dir / "demo.gguf"


async def test_everything_given_is_kept_through_a_restart(
    models: Models, admin: Principal, events: EventLog
) -> None:
    given = replace(
        DEMO,
        name="org/demo:q8.0",
        aliases=("b", "a"),
        description="a test",
        options={"context_length": 512, "gpu_layers": 0},
        env={"GGML_LOG": "1"},
        request_defaults={"temperature": 0, "stop": ["x"]},
        policy={"pinned": True, "idle_timeout_s": 0, "priority": 5},
        dialect_data={"cortex": {"task": "generate"}},
    )
    created = await models.create(given, admin)
    await models.start()  # reads everything from the database again
    model = models.get("org/demo:q8.0")
    assert model == created
    assert model.options == {"context_length": 512, "gpu_layers": 0}
    assert model.policy == Policy(pinned=True, idle_timeout_s=0, priority=5)
    assert models.get("a") is models.get("b") is model
    kept, _ = await events.find(kind="model.created")
    assert [(event.subject_name, event.actor) for event in kept] == [("org/demo:q8.0", admin.name)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": " a"}, "cannot be a model's name"),
        ({"name": "a\tb"}, "cannot be a model's name"),
        ({"name": "../x"}, "cannot be a model's name"),
        ({"name": "a/../b"}, "'..'"),
        ({"name": "a//b"}, "empty"),
        ({"name": "status"}, "reserved"),
        ({"name": "org/demo/start"}, "reserved"),
        ({"name": "x" * 201}, "at most 200"),
        ({"aliases": ("blank behind ",)}, "cannot be a model's name"),
        ({"runtime": "cloud"}, "unknown runtime"),
        ({"engine": "lamacpp"}, "lamacpp"),
        ({"origin": "elsewhere"}, "unknown origin"),
        ({"options": {"context_lenght": 1}}, "context_lenght"),
        ({"options": {"context_length": "many"}}, "context_length"),
        ({"options": {"context_length": -5}}, "context_length"),
        ({"extra_args": ("--port", "1")}, "port"),
        ({"engine_command": " "}, "engine_command"),
        ({"env": {"1A": "x"}}, "environment variable"),
        ({"env": {"A": 1}}, "must be a text"),
        ({"env": {"LLAMA_API_KEY": "x"}}, "LLAMA_API_KEY"),
        ({"request_defaults": {"messages": []}}, "belongs to each request"),
        ({"policy": {"pined": True}}, "pined"),
        ({"policy": {"pinned": 1}}, "true or false"),
        ({"policy": {"idle_timeout_s": -1}}, "idle_timeout_s"),
        ({"policy": {"restart_limit": 1.5}}, "whole number"),
        ({"source": {}}, "source needs"),
        ({"source": {"path": 5}}, "source.path"),
        ({"source": {"path": "demo.gguf", "hub": "a/b"}}, "source needs"),
        ({"source": {"path": "../secret.gguf"}}, ".."),
        ({"source": {"path": "/tmp/../etc/passwd"}}, ".."),
        ({"source": {"path": "none.gguf"}}, "none.gguf"),
        ({"source": {"hub": "not a spec"}}, "not a spec"),
        ({"source": {"hub": "org/repo:Q4_K_M"}}, "not here"),
    ],
)
async def test_a_wrong_recipe_is_refused_in_words_and_nothing_is_kept(
    models: Models, admin: Principal, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(OstlerError) as caught:
        await models.create(replace(DEMO, **change), admin)
    assert told in caught.value.message
    assert (await models.list()).total == 0


async def test_a_misspelt_policy_field_is_answered_with_the_near_name(
    models: Models, admin: Principal
) -> None:
    with pytest.raises(InvalidField) as caught:
        await models.create(replace(DEMO, policy={"pined": True}), admin)
    assert caught.value.hint == "Did you mean policy.pinned?"


async def test_a_link_that_leads_out_of_the_models_folder_is_refused(
    models: Models, admin: Principal, models_dir: Path, demo_model: Path
) -> None:
    (models_dir / "link.gguf").symlink_to(demo_model)
    with pytest.raises(OstlerError):
        await models.create(NewModel({"path": "link.gguf"}), admin)


async def test_only_an_administrator_may_use_a_file_outside_every_root(
    models: Models, admin: Principal, manager: Principal, demo_model: Path
) -> None:
    outside = NewModel({"path": str(demo_model)}, name="outside")
    with pytest.raises(NotAllowed, match="outside every library folder"):
        await models.create(outside, manager)
    assert (await models.create(outside, admin)).name == "outside"


async def test_a_user_may_not_create_change_or_delete(
    models: Models, admin: Principal, user: Principal
) -> None:
    with pytest.raises(NotAllowed):
        await models.create(DEMO, user)
    await models.create(DEMO, admin)
    with pytest.raises(NotAllowed):
        await models.update("demo", {"description": "x"}, user)
    with pytest.raises(NotAllowed):
        await models.delete("demo", user)


@pytest.mark.parametrize(
    "reach",
    [
        {"options": {"log_file": "{models}/demo.gguf"}},
        {"options": {"tools": "all"}},
        {"options": {"lora": ["/etc/passwd"]}},
        {"options": {"lora": ["{models}/../../x.gguf"]}},
        {"options": {"grammar_file": "relative.gbnf"}},
        {"extra_args": ["--log-file", "/tmp/x"]},
        {"extra_args": ["--nobody-knows-this=1"]},
        {"env": {"LLAMA_ARG_LOG_FILE": "/tmp/x"}},
        {"env": {"GGML_BACKEND_PATH": "/tmp/x.so"}},
    ],
)
async def test_only_an_administrator_lets_an_engine_reach_beyond_the_library(
    models: Models, admin: Principal, manager: Principal, models_dir: Path, reach: dict[str, Any]
) -> None:
    reach = json.loads(json.dumps(reach).replace("{models}", str(models_dir)))
    with pytest.raises(NotAllowed):
        await models.create(replace(DEMO, **reach), manager)
    await models.create(replace(DEMO, **reach), admin)
    kept = await models.update("demo", {"description": "by the manager"}, manager)
    assert kept.description == "by the manager"


async def test_others_may_name_files_of_the_library_and_flags_that_are_known(
    models: Models, manager: Principal, models_dir: Path
) -> None:
    adapter = str(models_dir / "adapter.gguf")
    made = await models.create(
        replace(DEMO, options={"lora": [adapter]}, extra_args=("--threads", "-1")), manager
    )
    assert made.options["lora"] == [adapter]
    (models_dir / "away.gguf").symlink_to("/etc/hostname")
    with pytest.raises(NotAllowed):
        await models.update("demo", {"options": {"lora": [str(models_dir / "away.gguf")]}}, manager)


@pytest.mark.parametrize(
    "program",
    [{"engine_command": "/opt/llama-server"}, {"env": {"LD_PRELOAD": "/x.so"}}, {"env": {"PATH": "/x"}}],
)
async def test_only_an_administrator_says_which_program_runs(
    models: Models, admin: Principal, manager: Principal, program: dict[str, Any]
) -> None:
    with pytest.raises(NotAllowed):
        await models.create(replace(DEMO, **program), manager)
    await models.create(DEMO, manager)
    with pytest.raises(NotAllowed):
        await models.update("demo", program, manager)
    await models.update("demo", program, admin)
    kept = await models.update("demo", {"description": "by the manager"}, manager)
    assert kept.engine_command == program.get("engine_command") and kept.env == program.get("env", {})
    if kept.engine_command:
        gone = await models.update("demo", {"engine_command": None}, manager)
        assert gone.engine_command is None


async def test_two_models_cannot_share_a_name_or_an_alias(models: Models, admin: Principal) -> None:
    await models.create(replace(DEMO, aliases=("other",)), admin)
    for taken in (DEMO, replace(DEMO, name="other"), replace(DEMO, name="new", aliases=("demo",))):
        with pytest.raises(NameTaken):
            await models.create(taken, admin)
    assert (await models.list()).total == 1


async def test_an_unknown_name_is_answered_with_near_ones(models: Models, admin: Principal) -> None:
    await models.create(replace(DEMO, name="qwen3-8b"), admin)
    with pytest.raises(ModelNotFound) as caught:
        models.get("qwen3-8")
    assert caught.value.hint == "Did you mean qwen3-8b?"


async def test_a_change_merges_documents_and_null_takes_a_key_out(models: Models, admin: Principal) -> None:
    await models.create(replace(DEMO, options={"context_length": 512, "parallel_slots": 2}), admin)
    changed = await models.update(
        "demo", {"options": {"context_length": 1024, "parallel_slots": None}, "description": "new"}, admin
    )
    assert changed.options == {"context_length": 1024}
    assert changed.description == "new" and changed.revision == 2
    await models.start()
    assert models.get("demo") == changed


async def test_a_change_that_is_refused_changes_nothing(models: Models, admin: Principal) -> None:
    before = await models.create(DEMO, admin)
    refused: list[dict[str, Any]] = [
        {"options": {"nope": 1}},
        {"nope": 1},
        {"id": 5},
        {"aliases": "a"},
        {"options": []},
    ]
    for change in refused:
        with pytest.raises(OstlerError):
            await models.update("demo", change, admin)
    assert models.get("demo") == before


async def test_of_two_who_change_the_same_revision_one_is_told(models: Models, admin: Principal) -> None:
    model = await models.create(DEMO, admin)
    await models.update("demo", {"description": "mine"}, admin, expected_revision=model.revision)
    with pytest.raises(ChangedMeanwhile):
        await models.update("demo", {"description": "theirs"}, admin, expected_revision=model.revision)
    assert models.get("demo").description == "mine"


async def test_a_renamed_model_is_found_by_its_new_name_only(models: Models, admin: Principal) -> None:
    await models.create(replace(DEMO, aliases=("old-alias",)), admin)
    await models.update("demo", {"name": "renamed", "aliases": []}, admin)
    assert models.find("renamed") is not None
    assert models.find("demo") is None and models.find("old-alias") is None


async def test_a_model_in_use_is_neither_deleted_nor_renamed(models: Models, admin: Principal) -> None:
    await models.create(DEMO, admin)
    in_use = True
    models.add_guard(lambda model: f"{model.name} is running" if in_use else None)
    with pytest.raises(ModelInUse, match="demo is running") as caught:
        await models.delete("demo", admin)
    assert caught.value.hint == "Stop it first: ostler stop demo"
    with pytest.raises(ModelInUse):
        await models.update("demo", {"name": "other"}, admin)
    in_use = False
    await models.delete("demo", admin)
    assert models.find("demo") is None


async def test_deleting_a_model_keeps_its_files(models: Models, admin: Principal, models_dir: Path) -> None:
    await models.create(DEMO, admin)
    await models.delete("demo", admin)
    await models.start()
    assert models.find("demo") is None
    assert (models_dir / "demo.gguf").exists()


async def test_an_id_is_never_given_twice(models: Models, admin: Principal) -> None:
    first = await models.create(DEMO, admin)
    await models.delete(first.name, admin)
    assert (await models.create(DEMO, admin)).id > first.id


async def test_a_recipe_of_a_catalog_is_read_only_but_can_be_copied(models: Models, admin: Principal) -> None:
    await models.create(replace(DEMO, origin="catalog", read_only=True, aliases=("a",)), admin)
    with pytest.raises(ReadOnlyModel):
        await models.update("demo", {"description": "x"}, admin)
    copied = await models.copy("demo", "mine", admin)
    assert (copied.origin, copied.read_only, copied.aliases) == ("native", False, ())
    assert (await models.update("mine", {"description": "x"}, admin)).description == "x"


async def test_a_file_that_is_gone_is_named_with_what_to_do(
    models: Models, admin: Principal, models_dir: Path
) -> None:
    model = await models.create(DEMO, admin)
    (models_dir / "demo.gguf").unlink()
    with pytest.raises(ModelFileGone, match="demo") as caught:
        await models.resolve_files(model)
    assert str(models_dir / "demo.gguf") in str(caught.value.hint)


async def test_a_file_that_was_truncated_is_told_from_one_that_is_gone(
    models: Models, admin: Principal, models_dir: Path
) -> None:
    model = await models.create(DEMO, admin)
    with (models_dir / "demo.gguf").open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(ModelFileBroken, match="cannot be loaded"):
        await models.resolve_files(model)


async def test_a_model_whose_file_is_gone_can_still_be_changed_and_deleted(
    models: Models, admin: Principal, models_dir: Path
) -> None:
    await models.create(DEMO, admin)
    (models_dir / "demo.gguf").unlink()
    assert (await models.update("demo", {"description": "x"}, admin)).description == "x"
    await models.delete("demo", admin)


async def test_the_list_is_searched_sorted_and_paged_in_the_database(
    models: Models, admin: Principal
) -> None:
    for name in ("b_one", "a-one", "c-two"):
        await models.create(replace(DEMO, name=name, aliases=(f"alias-{name}",)), admin)

    async def names(**query: Any) -> list[str]:
        return [model.name for model in (await models.list(**query)).items]

    assert await names() == ["a-one", "b_one", "c-two"]
    assert await names(search="ONE", descending=True) == ["b_one", "a-one"]
    assert await names(search="alias-c") == ["c-two"]
    assert await names(search="%") == []
    assert await names(limit=1, offset=1) == ["b_one"]
    assert (await models.list(limit=1)).total == 3
    assert await names(engine="vllm") == []
    with pytest.raises(InvalidField, match="sorted"):
        await models.list(sort="password")


async def test_what_the_owner_wants_is_kept(models: Models, admin: Principal) -> None:
    model = await models.create(DEMO, admin)
    await models.set_desired(model.id, DesiredState.RUNNING)
    assert models.get("demo").desired_state is DesiredState.RUNNING
    await models.start()
    assert models.get("demo").desired_state is DesiredState.RUNNING


async def test_listeners_hear_of_creation_change_and_deletion(models: Models, admin: Principal) -> None:
    heard: list[tuple[str | None, str | None]] = []

    def name(model: Model | None) -> str | None:
        return model.description if model else None

    models.subscribe(lambda before, after: heard.append((name(before), name(after))))
    await models.create(replace(DEMO, description="1"), admin)
    await models.update("demo", {"description": "2"}, admin)
    await models.delete("demo", admin)
    assert heard == [(None, "1"), ("1", "2"), ("2", None)]


async def test_a_preview_checks_in_full_and_keeps_nothing(models: Models, admin: Principal) -> None:
    assert (await models.preview(DEMO, admin)).name == "demo"
    with pytest.raises(OstlerError):
        await models.preview(replace(DEMO, options={"nope": 1}), admin)
    assert (await models.list()).total == 0


async def test_of_two_who_delete_at_once_one_is_told_that_it_is_gone(
    models: Models, admin: Principal
) -> None:
    await models.create(DEMO, admin)
    results = await asyncio.gather(
        models.delete("demo", admin), models.delete("demo", admin), return_exceptions=True
    )
    assert {type(result) for result in results} == {Model, ModelNotFound}


@pytest.mark.parametrize("act", ["start", "change"])
async def test_who_changes_a_model_that_is_being_deleted_is_first_or_told_that_it_is_gone(
    models: Models, admin: Principal, act: str
) -> None:
    model = await models.create(DEMO, admin)
    others: dict[str, Callable[[], Awaitable[object]]] = {
        "start": lambda: models.set_desired(model.id, DesiredState.RUNNING),
        "change": lambda: models.update("demo", {"description": "new"}, admin),
    }
    deleted, other = await asyncio.gather(models.delete("demo", admin), others[act](), return_exceptions=True)
    assert isinstance(deleted, Model)
    assert isinstance(other, Model | ModelNotFound | None)
    assert models.find("demo") is None
