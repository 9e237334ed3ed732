"""The Hub against a real HTTP server: answers, closed doors, tokens, and no word when offline."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ostler.core.errors import Invalid, Kind, Offline, OstlerError
from ostler.hub import (
    GatedRepo,
    Hub,
    HubError,
    NoSuchFile,
    RepoNotFound,
    RevisionNotFound,
    TokenRefused,
    parse_spec,
)
from tests.hub.conftest import MakeHub
from tests.hub.repos import HubRepo
from tests.hub.server import HubServer

TOKEN = "hf_a-token-that-nobody-may-see"


# --- what it answers


async def test_a_spec_becomes_files_at_a_pinned_commit(hub: Hub, repo: HubRepo) -> None:
    found = await hub.resolve(parse_spec("org/tiny-GGUF:q8_0"))
    blob = repo.blob("tiny-Q8_0.gguf")
    (file,) = found.files
    assert (file.path, file.size_bytes, file.sha256) == ("tiny-Q8_0.gguf", 5, blob.sha256)
    assert file.etag == blob.etag
    assert (found.repo, found.revision, found.commit) == ("org/tiny-GGUF", "main", repo.head)
    assert (found.tag, found.format, found.total_bytes, found.primary) == ("Q8_0", "gguf", 5, file.path)
    assert found.renamed_from is None
    assert hub.file_url(found.repo, found.commit, "a b/ü.gguf").endswith(
        f"/org/tiny-GGUF/resolve/{repo.head}/a%20b/%C3%BC.gguf"
    )


async def test_a_small_file_is_known_by_its_git_hash(hub: Hub, repo: HubRepo) -> None:
    info = await hub.repo("org/tiny-GGUF")
    readme = next(file for file in info.files if file.path == "README.md")
    assert (readme.sha256, readme.lfs) == (None, False)
    assert readme.etag == readme.blob_id == repo.blob("README.md").oid


async def test_a_repo_is_told_with_everything_a_person_asks_first(hub: Hub, repo: HubRepo) -> None:
    info = await hub.repo("org/tiny-GGUF")
    assert (info.downloads, info.likes, info.license) == (12, 3, "apache-2.0")
    assert (info.gated, info.private, info.pipeline_tag) == (None, False, "text-generation")
    assert info.last_modified == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert {"llama", "gguf"} <= set(info.tags)
    assert {v.tag for v in info.variants} == {"Q4_K_M", "Q8_0"}
    assert info.total_bytes == 4 + 5 + 6


async def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, repo: HubRepo) -> None:
    first = repo.head
    repo.version_tags["v1"] = first
    repo.commit({"tiny-Q8_0.gguf": b"second"})
    repo.commit({"tiny-Q8_0.gguf": b"on a side"}, branch="refs/pr/1")
    for revision, size in (("v1", 5), (first, 5), ("main", 6), ("refs/pr/1", 9)):
        found = await hub.resolve(parse_spec(f"org/tiny-GGUF:Q8_0@{revision}"))
        assert (found.revision, found.total_bytes) == (revision, size)


async def test_a_repo_that_moves_is_pinned_where_it_was_asked_for(
    hub: Hub, hub_server: HubServer, repo: HubRepo
) -> None:
    before = repo.head
    hub_server.faults.run("/api/models/org/tiny-GGUF", lambda: repo.commit({"tiny-Q8_0.gguf": b"newer"}))
    first = await hub.resolve(parse_spec("org/tiny-GGUF:Q8_0"))
    second = await hub.resolve(parse_spec("org/tiny-GGUF:Q8_0"))
    assert first.commit == before != second.commit == repo.head
    assert first.files[0].sha256 != second.files[0].sha256


async def test_a_renamed_repo_is_followed_and_the_new_name_told(
    hub: Hub, hub_server: HubServer, repo: HubRepo, caplog: pytest.LogCaptureFixture
) -> None:
    hub_server.rename("org/tiny-GGUF", "people/small-GGUF")
    with caplog.at_level(logging.INFO):
        found = await hub.resolve(parse_spec("org/tiny-GGUF:Q8_0@main"))
    assert (found.repo, found.renamed_from) == ("people/small-GGUF", "org/tiny-GGUF")
    assert "people/small-GGUF" in caplog.text


async def test_search_finds_sorts_and_filters(hub: Hub, hub_server: HubServer, repo: HubRepo) -> None:
    hub_server.add_repo("org/tiny", {"model.safetensors": b"x"}, downloads=99, likes=1)
    hub_server.add_repo("org/other-GGUF", {"o.gguf": b"x"}, downloads=500)

    async def names(query: str, **how: Any) -> list[str]:
        return [hit.repo for hit in await hub.search(query, **how)]

    assert await names("tiny") == ["org/tiny", "org/tiny-GGUF"]
    assert await names("tiny", sort="likes") == ["org/tiny-GGUF", "org/tiny"]
    assert await names("tiny", filter_gguf=True) == ["org/tiny-GGUF"]
    assert await names("tiny", filter_gguf=False) == ["org/tiny"]
    assert await names("", limit=1) == ["org/other-GGUF"]
    assert await names("no such thing") == []
    (hit,) = await hub.search("tiny-GGUF")
    assert (hit.downloads, hit.likes, hit.gguf, hit.license) == (12, 3, True, "apache-2.0")


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1000}, {"sort": "size"}, {"query": "x" * 300}])
async def test_a_search_that_makes_no_sense_is_not_sent(
    hub: Hub, hub_server: HubServer, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Invalid):
        await hub.search(**{"query": "x", **wrong})
    assert hub_server.requests == []


async def test_a_wrong_tag_is_answered_with_those_that_exist(hub: Hub, repo: HubRepo) -> None:
    with pytest.raises(NoSuchFile) as wrong:
        await hub.resolve(parse_spec("org/tiny-GGUF:Q5_K_M"))
    assert sorted(wrong.value.facts["available"]) == ["Q4_K_M", "Q8_0"]


# --- closed doors


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_gated_repo_says_so_up_front(
    hub_server: HubServer, make_hub: MakeHub, token: str | None
) -> None:
    hub_server.add_repo("org/gated", {"a-Q4_0.gguf": b"a"}, gated="manual")
    hub_server.add_token(TOKEN)
    hub = make_hub(hf_token=token)
    assert (await hub.repo("org/gated")).gated == "manual"
    with pytest.raises(GatedRepo) as closed:
        await hub.resolve(parse_spec("org/gated"))
    assert closed.value.kind is Kind.NOT_ALLOWED
    assert f"{hub_server.endpoint}/org/gated" in (closed.value.hint or "")
    assert ("hf auth login" in (closed.value.hint or "")) is (token is None)
    assert not hub_server.requests_for("*/resolve/*"), "told before any file is asked for"


async def test_a_gated_or_private_repo_opens_to_a_token_with_access(
    hub_server: HubServer, make_hub: MakeHub
) -> None:
    for name, how in (("org/gated", {"gated": "auto"}), ("org/private", {"private": True})):
        hub_server.add_repo(name, {"a-Q4_0.gguf": b"a"}, token=TOKEN, **how)
        found = await make_hub(hf_token=TOKEN).resolve(parse_spec(name))
        assert found.primary == "a-Q4_0.gguf"
        assert found.gated == how.get("gated")


async def test_a_mirror_without_access_checks_does_not_stop_a_gated_repo(
    hub_server: HubServer, make_hub: MakeHub
) -> None:
    hub_server.add_repo("org/gated", {"a-Q4_0.gguf": b"a"}, gated="auto", token=TOKEN)
    hub_server.faults.status("*/auth-check", status=404)
    assert (await make_hub(hf_token=TOKEN).resolve(parse_spec("org/gated"))).gated == "auto"


@pytest.mark.parametrize("name", ["org/private", "org/absent"])
async def test_a_repo_that_is_not_shown_is_not_found(
    hub_server: HubServer, make_hub: MakeHub, name: str
) -> None:
    hub_server.add_repo("org/private", {"a-Q4_0.gguf": b"a"}, private=True)
    hub_server.add_token(TOKEN)
    with pytest.raises(RepoNotFound) as unknown:
        await make_hub().repo(name)
    assert "HF_TOKEN" in (unknown.value.hint or "")
    with pytest.raises(RepoNotFound) as unknown:
        await make_hub(hf_token=TOKEN).repo(name)
    assert "ostler search" in (unknown.value.hint or "")


async def test_an_unknown_revision_is_not_found(hub: Hub, repo: HubRepo) -> None:
    for revision in ("v9", "f" * 40):
        with pytest.raises(RevisionNotFound) as unknown:
            await hub.repo("org/tiny-GGUF", revision)
        assert unknown.value.facts["revision"] == revision
        assert unknown.value.hint


# --- tokens


async def test_the_token_of_the_settings_goes_before_the_token_file(
    hub_server: HubServer, make_hub: MakeHub, repo: HubRepo, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("hf_from-file\n")
    for token in (TOKEN, "hf_from-file"):
        hub_server.add_token(token)
    hubs: list[tuple[Hub, str | None]] = [
        (make_hub(hf_token=TOKEN, token_file=file), TOKEN),
        (make_hub(token_file=file), "hf_from-file"),
        (make_hub(), None),
    ]
    for hub, expected in hubs:
        assert hub.token() == expected
        await hub.repo("org/tiny-GGUF")
        assert hub_server.requests[-1].token == expected


async def test_the_token_file_is_found_by_the_rules_of_the_hubs_own_client(
    hub_environment: dict[str, str],
) -> None:
    home = Path(hub_environment["HF_HOME"])
    home.mkdir()
    (home / "token").write_text("hf_logged-in")
    code = "from ostler.hub import *; from ostler.core.settings import *; print(Hub(Settings()).token())"
    child = subprocess.run(
        [sys.executable, "-c", code], env=hub_environment, capture_output=True, text=True, timeout=60
    )
    assert child.stdout.strip() == "hf_logged-in", child.stderr


def test_a_token_file_that_cannot_be_read_is_said_and_not_fatal(
    make_hub: MakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe\x00")
    assert make_hub(token_file=tmp_path / "token").token() is None
    assert make_hub(token_file=tmp_path).token() is None
    assert caplog.text.count("cannot be read") == 2


@pytest.mark.parametrize("token", ["hf_line\nbreak-secret", "hf_naïve-secret", "hf secret"])
async def test_a_token_that_cannot_be_sent_is_refused_without_being_shown(
    make_hub: MakeHub, hub_server: HubServer, repo: HubRepo, token: str
) -> None:
    with pytest.raises(TokenRefused) as refused:
        await make_hub(hf_token=token).repo("org/tiny-GGUF")
    assert "secret" not in repr((refused.value.args, refused.value.facts, refused.value.hint))
    assert hub_server.requests == []


async def test_a_token_that_the_hub_does_not_know_is_named_as_the_cause(
    make_hub: MakeHub, repo: HubRepo
) -> None:
    with pytest.raises(TokenRefused) as refused:
        await make_hub(hf_token="hf_expired").repo("org/tiny-GGUF")
    assert "hf auth login" in (refused.value.hint or "")


async def test_a_hub_that_repeats_the_token_does_not_get_it_into_errors_or_logs(
    make_hub: MakeHub, hub_server: HubServer, repo: HubRepo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = f'{{"error": "what is {TOKEN}? \\u001b[31mred"}}'.encode()
    for status in (400, 401, 403, 500):
        hub_server.faults.clear()
        hub_server.faults.status("*", status=status, body=body, times=None)
        with pytest.raises(OstlerError) as failed:
            await make_hub(hf_token=TOKEN).repo("org/tiny-GGUF")
        shown = f"{failed.value} {failed.value.facts} {failed.value.hint}"
        assert TOKEN not in shown
        assert "\x1b" not in shown
    assert TOKEN not in caplog.text


async def test_a_redirect_to_another_host_does_not_get_the_token(
    make_hub: MakeHub, hub_server: HubServer, repo: HubRepo
) -> None:
    hub_server.add_token(TOKEN)
    hub_server.faults.redirect("/api/models/org/tiny-GGUF", f"{hub_server.cdn}/elsewhere")
    with pytest.raises(HubError):
        await make_hub(hf_token=TOKEN).repo("org/tiny-GGUF")
    assert [request.token for request in hub_server.requests] == [TOKEN, None]


# --- offline, and what it costs to have this room


async def test_offline_no_socket_is_opened(hub_server: HubServer, repo: HubRepo, tmp_path: Path) -> None:
    """In a process of its own, where every attempt to open a socket would be seen."""
    code = """
import asyncio, sys
from pathlib import Path
from ostler.core.errors import Offline
from ostler.core.settings import Settings
from ostler.hub import Hub, parse_spec

async def main():
    seen = []
    sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
    hub = Hub(Settings(hf_endpoint=sys.argv[1], hf_token="hf_x", offline=True))
    for question in (hub.search("x"), hub.repo("org/tiny-GGUF"), hub.resolve(parse_spec("org/tiny-GGUF"))):
        try:
            await question
        except Offline as error:
            assert error.hint
        else:
            raise SystemExit("it answered")
    assert hub.file_url("org/tiny-GGUF", "c" * 40, "a.gguf")
    print(seen)

asyncio.run(main())
"""
    child = subprocess.run(
        [sys.executable, "-c", code, hub_server.endpoint], capture_output=True, text=True, timeout=60
    )
    assert child.stdout.strip() == "[]", child.stdout + child.stderr
    assert hub_server.requests == []


async def test_offline_is_its_own_kind_of_error(make_hub: MakeHub) -> None:
    with pytest.raises(Offline) as offline:
        await make_hub(offline=True).search("x")
    assert offline.value.kind is Kind.OFFLINE
    assert offline.value.hint


async def test_nobody_but_the_endpoint_is_asked(
    hub_server: HubServer, repo: HubRepo, hub_environment: dict[str, str]
) -> None:
    """huggingface_hub would first ask huggingface.co for a list, also when another hub is set."""
    code = """
import asyncio, sys
from ostler.core.settings import Settings
from ostler.hub import Hub, parse_spec

asked = []
sys.addaudithook(lambda event, args: asked.append(args[0]) if event == "socket.getaddrinfo" else None)
async def main():
    hub = Hub(Settings(hf_endpoint=sys.argv[1]))
    await hub.resolve(parse_spec("org/tiny-GGUF"))
    await hub.search("tiny")
asyncio.run(main())
print(set(asked) - {"127.0.0.1"})
"""
    hub_environment.pop("HF_HUB_DISABLE_TELEMETRY")
    hub_environment.pop("DO_NOT_TRACK", None)
    hub_environment.pop("HF_ENDPOINT")
    child = subprocess.run(
        [sys.executable, "-c", code, hub_server.endpoint],
        env=hub_environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.stdout.strip() == "set()", child.stdout + child.stderr


def test_importing_the_room_does_not_import_the_hubs_client() -> None:
    code = "import sys, ostler.hub; print({'huggingface_hub', 'httpx2', 'httpx'} & set(sys.modules))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.stdout.strip() == "set()", child.stdout + child.stderr
