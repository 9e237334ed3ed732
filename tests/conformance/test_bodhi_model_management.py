"""BodhiApp's guide "Model Management" (shared/seeds/bodhiapp-model-management.md), read in its order.

Each test's docstring is the statement that it holds Ostler to. The server listens where keys are needed, its
hub is the test hub, its engine the built-in llama.cpp with the demo model.

Not here, as they say nothing of the program: "Parameter Selection", "Performance Optimization", "Next Steps".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from huggingface_hub import scan_cache_dir

from tests.conformance.bodhi_house import FP16, OVER, PASSWORD, Q4, REPO, BodhiHouse, Reply
from tests.conformance.typescript import Fetch, blocks, constants, fetches, literal

pytestmark = pytest.mark.real

AUTOMATIC = f"{REPO}:q4"
TABLE_ROW = re.compile(r"^\| `([\w:-]+)` \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def document(shared: Path) -> str:
    return (shared / "seeds" / "bodhiapp-model-management.md").read_text()


@pytest.fixture(scope="module")
def whole_house(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[BodhiHouse]:
    house = BodhiHouse(tmp_path_factory.mktemp("bodhi"), demo_model)
    yield house
    house.end()


@pytest.fixture
def house(whole_house: BodhiHouse) -> BodhiHouse:
    """With one file in its cache, no alias and no download."""
    whole_house.clear()
    return whole_house


def section(document: str, title: str) -> str:
    """The text under a heading, up to the next one of the same rank or higher."""
    rank, _, _ = title.partition(" ")
    begin = document.index(f"\n{title}\n")
    after = re.compile(rf"^#{{1,{len(rank)}}} ", re.MULTILINE)
    end = after.search(document, begin + len(title) + 2)
    return document[begin : end.start() if end else None]


# Overview, Authentication Requirements

READS = (
    ("GET", "/bodhi/v1/models"),
    ("GET", f"/bodhi/v1/models/{quote(AUTOMATIC)}"),
    ("GET", "/bodhi/v1/modelfiles"),
)
WRITES = (
    ("POST", "/bodhi/v1/models"),
    ("PUT", "/bodhi/v1/models/x"),
    ("DELETE", "/bodhi/v1/models/x"),
    ("POST", "/bodhi/v1/models/x/copy"),
    ("POST", "/bodhi/v1/modelfiles/pull"),
    ("POST", "/bodhi/v1/modelfiles/pull/llama3:instruct"),
    ("GET", "/bodhi/v1/modelfiles/pull"),
    ("GET", "/bodhi/v1/modelfiles/pull/x"),
)


def test_reading_needs_the_role_user(house: BodhiHouse) -> None:
    """Read Operations (list models/files): `user` role OR `scope_token_user`."""
    for method, path in READS:
        assert house.user(method, path).status == 200, path
        nobody = house.ask(method, path)
        assert (nobody.status, nobody.error["type"], nobody.error["code"]) == (
            401,
            "authentication_error",
            "unauthorized",
        )


def test_writing_needs_the_role_power_user(house: BodhiHouse) -> None:
    """Write Operations (create/update aliases, downloads): `power_user` role OR `scope_token_power_user`."""
    for method, path in WRITES:
        reply = house.user(method, path, {} if method != "GET" else None)
        assert (reply.status, reply.error["type"], reply.error["code"]) == (
            403,
            "forbidden_error",
            "forbidden",
        ), path
        assert house.power(method, path, {} if method != "GET" else None).status not in (401, 403), path
        assert house.ask(method, path).status == 401, path


def test_tokens_with_scopes_are_keys_with_roles(house: BodhiHouse) -> None:
    """`scope_token_user`, `scope_token_power_user`; and tokens are made by people, not by tokens."""
    house.admin("POST", "/ostler/v1/users", {"name": "ada", "password": PASSWORD, "role": "power_user"})
    signed_in = house.ask("POST", "/ostler/v1/session", {"name": "ada", "password": PASSWORD})
    cookie = {"Cookie": signed_in.headers["set-cookie"].partition(";")[0], "Sec-Fetch-Site": "same-origin"}
    assert house.admin("GET", "/bodhi/v1/tokens").status == 401
    roles = {}
    for scope in ("scope_token_user", "scope_token_power_user"):
        made = house.ask("POST", "/bodhi/v1/tokens", {"name": f"mine-{scope}", "scope": scope}, **cookie)
        assert made.status == 201 and made.body["token"].startswith("sk-bodhi-"), made
        roles[scope] = made.body
    bearer = {scope: {"Authorization": f"Bearer {made['token']}"} for scope, made in roles.items()}
    assert house.ask("GET", "/bodhi/v1/models", **bearer["scope_token_user"]).status == 200
    assert house.ask("GET", "/bodhi/v1/modelfiles/pull", **bearer["scope_token_user"]).status == 403
    assert house.ask("GET", "/bodhi/v1/modelfiles/pull", **bearer["scope_token_power_user"]).status == 200
    listed = house.ask("GET", "/bodhi/v1/tokens", **cookie).body
    assert listed["total"] == 2 and all("token" not in item for item in listed["data"])
    path = f"/bodhi/v1/tokens/{roles['scope_token_user']['id']}"
    for status, code in (("inactive", 401), ("active", 200)):
        changed = house.ask("PUT", path, {"name": "renamed", "status": status}, **cookie)
        assert (changed.status, changed.body["status"]) == (200, status)
        reply = house.ask("GET", "/bodhi/v1/models", **bearer["scope_token_user"])
        assert reply.status == code
    user = house.ask("GET", "/bodhi/v1/user", **bearer["scope_token_power_user"]).body
    assert (user["role"], user["token_type"], user["logged_in"]) == ("power_user", "bearer", True)


# Model Aliases System


def test_an_alias_serves_its_file_with_its_parameters(house: BodhiHouse) -> None:
    """Consistency: Same parameters applied across all API calls."""
    house.create("brief", request_params={"max_tokens": 3, "temperature": 0}, context_params={"n_ctx": 512})
    for _ in range(2):
        reply = house.chat("brief")
        assert reply.status == 200, reply
        assert reply.body["usage"]["completion_tokens"] <= 3
        assert reply.body["model"] == "brief"


@pytest.mark.parametrize("word", ["max_tokens", "max_completion_tokens"])
def test_the_request_wins_over_the_alias(house: BodhiHouse, word: str) -> None:
    """Parameters of an alias fill what a request leaves out, and nothing else."""
    house.create("longer", request_params={"max_tokens": 40, "temperature": 0}, context_params={"n_ctx": 512})
    assert house.chat("longer", **{word: 2}).body["usage"]["completion_tokens"] <= 2
    assert house.chat("longer", **{word: None}).body["usage"]["completion_tokens"] > 2


def test_simple_names_and_automatic_ones_are_served(house: BodhiHouse) -> None:
    """Simplicity: Use `creative-writer` instead of complex model paths; a file has a name of its own."""
    house.create("creative-writer", context_params={"n_ctx": 512})
    for name in ("creative-writer", AUTOMATIC):
        reply = house.chat(name, max_tokens=2)
        assert (reply.status, reply.body.get("model")) == (200, name), reply
    ids = [model["id"] for model in house.user("GET", "/v1/models").body["data"]]
    assert {"creative-writer", AUTOMATIC} <= set(ids)


def test_another_file_behind_the_same_name(house: BodhiHouse) -> None:
    """Flexibility: Switch model files without changing API calls."""
    house.pull(filename=FP16)
    house.create("stable", context_params={"n_ctx": 512})
    assert house.chat("stable", max_tokens=1).status == 200
    assert house.good("PUT", "/bodhi/v1/models/stable", {"filename": FP16})["filename"] == FP16
    assert house.chat("stable", max_tokens=1).status == 200
    assert any(FP16 in word for word in house.command())
    assert house.remove_file(filename=FP16).status == 409
    house.clear()


def test_each_alias_contains(house: BodhiHouse) -> None:
    """Each alias contains: alias, repo, filename, snapshot, source, request_params, context_params."""
    params = {"temperature": 0.5, "max_tokens": 7, "top_p": 0.5, "frequency_penalty": -1,
              "presence_penalty": 1, "stop": ["a", "b"]}  # fmt: skip
    context = {"n_ctx": 1024, "n_threads": 2, "n_parallel": 2, "n_predict": 64, "n_keep": 4}
    made = house.create("whole", snapshot="main", request_params=params, context_params=context)
    assert {key: made[key] for key in ("alias", "repo", "filename", "source")} == {
        "alias": "whole",
        "repo": REPO,
        "filename": Q4,
        "source": "user",
    }
    assert (made["snapshot"], made["requested_snapshot"]) == (house.commit, "main")
    assert (made["request_params"], made["context_params"]) == (params, context)
    assert house.good("GET", "/bodhi/v1/models/whole") == made
    automatic = house.good("GET", f"/bodhi/v1/models/{quote(AUTOMATIC)}")
    assert (automatic["source"], automatic["request_params"]) == ("model", {})
    assert automatic["context_params"] == {}


# Managing Aliases via API


def test_list_model_aliases(house: BodhiHouse) -> None:
    """`GET /bodhi/v1/models`: `data`, `total`, `page`, `page_size`."""
    made = house.create("llama3:instruct", request_params={"temperature": 0.7})
    listed = house.user("GET", "/bodhi/v1/models").body
    assert (listed["total"], listed["page"], listed["page_size"]) == (2, 1, 30)
    assert [item["alias"] for item in listed["data"]] == ["llama3:instruct", AUTOMATIC]
    assert listed["data"][0] == made


def test_pages_and_orders_of_lists(house: BodhiHouse) -> None:
    """page, page_size (at most 100), sort, sort_order; what is out of bounds is brought back."""
    for name in ("b", "a", "c"):
        house.create(name)

    def names(**query: Any) -> list[str]:
        return [item["alias"] for item in house.good("GET", "/bodhi/v1/models", **query)["data"]]

    everything = ["a", "b", "c", AUTOMATIC]
    assert names() == names(sort="nonsense") == names(sort="alias") == everything
    assert names(sort_order="DESC") == everything[::-1]
    assert names(page=2, page_size=3) == [AUTOMATIC] and names(page=9) == []
    assert names(page=0, page_size=2) == ["a", "b"] == names(page=-7, page_size=2)
    assert names(sort="source")[0] == AUTOMATIC and names(sort="repo", page_size=0) == ["a"]
    answer = house.good("GET", "/bodhi/v1/models", page_size=10_000, page=10**30)
    assert (answer["page_size"], answer["data"], answer["total"]) == (100, [], 4)
    for path in ("models", "modelfiles", "modelfiles/pull"):
        reply = house.power("GET", f"/bodhi/v1/{path}", page="many")
        assert (reply.status, reply.error["code"]) == (400, "bad_request_error")


def test_get_a_specific_alias(house: BodhiHouse) -> None:
    """`GET /bodhi/v1/models/{alias}`; slashes as they are or encoded; 404 where there is none."""
    for name in ("llama3:instruct", "team/writer"):
        made = house.create(name)
        for path in (quote(name), quote(name, safe="")):
            assert house.user("GET", f"/bodhi/v1/models/{path}").body == made
    reply = house.user("GET", "/bodhi/v1/models/nothing")
    assert (reply.status, reply.error["type"], reply.error["code"]) == (
        404,
        "not_found_error",
        "alias_not_found",
    )


def test_create_a_model_alias(house: BodhiHouse) -> None:
    """`POST /bodhi/v1/models` is 201; a name once more is 409, also one that a file has by itself."""
    made = house.create("creative-writer", family="passed over")
    assert made["snapshot"] == house.commit
    body = {"repo": REPO, "filename": Q4}
    for name in ("creative-writer", AUTOMATIC):
        reply = house.power("POST", "/bodhi/v1/models", {**body, "alias": name})
        assert (reply.status, reply.error["code"]) == (409, "alias_exists"), name
    by_commit = house.create("pinned", snapshot=house.commit)
    assert by_commit["snapshot"] == by_commit["requested_snapshot"] == house.commit


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"alias": None}, 400, "create_alias_error-alias_not_present"),
        ({"repo": "nothing"}, 400, "json_rejection_error"),
        ({"repo": "a/b/c"}, 400, "json_rejection_error"),
        ({"repo": "../.."}, 400, "json_rejection_error"),
        ({"repo": None}, 400, "json_rejection_error"),
        ({"filename": "../../etc/passwd"}, 400, "obj_validation_error-validation_errors"),
        ({"snapshot": "../main"}, 400, "obj_validation_error-validation_errors"),
        ({"alias": "a|b"}, 400, "obj_validation_error-validation_errors"),
        ({"context_params": ["--ctx-size 4096"]}, 400, "json_rejection_error"),
        ({"filename": "Phi-3-mini-4k-instruct-q8.gguf"}, 404, "hub_file_not_found_error"),
        ({"repo": "org/not-here"}, 404, "hub_file_not_found_error"),
        ({"snapshot": "not-a-branch"}, 404, "hub_file_not_found_error"),
    ],
)
def test_what_no_alias_can_be_made_of(
    house: BodhiHouse, change: dict[str, Any], status: int, code: str
) -> None:
    """400 for what cannot be right, 404 for a file that is not in the cache."""
    body = {"alias": "x", "repo": REPO, "filename": Q4, **change}
    reply = house.power("POST", "/bodhi/v1/models", body)
    assert (reply.status, reply.error["code"]) == (status, code), reply
    assert house.power("GET", "/bodhi/v1/models/x").status == 404


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b'"x"', b'{"repo": NaN}'])
def test_a_body_that_is_no_object_is_rejected(house: BodhiHouse, body: bytes) -> None:
    """Malformed JSON is 400 `json_rejection_error`, as is a body said to be something else."""
    bearer = f"Bearer {house.tokens['power_user']}"
    for kind in ("application/json", "text/plain"):
        for path in ("/bodhi/v1/models", "/bodhi/v1/modelfiles/pull"):
            reply = house.ask("POST", path, body, **{"Authorization": bearer, "Content-type": kind})
            assert (reply.status, reply.error["code"]) == (400, "json_rejection_error"), reply


def test_update_a_model_alias(house: BodhiHouse) -> None:
    """`PUT /bodhi/v1/models/{alias}` with a part: an object replaces the one there, all else stays."""
    before = house.create(
        "writer", request_params={"temperature": 1, "top_p": 0.5}, context_params={"n_ctx": 512, "n_keep": 3}
    )
    updates = {"request_params": {"temperature": 0.8, "max_tokens": 1500}, "context_params": {"n_ctx": 8192}}
    after = house.good("PUT", "/bodhi/v1/models/writer", updates)
    assert (after["request_params"], after["context_params"]) == tuple(updates.values())
    assert {key: after[key] for key in ("alias", "repo", "filename", "snapshot")} == {
        key: before[key] for key in ("alias", "repo", "filename", "snapshot")
    }
    assert house.good("PUT", "/bodhi/v1/models/writer", {"request_params": {}})["request_params"] == {}
    assert house.good("GET", "/bodhi/v1/models/writer")["context_params"] == {"n_ctx": 8192}
    reply = house.power("PUT", "/bodhi/v1/models/writer", {"alias": "other"})
    assert (reply.status, reply.error["code"]) == (400, "create_alias_error-alias_mismatch")
    assert house.power("PUT", "/bodhi/v1/models/nothing", updates).status == 404
    reply = house.power("PUT", "/bodhi/v1/models/writer", {"filename": "not-here.gguf"})
    assert (reply.status, reply.error["code"]) == (404, "hub_file_not_found_error")


def test_an_automatic_alias_that_is_changed_becomes_ones_own(house: BodhiHouse) -> None:
    """A user alias stands before an automatic one of the same name; deleting it brings that back."""
    path = f"/bodhi/v1/models/{quote(AUTOMATIC, safe='')}"
    assert house.good("PUT", path, {})["source"] == "model"
    assert house.power("DELETE", path).status == 404
    changed = house.good("PUT", path, {"request_params": {"max_tokens": 2}})
    assert (changed["source"], changed["snapshot"]) == ("user", house.commit)
    assert house.chat(AUTOMATIC).body["usage"]["completion_tokens"] <= 2
    assert house.good("GET", "/bodhi/v1/models")["total"] == 1
    assert house.power("DELETE", path).status == 200 and house.server.engines() == []
    assert house.good("GET", path)["source"] == "model"


def test_an_edit_takes_effect_at_the_next_request(house: BodhiHouse) -> None:
    """New request parameters, and new context parameters of an alias that is running."""
    house.create("edited", request_params={"max_tokens": 2}, context_params={"n_ctx": 512, "n_keep": 2})
    assert house.chat("edited").body["usage"]["completion_tokens"] <= 2
    house.good("PUT", "/bodhi/v1/models/edited", {"request_params": {"max_tokens": 12, "temperature": 0}})
    assert house.chat("edited").body["usage"]["completion_tokens"] > 2
    house.good("PUT", "/bodhi/v1/models/edited", {"context_params": {"n_ctx": 1024}})
    assert house.chat("edited").status == 200
    command = house.command()
    assert after(command, "--ctx-size") == "1024" and "--keep" not in command


def test_aliases_that_launch_the_same_share_one_engine(house: BodhiHouse) -> None:
    """Two aliases of one file with the same context parameters: one engine, each with its own name."""
    for name, tokens in (("short", 2), ("long", 12)):
        params = {"max_tokens": tokens, "temperature": 0}
        house.create(name, request_params=params, context_params={"n_ctx": 512})
    short, long = house.chat("short").body, house.chat("long").body
    assert (short["model"], long["model"]) == ("short", "long")
    assert short["usage"]["completion_tokens"] <= 2 < long["usage"]["completion_tokens"]
    assert len(house.server.engines()) == 1


def test_copy_and_delete_as_extensions(house: BodhiHouse) -> None:
    """Beyond the document: a second alias of the same file; deleting one keeps its file."""
    house.create("first", request_params={"top_p": 0.5}, context_params={"n_ctx": 512})
    copied = house.good("POST", "/bodhi/v1/models/first/copy", {"alias": "second"})
    assert (copied["alias"], copied["request_params"]) == ("second", {"top_p": 0.5})
    assert house.power("POST", "/bodhi/v1/models/first/copy", {"alias": "second"}).status == 409
    assert house.power("POST", "/bodhi/v1/models/none/copy", {"alias": "x"}).status == 404
    house.good("POST", f"/bodhi/v1/models/{quote(AUTOMATIC)}/copy", {"alias": "third"})
    for name in ("first", "second", "third"):
        assert house.power("DELETE", f"/bodhi/v1/models/{name}").status == 200
        assert house.power("DELETE", f"/bodhi/v1/models/{name}").status == 404
    assert [file["filename"] for file in house.good("GET", "/bodhi/v1/modelfiles")["data"]] == [Q4]


def test_an_alias_whose_file_vanished(house: BodhiHouse) -> None:
    """It stays in the list; a request for it says what is missing."""
    house.create("orphan", context_params={"n_ctx": 512})
    assert house.remove_file().status == 200
    assert house.good("GET", "/bodhi/v1/models/orphan")["filename"] == Q4
    reply = house.chat("orphan")
    assert reply.status == 404 and "orphan" in reply.body["error"]["message"], reply


# Alias Configuration Examples


def test_the_configuration_examples_are_aliases(house: BodhiHouse, document: str) -> None:
    """Chat Assistant, Creative Writer and Code Assistant Alias, each as written."""
    examples = [
        literal(block)
        for block in blocks(section(document, "### Alias Configuration Examples"), "typescript")
    ]
    assert [example["alias"] for example in examples] == [
        "chat-assistant",
        "creative-writer",
        "code-assistant",
    ]
    for example in examples:
        made = house.good("POST", "/bodhi/v1/models", example)
        assert made["request_params"] == example["request_params"]
        assert made["context_params"] == example["context_params"]


# Model Downloads System


def test_download_by_repository_and_filename(house: BodhiHouse) -> None:
    """`POST /bodhi/v1/modelfiles/pull`: 201 and `pending`; the same again while it is open: 200, the same."""
    assert house.remove_file().status == 200
    stalled = house.hub.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    first = house.power("POST", "/bodhi/v1/modelfiles/pull", {"repo": REPO, "filename": Q4})
    assert first.status == 201 and first.body["status"] in ("pending", "downloading")
    assert {key: first.body[key] for key in ("repo", "filename")} == {"repo": REPO, "filename": Q4}
    assert re.fullmatch(r"[\w-]+", first.body["id"]) and first.body["created_at"]
    assert stalled.reached.wait(20)
    again = house.power("POST", "/bodhi/v1/modelfiles/pull", {"repo": REPO, "filename": Q4})
    assert (again.status, again.body["id"]) == (200, first.body["id"])
    stalled.release()
    assert house.ended(first.body["id"])["status"] == "completed"
    here = house.power("POST", "/bodhi/v1/modelfiles/pull", {"repo": REPO, "filename": Q4})
    assert (here.status, here.error["code"]) == (400, "pull_error-file_already_exists")


@pytest.mark.parametrize(
    ("repo", "filename", "status"),
    [
        ("nothing", "a.gguf", 400),
        ("a/b/c", "a.gguf", 400),
        ("../x", "a.gguf", 400),
        ("$imple/repo", "a.gguf", 400),
        (REPO, "../a.gguf", 400),
        (REPO, "README.md", 400),
        (REPO, "not-there.gguf", 404),
        ("org/not-there", "a.gguf", 404),
    ],
)
def test_what_cannot_be_downloaded(house: BodhiHouse, repo: str, filename: str, status: int) -> None:
    """Repos and files that cannot be, or that the hub does not have, are told at once."""
    reply = house.power("POST", "/bodhi/v1/modelfiles/pull", {"repo": repo, "filename": filename})
    assert reply.status == status and reply.error, reply


def test_download_by_predefined_alias(house: BodhiHouse, document: str) -> None:
    """`POST /bodhi/v1/modelfiles/pull/{alias}`: each of the seven, and the alias is there when it is done."""
    rows = TABLE_ROW.findall(section(document, "#### Available Predefined Aliases"))
    assert len(rows) == 7
    for alias, _, _ in rows:
        started = house.power("POST", f"/bodhi/v1/modelfiles/pull/{alias}")
        assert started.status == 201, started
        assert house.ended(started.body["id"])["status"] == "completed", alias
        made = house.good("GET", f"/bodhi/v1/models/{alias}")
        assert (made["repo"], made["filename"]) == (started.body["repo"], started.body["filename"])
        again = house.power("POST", f"/bodhi/v1/modelfiles/pull/{alias}")
        assert (again.status, again.error["code"]) == (400, "pull_error-file_already_exists")
    reply = house.power("POST", "/bodhi/v1/modelfiles/pull/not:known")
    assert (reply.status, reply.error["code"]) == (404, "remote_model_not_found_error")


# Download Status Tracking


def test_list_downloads(house: BodhiHouse) -> None:
    """`GET /bodhi/v1/modelfiles/pull`: a page of all, newest first."""
    ids = [house.pull(filename=FP16)["id"]]
    assert house.remove_file(filename=FP16).status == 200
    ids.append(house.pull(filename=FP16)["id"])
    listed = house.good("GET", "/bodhi/v1/modelfiles/pull", page=0, page_size=500)
    assert [item["id"] for item in listed["data"]] == ids[::-1]
    assert (listed["total"], listed["page"], listed["page_size"]) == (2, 1, 100)


def test_check_a_downloads_status(house: BodhiHouse) -> None:
    """`GET /bodhi/v1/modelfiles/pull/{id}`: progress 100, sizes and completed_at at the end; 404 for none."""
    seen = house.pull(filename=FP16)
    size = (house.cache / f"models--{REPO.replace('/', '--')}/snapshots/{house.commit}/{FP16}").stat().st_size
    assert (seen["status"], seen["progress"], seen["error"]) == ("completed", 100, None)
    assert seen["size_downloaded"] == seen["size_total"] == size
    assert seen["created_at"] <= seen["completed_at"]
    reply = house.power("GET", "/bodhi/v1/modelfiles/pull/download-123")
    assert (reply.status, reply.error["code"]) == (404, "item_not_found")


def test_every_status_value(house: BodhiHouse, document: str) -> None:
    """pending, downloading, completed, failed (with `error`), cancelled."""
    table = section(document, "### Download Status Values")
    stated = [name for name, _ in re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE)]
    assert stated == ["pending", "downloading", "completed", "failed", "cancelled"]
    other = "TheBloke/Llama-2-7B-Chat-GGUF", "llama-2-7b-chat.Q8_0.gguf"
    stalled = house.hub.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    running = house.good("POST", "/bodhi/v1/modelfiles/pull", {"repo": REPO, "filename": FP16})
    waiting = house.good("POST", "/bodhi/v1/modelfiles/pull", {"repo": other[0], "filename": other[1]})
    assert stalled.reached.wait(20)
    seen = house.download_until(running["id"], ("downloading",))
    assert 0 <= seen["progress"] < 100 and seen["completed_at"] is None
    assert house.good("GET", f"/bodhi/v1/modelfiles/pull/{waiting['id']}")["status"] == "pending"
    reply = house.power("POST", f"/bodhi/v1/modelfiles/pull/{waiting['id']}/archive")
    assert reply.status == 400
    cancelled = house.good("POST", f"/bodhi/v1/modelfiles/pull/{waiting['id']}/cancel")
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", None)
    stalled.release()
    assert house.ended(running["id"])["status"] == "completed"
    assert house.power("POST", f"/bodhi/v1/modelfiles/pull/{running['id']}/retry").status == 400
    house.hub.faults.wrong_bytes("*.gguf", host="cdn", times=None)
    failed = house.ended(house.good("POST", f"/bodhi/v1/modelfiles/pull/{waiting['id']}/retry")["id"])
    assert failed["status"] == "failed" and failed["error"] and failed["completed_at"] is None
    assert "{" not in failed["error"]
    house.good("POST", f"/bodhi/v1/modelfiles/pull/{failed['id']}/archive")
    assert house.power("GET", f"/bodhi/v1/modelfiles/pull/{failed['id']}").status == 404


def test_downloads_survive_a_crash_and_go_on(house: BodhiHouse) -> None:
    """A predefined alias that was being pulled when the server died: it is pulled, and the alias made."""
    stalled = house.hub.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    id = house.good("POST", "/bodhi/v1/modelfiles/pull/phi3:mini")["id"]
    assert stalled.reached.wait(20)
    house.server.kill()
    house.hub.faults.clear()
    house.start()
    assert house.ended(id)["status"] == "completed"
    assert house.good("GET", "/bodhi/v1/models/phi3:mini")["filename"] == FP16


# Model Files Management


def test_list_local_model_files(house: BodhiHouse) -> None:
    """`GET /bodhi/v1/modelfiles`: repo, filename, snapshot_id, size, path; a file of two snapshots twice."""
    listed = house.user("GET", "/bodhi/v1/modelfiles").body
    assert (listed["total"], listed["page"], listed["page_size"]) == (1, 1, 30)
    (file,) = listed["data"]
    assert (file["repo"], file["filename"]) == (REPO, Q4)
    assert file["snapshot_id"] == file["snapshot"] == house.commit
    path = Path(file["path"])
    assert file["size"] == path.stat().st_size and path.is_relative_to(house.cache)
    second = path.parents[1] / ("f" * 40) / Q4
    second.parent.mkdir()
    second.symlink_to(path.readlink())
    try:
        both = house.good("GET", "/bodhi/v1/modelfiles", sort="snapshot", sort_order="desc")["data"]
        assert [item["snapshot"] for item in both] == ["f" * 40, house.commit]
        assert house.good("GET", "/bodhi/v1/models")["total"] == 1
        pinned = house.create("other-snapshot", snapshot="f" * 40)
        assert pinned["snapshot"] == "f" * 40
        second.unlink()
        second.symlink_to("../../blobs/gone")
        assert house.good("GET", "/bodhi/v1/modelfiles")["total"] == 1
    finally:
        second.unlink()
        second.parent.rmdir()


def test_storage_location(house: BodhiHouse) -> None:
    """`HF_HOME`/hub, `models--{org}--{repo}/snapshots/{commit}/{filename}`: as the hub's own client."""
    folder = house.cache / f"models--{REPO.replace('/', '--')}" / "snapshots" / house.commit
    assert (folder / Q4).is_file()
    repos = {repo.repo_id: repo for repo in scan_cache_dir(house.cache).repos}
    (revision,) = repos[REPO].revisions
    assert Q4 in {file.file_name for file in revision.files} and revision.commit_hash == house.commit


# Parameter Configuration Guide


def parameters(document: str, title: str) -> list[tuple[str, str, str]]:
    """Name, type and range of each row of a table."""
    rows = re.findall(r"^\| `(\w+)` \| ([\w\[\]]+) \| ([^|]+) \|", section(document, title), re.MULTILINE)
    return [(name, kind, bounds.strip()) for name, kind, bounds in rows]


@pytest.mark.parametrize(
    ("title", "place", "count"),
    [
        ("### Request Parameters (OpenAI Compatible)", "request_params", 6),
        ("### Context Parameters (llama.cpp Specific)", "context_params", 5),
    ],
)
def test_ranges_of_parameters(house: BodhiHouse, document: str, title: str, place: str, count: int) -> None:
    """Each parameter takes its type and its range, ends included, and nothing else (400)."""
    rows = parameters(document, title)
    assert len(rows) == count
    house.create("ranged")
    for name, kind, bounds in rows:
        good, bad = values_of(kind, bounds)
        for value in good:
            changed = house.power("PUT", "/bodhi/v1/models/ranged", {place: {name: value}})
            assert changed.status == 200 and changed.body[place] == ({name: value} if value != [] else {})
        for value in bad:
            reply = house.power("PUT", "/bodhi/v1/models/ranged", {place: {name: value}})
            assert (reply.status, reply.error["type"]) == (400, "validation_error"), (name, value)
            assert reply.error["param"] == f"{place}.{name}"


def values_of(kind: str, bounds: str) -> tuple[list[Any], list[Any]]:
    """Values that a row of the tables allows, and some that it does not."""
    if kind == "string[]":
        return [["a"], []], ["a", [1], {"a": 1}]
    match = re.fullmatch(r"(-?[\d.]+)-(-?[\d.]+|∞)", bounds)
    assert match is not None, bounds
    number: Any = float if kind == "number" else int
    low, high = number(match[1]), number("1000000" if match[2] == "∞" else match[2])
    wrong: list[Any] = ["1", True, [1], low - 1]
    wrong += [] if match[2] == "∞" else [high + 1]
    return [low, high], wrong + ([1.5] if kind == "integer" else [])


def test_context_parameters_become_launch_options(house: BodhiHouse) -> None:
    """n_ctx, n_threads, n_parallel, n_predict, n_keep (and n_seed) reach llama.cpp under its own names."""
    context = {"n_ctx": 1024, "n_threads": 2, "n_parallel": 2, "n_predict": 5, "n_keep": 4, "n_seed": 42}
    house.create("launched", context_params=context)
    assert house.chat("launched").body["usage"]["completion_tokens"] <= 5
    command = house.command()
    flags = ("--ctx-size", "--threads", "--parallel", "--predict", "--keep", "--seed")
    assert [after(command, flag) for flag in flags] == ["1024", "2", "2", "5", "4", "42"]


def after(command: list[str], flag: str) -> str:
    assert flag in command, command
    return command[command.index(flag) + 1]


def test_parameter_optimization_tips_are_valid(house: BodhiHouse, document: str) -> None:
    """For chat, creative writing, code and analysis: each tip as written is an alias's parameters."""
    tips = [
        literal(block) for block in blocks(section(document, "### Parameter Optimization Tips"), "typescript")
    ]
    assert len(tips) == 4
    for number, tip in enumerate(tips):
        context = {name: value for name, value in tip.items() if name.startswith("n_")}
        request = {name: value for name, value in tip.items() if name not in context}
        made = house.create(f"tip-{number}", request_params=request, context_params=context)
        assert (made["request_params"], made["context_params"]) == (request, context)


# Advanced Usage Patterns, Best Practices, Error Handling: and every fetch of the whole document


def test_alias_naming_conventions(house: BodhiHouse, document: str) -> None:
    """Every name in "Alias Naming Conventions" can be an alias."""
    names = re.findall(r"`([^`]+)`", section(document, "### Alias Naming Conventions"))
    assert len(names) == 7
    for name in names:
        assert house.create(name)["alias"] == name


def test_bulk_alias_creation(house: BodhiHouse, document: str) -> None:
    """`createMultipleAliases`: each of its configurations is created, a second time each is 409."""
    (block,) = blocks(section(document, "### Bulk Alias Creation"), "typescript")
    configs = constants(block, {})["aliasConfigs"]
    assert [house.power("POST", "/bodhi/v1/models", config).status for config in configs] == [201, 201]
    assert [house.power("POST", "/bodhi/v1/models", config).status for config in configs] == [409, 409]


def test_download_progress_monitoring(house: BodhiHouse) -> None:
    """`monitorDownload`: `progress` rises to 100 and the end is `completed` or `failed` with an `error`."""
    assert house.remove_file().status == 200
    seen = house.pull()
    assert seen["status"] in OVER and seen["progress"] == 100


def test_clean_unused_models(house: BodhiHouse) -> None:
    """Clean Unused Models: a file is deleted when a person with the right asks for it by name."""
    assert house.power("DELETE", "/bodhi/v1/modelfiles", repo=REPO, filename=Q4).status == 403
    assert house.remove_file().status == 200
    assert house.good("GET", "/bodhi/v1/modelfiles")["total"] == 0
    assert house.remove_file().status == 404


def test_common_error_scenarios(house: BodhiHouse) -> None:
    """400, 401, 403, 409 with `error.error.message` that says what is wrong."""
    body = {"alias": "once", "repo": REPO, "filename": Q4}
    assert house.power("POST", "/bodhi/v1/models", body).status == 201
    replies: list[Reply] = [
        house.power("POST", "/bodhi/v1/models", {**body, "request_params": {"temperature": 9}}),
        house.ask("POST", "/bodhi/v1/models", body),
        house.user("POST", "/bodhi/v1/models", body),
        house.power("POST", "/bodhi/v1/models", body),
        house.power("GET", "/bodhi/v1/nothing"),
        house.power("PATCH", "/bodhi/v1/models"),
    ]
    assert [reply.status for reply in replies] == [400, 401, 403, 409, 404, 405]
    assert all(reply.error["message"] for reply in replies)


def test_download_error_recovery(house: BodhiHouse) -> None:
    """`downloadWithRetry`: asking again after a failure tries again, and succeeds when the fault is over."""
    assert house.remove_file().status == 200
    house.hub.faults.wrong_bytes("*.gguf", host="cdn", times=None)
    body = {"repo": REPO, "filename": Q4}
    failed = house.ended(house.good("POST", "/bodhi/v1/modelfiles/pull", body)["id"])
    assert failed["status"] == "failed" and failed["error"]
    house.hub.faults.clear()
    again = house.power("POST", "/bodhi/v1/modelfiles/pull", body)
    assert again.status == 201 and again.body["id"] != failed["id"]
    assert house.ended(again.body["id"])["status"] == "completed"


def test_every_fetch_of_the_document_as_written(house: BodhiHouse, document: str) -> None:
    """All its TypeScript `fetch` calls and `curl` commands, in their order; none is left out."""
    scripts = blocks(document, "typescript")
    assert document.count("fetch(") == sum(script.count("fetch(") for script in scripts) == 17
    assert "curl" not in document
    sent = 0
    download = ""
    for script in scripts:
        values = {
            "apiToken": house.tokens["user"],
            "powerUserToken": house.tokens["power_user"],
            "this.apiToken": house.tokens["power_user"],
            "this.baseURL": "http://localhost:1135",
            "config": {"alias": f"made-{sent}", "repo": REPO, "filename": Q4},
            "aliasName": "creative-writer",
            "newModelFile": Q4,
            "repo": REPO,
            "filename": Q4,
            "downloadId": download,
        }
        for call in fetches(script, values):
            reply = send(house, call, download)
            assert reply.status in (200, 201), (call, reply)
            sent += 1
            if call.method == "POST" and "/pull" in call.url:
                download = reply.body["id"]
                assert house.ended(download)["status"] == "completed"
    assert sent == 17


def send(house: BodhiHouse, call: Fetch, download: str) -> Reply:
    """One call, at this server's address and about this server's download.

    The document pulls the same file again and again, and reads an alias that it has not made.
    """
    path = call.url.removeprefix("http://localhost:1135").replace("download-123", download)
    if path == "/bodhi/v1/models/llama3:instruct" and house.power("GET", path).status == 404:
        house.create("llama3:instruct")
    if call.method == "POST" and path.endswith("/pull"):
        house.remove_file()
    elif path.endswith("/pull/llama3:instruct"):
        house.power("DELETE", "/bodhi/v1/models/llama3:instruct")
    return house.ask(call.method, path, call.body, **call.headers)
