"""Taking over a Cortex whose database is a real PostgreSQL."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import bcrypt
import psycopg
import pytest
from typer.testing import CliRunner

from ostler.cli.main import build_app
from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi, make_api, problem  # noqa: F401
from tests.postgresql import PostgreSQL
from tests.server import running_ostler

pytestmark = pytest.mark.real

TOKEN = "AbCdEf12" + "x" * 32
PASSWORD = "a long password"
SCHEMA = Path(__file__).with_name("cortex_schema.sql")


@pytest.fixture
def cortex_url(postgresql: PostgreSQL) -> str:
    """The database of a Cortex, by a URL as Cortex writes it."""
    url = postgresql.new_database().replace("+psycopg", "")
    script = SCHEMA.read_text()
    for mark, secret in (("@PASSWORD@", PASSWORD), ("@KEY@", TOKEN)):
        script = script.replace(mark, bcrypt.hashpw(secret.encode(), bcrypt.gensalt(4)).decode())
    with psycopg.connect(url) as connection:
        connection.execute(script.encode())
    return url.replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture
async def there(make_api: MakeApi, demo_model: Path) -> Api:  # noqa: F811
    """An Ostler that others can reach, with Cortex's model file in its folder."""
    api = await make_api(host="0.0.0.0")
    shutil.copy(demo_model, api.data_dir / "models" / "tiny-Q8_0.gguf")
    return api


async def take(api: Api, url: str, **more: Any) -> dict[tuple[str, str], tuple[str, str | None]]:
    """What the import says of each thing, by kind and name."""
    headers = await api.as_role(Role.ADMIN)
    answer = await api("POST", "/import/cortex", {"database_url": url, **more}, headers=headers)
    assert answer.status_code == 200 and "hf_secret" not in answer.text and "$2b$" not in answer.text
    return {(i["kind"], i["name"]): (i["outcome"], i["note"]) for i in answer.json()["items"]}


async def test_everything_is_taken_or_it_is_said_why_not(there: Api, cortex_url: str) -> None:
    told = await take(there, cortex_url)
    outcomes = {thing: outcome for thing, (outcome, _) in told.items()}
    assert outcomes == {
        ("organisation", "Inn"): "taken",
        ("organisation", "Stable/Yard"): "refused",
        ("person", "ada"): "taken",
        ("person", "bob"): "taken",
        ("person", "eve"): "refused",
        ("key", "AbCdEf12"): "taken",
        ("key", "Off12345"): "taken",
        ("key", "Eve12345"): "taken",
        ("key", "Odd12345"): "refused",
        ("model", "tiny"): "refused",  # the second of that name
        ("model", "gone"): "refused",
        ("model", "my model"): "taken",
        ("model", "online"): "taken",
        ("upstream", "elsewhere"): "taken",
        ("recipe", "my recipe"): "taken",
        ("conversation", "Hello (11111111)"): "taken",
        ("conversation", "Lost (99999999)"): "refused",
        ("setting", "models_base_dir /var/cortex/models"): "refused",
        ("usage", "2 requests"): "refused",
    }
    assert "no password" in str(told["person", "eve"][1])
    assert "nobody" in str(told["key", "Eve12345"][1])
    assert told["model", "my model"][1] is None and there.services.models.get("my model").archived is False

    models = there.services.models
    tiny = models.get("tiny")
    assert (tiny.origin, tiny.engine, tiny.desired_state) == ("cortex", "llamacpp", "stopped")
    assert tiny.options == {"context_length": 512, "gpu_layers": 0}
    assert tiny.request_defaults == {"max_tokens": 12, "temperature": 0}
    assert tiny.extra_args == ("--no-warmup",)
    assert tiny.env == {"LLAMA_LOG_COLORS": "off", "HF_TOKEN": "hf_secret"}
    assert tiny.policy.start_timeout_s == 90
    shown = (await there("GET", "//admin/models", headers=await there.as_role(Role.ADMIN))).json()[0]
    assert (shown["name"], shown["served_model_name"], shown["state"]) == ("Tiny model", "tiny", "stopped")
    assert (shown["engine_version"], shown["ngl"], shown["local_path"]) == ("b4000", 0, "tiny-Q8_0.gguf")
    online = models.get("online")
    assert online.archived and online.source.repo == "org/repo"
    assert online.options["tensor_parallel_size"] == 2 and online.options["context_length"] == 4096
    (recipe,) = (await there.services.recipes.list()).items
    assert recipe.content["options"] == {"context_length": 256} and recipe.description == "good"
    (elsewhere,) = there.services.externals.all()
    assert (elsewhere.url, elsewhere.task) == ("http://10.0.0.9:8000", "embed")


async def test_keys_passwords_and_conversations_go_on(there: Api, cortex_url: str) -> None:
    await take(there, cortex_url)
    by_key = {"Authorization": f"Bearer {TOKEN}"}
    who = (await there("GET", "//auth/me", headers=by_key)).json()
    assert who == {"username": "cortex AbCdEf12", "role": "User"}
    (key,) = (await there.services.keys.list(search="AbCdEf12")).items
    assert key.scopes == ("chat", "completions") and key.user_id is not None and key.org_id is not None
    (off,) = (await there.services.keys.list(search="Off12345")).items
    assert off.disabled and off.addresses == ("10.0.0.7",)
    signed_in = await there.post("//auth/login", {"username": "ada", "password": PASSWORD})
    assert signed_in.json()["user"] == {"username": "ada", "role": "Admin"}
    (chat,) = (await there.get("//v1/chat/sessions")).json()
    assert (chat["title"], chat["message_count"]) == ("Hello", 2)
    shown = (await there.get(f"//v1/chat/sessions/{chat['id']}")).json()
    assert [m["content"] for m in shown["messages"]] == ["Hello", "Hi."]
    assert shown["messages"][1]["metrics"] == {"tok_per_s": 9.5}
    disabled = await there.post("//auth/login", {"username": "bob", "password": PASSWORD})
    assert disabled.status_code == 401


async def test_taking_twice_takes_once_and_what_was_missing_is_taken_then(
    there: Api, cortex_url: str
) -> None:
    await take(there, cortex_url)
    await there("GET", "//auth/me", headers={"Authorization": f"Bearer {TOKEN}"})
    folder = there.data_dir / "models"
    shutil.copy(folder / "tiny-Q8_0.gguf", folder / "gone.gguf")
    told = await take(there, cortex_url)
    assert [thing for thing, (outcome, _) in told.items() if outcome == "taken"] == [("model", "gone")]
    assert told["key", "AbCdEf12"][0] == told["person", "ada"][0] == "there"
    assert (await there.services.recipes.list()).total == 1


async def test_a_dry_run_says_the_same_and_changes_nothing_on_either_side(
    there: Api, cortex_url: str
) -> None:
    first = await take(there, cortex_url, dry_run=True)
    services = there.services
    assert services.models.all() == [] and (await services.access.users.list()).total == 0
    assert (await services.recipes.list()).total == 0 and services.externals.all() == []
    assert await take(there, cortex_url) == first


async def test_what_is_no_database_of_cortex_is_said(there: Api, postgresql: PostgreSQL) -> None:
    headers = await there.as_role(Role.ADMIN)

    async def tried(url: str) -> Any:
        return await there("POST", "/import/cortex", {"database_url": url}, headers=headers)

    problem(await tried(postgresql.new_database()), 422, "not_cortex")
    for url in ("nonsense", "sqlite:///x.db", "mysql://a:b@c/d"):
        problem(await tried(url), 422, "invalid_field")
    unreachable = await tried("postgresql://cortex:the-secret@127.0.0.1:9/cortex")
    assert "the-secret" not in unreachable.text
    problem(unreachable, 502, "database_unreachable")


async def test_the_command_prints_a_table_and_json(
    cortex_url: str, tmp_path: Path, demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    (tmp_path / "data" / "models").mkdir(parents=True)
    shutil.copy(demo_model, tmp_path / "data" / "models" / "tiny-Q8_0.gguf")
    async with running_ostler(tmp_path / "data") as server:
        command = ["--url", server.url, "import", "cortex", "--database-url", cortex_url]
        dry = await asyncio.to_thread(CliRunner().invoke, build_app(), [*command, "--dry-run"])
        assert dry.exit_code == 0, dry.output
        assert "NOT TAKEN" in dry.output and "would be taken" in dry.output
        done = await asyncio.to_thread(CliRunner().invoke, build_app(), [*command, "--json"])
        assert json.loads(done.stdout)["taken"] > 8
