"""Taking over a BodhiApp from its folder."""

# ruff: noqa: F811
from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ostler.cli.main import build_app
from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi, api, make_api, problem  # noqa: F401
from tests.server import running_ostler
from tests.unchanged import fingerprints

BOMB = "l0: &l0 [x, x]\n" + "".join(f"l{n}: &l{n} [*l{n - 1}, *l{n - 1}]\n" for n in range(1, 40))
"""A text of a few hundred bytes that stands for a terabyte when it is written out."""

COMMIT = "5007652f7a641fe7170e0bad4f63839419bd9213"
FILES = {
    "aliases/testalias.yaml": f"""\
alias: testalias:instruct
repo: MyFactory/testalias-gguf
filename: testalias.Q8_0.gguf
snapshot: {COMMIT}
request_params: {{temperature: 0.7, stop: [a, b]}}
context_params: {{n_ctx: 131072, n_keep: 24}}
""",
    "aliases/llama3--instruct.yml": "alias: llama3:instruct\nrepo: org/gone-GGUF\nfilename: gone.Q4_0.gguf\n",
    "aliases/newer.yaml": """\
alias: newer
repo: MyFactory/testalias-gguf
filename: testalias.Q8_0.gguf
snapshot: main
context_params: ["--ctx-size 2048", "--seed -1 --port 99"]
""",
    "aliases/broken.yaml": "alias: [",
    "aliases/empty.yaml": "",
    "aliases/hostile.yaml": "alias: x\nrepo: ../..\nfilename: ../../etc/passwd\n",
    "aliases/bomb.yaml": f"{BOMB}alias: boom\nrepo: *l39\nfilename: *l39\n",
    "aliases/notes.txt": "no alias",
    "models.yaml": "- {alias: my:own, repo: org/own-GGUF, filename: own.gguf}\n- {alias: bad}\n",
    "settings.yaml": "BODHI_KEEP_ALIVE_SECS: 1200\nBODHI_PORT: 1135\nBODHI_EXEC_VARIANT: cpu\n",
    "bodhi.sqlite": "",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "bodhi"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def in_cache(cache: Path, demo_model: Path) -> None:
    """The file of two of the aliases, as Hugging Face's own client keeps it."""
    repo = cache / "models--MyFactory--testalias-gguf"
    for name in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (repo / name).mkdir(parents=True)
    shutil.copy(demo_model, repo / "blobs" / "abc")
    (repo / f"snapshots/{COMMIT}/testalias.Q8_0.gguf").symlink_to("../../blobs/abc")
    (repo / "refs" / "main").write_text(COMMIT + "\n")


async def take(at: Api, home: Path, **more: Any) -> dict[str, tuple[str, str | None]]:
    answer = await at("POST", "/import/bodhi", {"home": str(home), **more})
    assert answer.status_code == 200, answer.text
    return {item["name"]: (item["outcome"], item["note"]) for item in answer.json()["items"]}


async def test_everything_is_taken_or_it_is_said_why_not(api: Api, home: Path, demo_model: Path) -> None:
    in_cache(api.data_dir / "hub", demo_model)
    before = fingerprints(home)
    told = await take(api, home)
    assert {name: outcome for name, (outcome, _) in told.items()} == {
        "testalias:instruct": "taken",
        "llama3:instruct": "taken",
        "newer": "taken",
        "broken.yaml": "refused",
        "empty.yaml": "refused",
        "x": "refused",
        "boom": "refused",
        "my:own": "taken",
        "entry 2": "refused",
        "BODHI_KEEP_ALIVE_SECS": "taken",
        "BODHI_PORT": "refused",
        "BODHI_EXEC_VARIANT": "refused",
        "bodhi.sqlite": "refused",
    }
    assert "ostler pull org/gone-GGUF:gone.Q4_0.gguf" in str(told["llama3:instruct"][1])
    assert "OSTLER_PORT=1135" in str(told["BODHI_PORT"][1])
    alias = (await api.get("//bodhi/v1/models/testalias:instruct")).json()
    assert (alias["source"], alias["snapshot"]) == ("user", COMMIT)
    assert alias["request_params"] == {"temperature": 0.7, "stop": ["a", "b"]}
    assert alias["context_params"] == {"n_ctx": 131072, "n_keep": 24}
    newer = api.services.models.get("newer")
    assert newer.options == {"context_length": 2048, "seed": -1}
    assert "--port" in str(told["newer"][1])
    assert (await api.services.predefined.get("my:own")).repo == "org/own-GGUF"
    assert api.services.settings.current.idle_timeout_s == 1200
    assert fingerprints(home) == before


async def test_twice_is_once_and_a_dry_run_is_nothing(api: Api, home: Path, demo_model: Path) -> None:
    in_cache(api.data_dir / "hub", demo_model)
    dry = await take(api, home, dry_run=True)
    assert api.services.models.all() == [] and not (api.data_dir / "predefined-aliases.yaml").exists()
    assert api.services.settings.current.idle_timeout_s == 900
    first = await take(api, home)
    assert {name: outcome for name, (outcome, _) in dry.items()} == {
        name: outcome for name, (outcome, _) in first.items()
    }
    again = await take(api, home)
    assert {name for name, (outcome, _) in again.items() if outcome == "taken"} == set()
    assert {name for name, (outcome, _) in again.items() if outcome == "there"} == {
        name for name, (outcome, _) in first.items() if outcome == "taken"
    }


async def test_what_would_never_end_written_out_is_not_written_out(api: Api, home: Path) -> None:
    (home / "settings.yaml").write_text(f"{BOMB}HF_HOME: *l39\nBODHI_KEEP_ALIVE_SECS: *l39\n")
    (home / "models.yaml").write_text("- {alias: a, repo: org/x, filename: a.gguf}\n- &a [*a, *a]\n")
    told = await take(api, home)
    assert told["HF_HOME"][0] == told["BODHI_KEEP_ALIVE_SECS"][0] == "refused"


async def test_a_file_of_the_operators_own_is_left_alone(
    make_api: MakeApi, home: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    told = await take(await make_api(predefined_aliases_file=own), home)
    assert told["my:own"][0] == "refused" and not own.exists()


async def test_what_is_no_folder_of_bodhis_and_who_is_no_administrator(
    guarded_api: Api, tmp_path: Path
) -> None:
    admin = await guarded_api.as_role(Role.ADMIN)
    for path, status in ((tmp_path, 422), (tmp_path / "none", 422), ("relative", 422)):
        answer = await guarded_api("POST", "/import/bodhi", {"home": str(path)}, headers=admin)
        problem(answer, status)
    manager = await guarded_api.as_role(Role.MANAGER)
    problem(await guarded_api("POST", "/import/bodhi", {"home": "/x"}, headers=manager), 403)


@pytest.fixture
async def guarded_api(make_api: MakeApi) -> Api:
    return await make_api(host="0.0.0.0")


async def test_the_command_tells_of_each_thing(home: Path, tmp_path: Path) -> None:
    async with running_ostler(tmp_path / "data") as server:
        arguments = ["--url", server.url, "import", "bodhi", "--home", str(home)]
        runner = CliRunner()
        shown = await asyncio.to_thread(runner.invoke, build_app(), [*arguments, "--dry-run"])
        assert shown.exit_code == 0, shown.output
        assert "llama3:instruct" in shown.output and "would be taken" in shown.output
        told = await asyncio.to_thread(runner.invoke, build_app(), [*arguments, "--json"])
        assert json.loads(told.stdout)["taken"] == 5
