"""Taking over a llamactl: its database, its configuration, its environment."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ostler.core.principals import Role
from ostler.importing.llamactl_files import expanded
from tests.api.conftest import Api, MakeApi, problem
from tests.importing.conftest import OldLlamactl
from tests.unchanged import fingerprints

pytestmark = pytest.mark.real

TOKEN, SECOND = "llamactl-" + "a" * 64, "llamactl-" + "b" * 64
MANAGEMENT = "llamactl-mgmt-" + "c" * 64
CONFIG = """
server: {host: 0.0.0.0, port: ${PORT:-9090}}
local_node: here
nodes: {here: {}, far: {address: "http://far", api_key: "node-secret"}}
instances:
  max_instances: -1
  max_running_instances: 2
  group_limits: {chat: 1, embed: 3}
  default_idle_timeout: 10
backends:
  llama-cpp: {command: /opt/llama/llama-server, environment: {SHARED: "${TOKEN_NAME}"}, args: [--metrics]}
auth:
  management_keys: ["${MANAGEMENT_KEY}"]
"""


@pytest.fixture
def filled(llamactl: OldLlamactl, demo_model: Path) -> OldLlamactl:
    """A llamactl with one of everything."""
    shutil.copy(demo_model, llamactl.folder / "tiny-Q8_0.gguf")
    llamactl.config.write_text(CONFIG)
    tiny = {
        "backend_type": "llama_cpp",
        "backend_options": {
            "model": str(llamactl.folder / "tiny-Q8_0.gguf"),
            "gpu_layers": 20,
            "port": 8001,
            "extra_args": {"new_flag": "7"},
        },
        "auto_restart": True,
        "max_restarts": 5,
        "restart_delay": 2,
        "on_demand_start": True,
        "idle_timeout": 30,
        "environment": {"OWN": "1"},
        "group": "chat",
    }
    first = llamactl.instance("tiny.v1", tiny, "running")
    llamactl.instance("to-come", {**tiny, "backend_options": {"hf_repo": "org/model:Q4_K_M"}})
    llamactl.instance("apple", {"backend_type": "mlx_lm", "backend_options": {"model": "a/b"}})
    llamactl.instance("away", {**tiny, "nodes": ["far"]})
    llamactl.instance("broken", "{")
    llamactl.instance("wrong", {**tiny, "backend_options": {"ctx_size": "many"}})
    llamactl.key("app one", TOKEN, (first,))
    llamactl.key("app/two!", SECOND)
    llamactl.key("old", "llamactl-" + "d" * 64, None, expires_at=1_600_000_000)
    return llamactl


async def take(api: Api, old: OldLlamactl, **more: Any) -> dict[tuple[str, str], tuple[str, str]]:
    body = {
        "config": str(old.config),
        "database": str(old.database),
        "environment": {
            "MANAGEMENT_KEY": MANAGEMENT,
            "TOKEN_NAME": "x",
            "LLAMACTL_DEFAULT_MAX_RESTARTS": "7",
        },
        **more,
    }
    answer = await api("POST", "/import/llamactl", body, headers=await api.as_role(Role.ADMIN))
    assert answer.status_code == 200, answer.text
    for secret in (MANAGEMENT, "node-secret", "argon2"):
        assert secret not in answer.text
    return {(i["kind"], i["name"]): (i["outcome"], i["note"] or "") for i in answer.json()["items"]}


async def test_everything_is_taken_or_it_is_said_why_not(make_api: MakeApi, filled: OldLlamactl) -> None:
    api, before = await make_api(host="0.0.0.0"), fingerprints(filled.folder)
    told = await take(api, filled)
    assert fingerprints(filled.folder) == before
    outcomes = {thing: outcome for thing, (outcome, _) in told.items()}
    assert outcomes[("model", "tiny.v1")] == outcomes[("model", "to-come")] == "taken"
    assert "--new-flag" in told["model", "tiny.v1"][1] and "ran there" in told["model", "tiny.v1"][1]
    assert "--metrics" in told["model", "tiny.v1"][1]
    for name, why in (
        ("apple", "mlx_lm"),
        ("away", "far"),
        ("broken", "options_json"),
        ("wrong", "ctx_size"),
    ):
        outcome, note = told["model", name]
        assert outcome == "refused" and why in note
    assert outcomes["key", "app one"] == outcomes["key", "app/two!"] == "taken"
    assert told["key", "old"] == ("refused", "it has expired")
    assert [o for (kind, _), o in outcomes.items() if kind == "management key"] == ["taken"]
    settings = api.services.settings.current
    assert (settings.max_running, settings.max_models, settings.group_limits) == (2, 0, "chat=1,embed=3")
    assert (settings.idle_timeout_s, settings.restart_limit) == (600.0, 7)
    assert (
        "OSTLER_LLAMA_SERVER_COMMAND=/opt/llama/llama-server"
        in told["setting", "backends.llama-cpp.command"][1]
    )
    assert "OSTLER_PORT=9090" in told["setting", "server.port"][1]
    assert told["node", "far"][0] == "refused"
    model = api.services.models.get("tiny.v1")
    assert model.options["gpu_layers"] == 20 and model.extra_args == ("--new-flag", "7")
    assert model.env == {"SHARED": "x", "OWN": "1"}
    assert (model.policy.restart_limit, model.policy.restart_delay_s, model.policy.group) == (5, 2, "chat")
    assert model.policy.idle_timeout_s == 1800 and model.origin == "llamactl"


async def test_keys_go_on_working_for_what_they_were_for(make_api: MakeApi, filled: OldLlamactl) -> None:
    api = await make_api(host="0.0.0.0")
    await take(api, filled)
    for token, names in ((TOKEN, {"tiny.v1"}), (SECOND, {"tiny.v1", "to-come"})):
        answer = await api("GET", "/models", headers={"Authorization": f"Bearer {token}"})
        assert {item["name"] for item in answer.json()["items"]} == names
    await api.services.models.update("tiny.v1", {"name": "renamed"}, await _admin(api))
    answer = await api("GET", "/models", headers={"Authorization": f"Bearer {TOKEN}"})
    assert [item["name"] for item in answer.json()["items"]] == ["renamed"]
    assert (await api("GET", "/settings", headers={"X-API-Key": MANAGEMENT})).status_code == 200


async def _admin(api: Api) -> Any:
    return api.services.access.authenticate((await api.as_role(Role.ADMIN))["Authorization"][7:])


async def test_a_second_time_changes_nothing_more(make_api: MakeApi, filled: OldLlamactl) -> None:
    api = await make_api(host="0.0.0.0")
    tried = await take(api, filled, dry_run=True)
    assert not api.services.models.all() and api.services.settings.current.max_running == 4
    first = await take(api, filled)
    assert {k: o for k, (o, _) in tried.items()} == {k: o for k, (o, _) in first.items()}
    before = [(m.id, m.revision) for m in api.services.models.all()]
    again = await take(api, filled)
    assert [(m.id, m.revision) for m in api.services.models.all()] == before
    assert {outcome for outcome, _ in again.values()} == {"there", "refused"}
    assert {k for k, (o, _) in again.items() if o == "there"} >= {
        k for k, (o, _) in first.items() if o == "taken"
    }


@pytest.mark.parametrize(
    ("config", "database"),
    [
        ("absent.yaml", None),
        (None, "absent.db"),
        ("broken.yaml", None),
        ("list.yaml", None),
        (None, "text.db"),
        (None, "other.db"),
    ],
)
async def test_files_that_are_none_of_llamactls_are_refused(
    api: Api, llamactl: OldLlamactl, config: str | None, database: str | None
) -> None:
    with closing(sqlite3.connect(llamactl.folder / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE instances (a TEXT)")
    for name, text in (("broken.yaml", "a: [b"), ("list.yaml", "[1]"), ("text.db", "no database" * 100)):
        (llamactl.folder / name).write_text(text)
    body = {
        "config": config and str(llamactl.folder / config),
        "database": str(llamactl.folder / (database or "llamactl.db")),
    }
    problem(await api("POST", "/import/llamactl", body), 422)


async def test_the_database_is_found_by_the_configuration(api: Api, llamactl: OldLlamactl) -> None:
    llamactl.config.write_text("data_dir: ${WHERE}\nbackends: {llama_cpp: {cache_dir: /models}}\n")
    body = {"config": str(llamactl.config), "environment": {"WHERE": str(llamactl.folder)}}
    answer = await api("POST", "/import/llamactl", body)
    assert answer.status_code == 200
    assert [(item["name"], item["outcome"]) for item in answer.json()["items"]] == [
        ("backends.llama-cpp.cache_dir", "refused")
    ]


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("${A}", "1"),
        ("${A:-2}", "1"),
        ("${B:-2}", "2"),
        ("${B:-}", ""),
        ("${B}", "${B}"),
        ("$A", "$A"),
        ("x${A}y${A}", "x1y1"),
    ],
)
def test_variables_are_put_in_as_llamactl_does(text: str, after: str) -> None:
    assert expanded(text, {"A": "1"}) == after


def test_the_command_line_shows_every_single_thing(
    filled: OldLlamactl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from ostler.cli.main import build_app
    from tests.serving import ServerProcess

    server = ServerProcess(tmp_path / "served").start()
    try:
        monkeypatch.setenv("OSTLER_URL", server.url)
        monkeypatch.setenv("LLAMACTL_CONFIG_PATH", str(filled.config))
        monkeypatch.setenv("MANAGEMENT_KEY", MANAGEMENT)
        command = ["import", "llamactl", "--database", str(filled.database)]
        dry = CliRunner().invoke(build_app(), [*command, "--dry-run", "--json"])
        assert dry.exit_code == 0, dry.output
        assert json.loads(dry.output)["dry_run"] is True
        shown = CliRunner().invoke(build_app(), command)
        assert shown.exit_code == 0 and "tiny.v1" in shown.output and "NOT TAKEN" in shown.output
        assert MANAGEMENT not in shown.output + dry.output
    finally:
        server.end_everything()
