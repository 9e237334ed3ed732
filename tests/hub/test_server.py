"""The test hub against the real `huggingface_hub`: what other tests build on must be true."""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub.repos import HubRepo
from tests.hub.server import HubServer

WEIGHTS = bytes(range(256)) * 64


@pytest.fixture
def repo(hub_server: HubServer) -> HubRepo:
    return hub_server.add_repo(
        "org/tiny", {"tiny-Q8_0.gguf": WEIGHTS, "config.json": b"{}", "sub/notes.txt": b"hello"}, downloads=7
    )


def api(hub: HubServer, token: str | None = None) -> huggingface_hub.HfApi:
    return huggingface_hub.HfApi(endpoint=hub.endpoint, token=token or False)


def get(
    hub: HubServer, path: str, headers: dict[str, str] | None = None, *, base: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One plain request, nothing followed."""
    connection = http.client.HTTPConnection(urlsplit(base or hub.endpoint).netloc, timeout=10)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_the_library_finds_lists_and_fetches_a_repo(
    hub_server: HubServer, repo: HubRepo, tmp_path: Path
) -> None:
    hub_server.add_repo("org/other", {"model.safetensors": b"x"}, downloads=100)
    hub = api(hub_server)

    assert [hit.id for hit in hub.list_models(search="tin", filter="gguf", limit=5)] == ["org/tiny"]
    assert [hit.id for hit in hub.list_models(sort="downloads")] == ["org/other", "org/tiny"]
    info = hub.model_info("org/tiny", files_metadata=True)
    assert info.sha == repo.head
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
    assert sizes == {"tiny-Q8_0.gguf": len(WEIGHTS), "config.json": 2, "sub/notes.txt": 5}
    path = huggingface_hub.hf_hub_download(
        "org/tiny", "tiny-Q8_0.gguf", endpoint=hub_server.endpoint, cache_dir=tmp_path, token=False
    )
    assert Path(path).read_bytes() == WEIGHTS
    folder = huggingface_hub.snapshot_download(
        "org/tiny", endpoint=hub_server.endpoint, cache_dir=tmp_path, token=False
    )
    assert (Path(folder) / "sub/notes.txt").read_bytes() == b"hello"
    assert Path(folder).name == repo.head
    assert {item.name: item.target_commit for item in hub.list_repo_refs("org/tiny").branches} == {
        "main": repo.head
    }
    assert [entry.path for entry in hub.get_paths_info("org/tiny", ["config.json", "gone"])] == [
        "config.json"
    ]


def test_a_long_tree_comes_in_pages(tmp_path: Path) -> None:
    with HubServer(page_size=7) as hub:
        hub.add_repo("org/many", {f"folder/{n:02}.txt": b"%d" % n for n in range(20)})
        files = [entry.path for entry in api(hub).list_repo_tree("org/many", recursive=True)]
        assert files == ["folder", *(f"folder/{n:02}.txt" for n in range(20))]
        assert len(hub.requests_for("*/tree/main")) == 3
        assert [entry.path for entry in api(hub).list_repo_tree("org/many")] == ["folder"]


async def test_the_hf_command_downloads_from_it(
    hub_server: HubServer, repo: HubRepo, hub_environment: dict[str, str], tmp_path: Path
) -> None:
    child = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "hf"),
        *("download", "org/tiny", "--local-dir", str(tmp_path / "here")),
        env=hub_environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0, output
    assert (tmp_path / "here/tiny-Q8_0.gguf").read_bytes() == WEIGHTS


def test_large_files_come_from_the_other_host_and_the_token_stays_behind(
    hub_server: HubServer, repo: HubRepo, tmp_path: Path
) -> None:
    token = hub_server.add_token("hf_good")
    huggingface_hub.hf_hub_download(
        "org/tiny", "tiny-Q8_0.gguf", endpoint=hub_server.endpoint, cache_dir=tmp_path, token=token
    )
    assert hub_server.requests_for("*/resolve/*")[0].token == token
    (fetch,) = hub_server.requests_for("/cdn/*", host="cdn")
    assert fetch.token is None
    assert (fetch.status, fetch.bytes_sent) == (200, len(WEIGHTS))


def test_ranges_are_served_and_refused_as_http_says(hub_server: HubServer, repo: HubRepo) -> None:
    _, redirect, _ = get(hub_server, "/org/tiny/resolve/main/tiny-Q8_0.gguf")
    blob = repo.blob("tiny-Q8_0.gguf")
    assert redirect["x-linked-size"] == str(len(WEIGHTS))
    assert redirect["x-linked-etag"] == f'"{blob.sha256}"'
    assert redirect["x-repo-commit"] == repo.head
    assert "x-xet-hash" not in redirect
    url = urlsplit(redirect["location"])
    where = f"{url.path}?{url.query}"

    def part(wanted: str, **more: str) -> tuple[int, str | None, bytes]:
        status, headers, body = get(hub_server, where, {"Range": wanted, **more}, base=f"http://{url.netloc}")
        return status, headers.get("content-range"), body

    size = len(WEIGHTS)
    assert part("bytes=100-199") == (206, f"bytes 100-199/{size}", WEIGHTS[100:200])
    assert part("bytes=16000-") == (206, f"bytes 16000-{size - 1}/{size}", WEIGHTS[16000:])
    assert part("bytes=-10") == (206, f"bytes {size - 10}-{size - 1}/{size}", WEIGHTS[-10:])
    assert part(f"bytes={size}-")[:2] == (416, f"bytes */{size}")
    assert part("bytes=10-", **{"If-Range": '"older"'}) == (200, None, WEIGHTS)
    assert get(hub_server, url.path, base=f"http://{url.netloc}")[0] == 403, "the signature is needed"


def test_closed_repos_are_closed_in_the_hubs_own_way(hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.add_repo("org/gated", {"a.gguf": b"a"}, gated="manual", token="hf_good")
    hub_server.add_repo("org/private", {"a.gguf": b"a"}, private=True, token="hf_good")
    hub_server.add_token("hf_other")

    def fetch(repo: str, token: str | None) -> str:
        return huggingface_hub.hf_hub_download(
            repo, "a.gguf", endpoint=hub_server.endpoint, cache_dir=tmp_path, token=token or False
        )

    assert api(hub_server).model_info("org/gated").gated == "manual", "everyone sees that it is there"
    for token in (None, "hf_other"):
        with pytest.raises(GatedRepoError):
            fetch("org/gated", token)
        with pytest.raises(RepositoryNotFoundError):
            fetch("org/private", token)
    with pytest.raises(RevisionNotFoundError):
        api(hub_server).model_info("org/gated", revision="v9")
    assert Path(fetch("org/gated", "hf_good")).read_bytes() == b"a"
    assert Path(fetch("org/private", "hf_good")).read_bytes() == b"a"
    assert api(hub_server).whoami("hf_good")["name"] == "ada"


def test_a_renamed_repo_redirects(hub_server: HubServer, repo: HubRepo, tmp_path: Path) -> None:
    hub_server.rename("org/tiny", "org/small")
    assert api(hub_server).model_info("org/tiny").id == "org/small"
    path = huggingface_hub.hf_hub_download(
        "org/tiny", "tiny-Q8_0.gguf", endpoint=hub_server.endpoint, cache_dir=tmp_path, token=False
    )
    assert Path(path).read_bytes() == WEIGHTS


def test_older_revisions_stay(hub_server: HubServer, repo: HubRepo) -> None:
    first = repo.head
    repo.version_tags["v1"] = first
    second = repo.commit({"tiny-Q8_0.gguf": b"newer"}, remove=("sub/notes.txt",))
    hub = api(hub_server)
    assert hub.model_info("org/tiny").sha == second
    assert hub.model_info("org/tiny", revision="v1").sha == first
    files = {
        s.rfilename: s.size
        for s in hub.model_info("org/tiny", revision=first, files_metadata=True).siblings or ()
    }
    assert files["tiny-Q8_0.gguf"] == len(WEIGHTS) and "sub/notes.txt" in files


def test_llama_cpp_gets_its_manifest(hub_server: HubServer) -> None:
    repo = hub_server.add_repo(
        "org/vision", {"m-Q4_K_M.gguf": b"4", "m-Q8_0.gguf": b"8", "mmproj-F16.gguf": b"p"}
    )
    assert "ggufFile" not in api_json(hub_server, "/v2/org/vision/manifests/q8_0"), "only llama.cpp is told"
    theirs = {"User-Agent": "llama-cpp/11434"}
    manifest = api_json(hub_server, "/v2/org/vision/manifests/q8_0", theirs)
    assert manifest["ggufFile"]["rfilename"] == "m-Q8_0.gguf"
    assert manifest["ggufFile"]["lfs"]["sha256"] == repo.blob("m-Q8_0.gguf").sha256
    assert manifest["mmprojFile"]["rfilename"] == "mmproj-F16.gguf"
    latest = api_json(hub_server, "/v2/org/vision/manifests/latest", theirs)
    assert latest["ggufFile"]["rfilename"] == "m-Q4_K_M.gguf"


def api_json(hub: HubServer, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    return dict(json.loads(get(hub, path, headers)[2]))


FILE = "/org/plain/resolve/main/notes.txt"
TEXT = bytes(range(32, 127)) * 50


@pytest.fixture
def plain(hub_server: HubServer) -> HubRepo:
    return hub_server.add_repo("org/plain", {"notes.txt": TEXT})


@pytest.mark.parametrize("after_bytes", [0, 1, 999, len(TEXT) - 1])
@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_ends_the_connection_at_that_byte(
    hub_server: HubServer, plain: HubRepo, after_bytes: int, reset: bool
) -> None:
    hub_server.faults.cut("*/notes.txt", after_bytes=after_bytes, reset=reset)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)) as broken:
        get(hub_server, FILE)
    if isinstance(broken.value, http.client.IncompleteRead):
        assert broken.value.partial == TEXT[:after_bytes]
    assert hub_server.requests_for(FILE)[0].bytes_sent == after_bytes
    assert get(hub_server, FILE)[2] == TEXT, "one fault strikes once"


def test_a_cut_before_the_status_line_gives_no_answer_at_all(hub_server: HubServer, plain: HubRepo) -> None:
    hub_server.faults.cut("*/notes.txt", after_bytes=-1, nth=2)
    assert get(hub_server, FILE)[0] == 200
    with pytest.raises(http.client.RemoteDisconnected):
        get(hub_server, FILE)


def test_errors_are_sent_as_often_as_asked(hub_server: HubServer, plain: HubRepo) -> None:
    fault = hub_server.faults.status("*/notes.txt", status=429, retry_after=3, nth=2, times=2)
    answers = [get(hub_server, FILE) for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 429, 429, 200]
    assert answers[1][1]["retry-after"] == "3"
    assert (fault.seen, fault.struck) == (4, 2)


def test_wrong_bytes_keep_the_length_also_in_a_range(hub_server: HubServer, plain: HubRepo) -> None:
    hub_server.faults.wrong_bytes("*/notes.txt", at=100, count=3, times=2)
    _, _, body = get(hub_server, FILE)
    assert len(body) == len(TEXT)
    assert [n for n in range(len(TEXT)) if body[n] != TEXT[n]] == [100, 101, 102]
    _, _, part = get(hub_server, FILE, {"Range": "bytes=101-200"})
    assert [n for n in range(100) if part[n] != TEXT[101 + n]] == [0, 1]


def test_a_stall_is_silent_until_released(hub_server: HubServer, plain: HubRepo) -> None:
    fault = hub_server.faults.stall("*/notes.txt", after_bytes=10)
    bodies: list[bytes] = []
    client = threading.Thread(target=lambda: bodies.append(get(hub_server, FILE)[2]))
    client.start()
    assert fault.reached.wait(10)
    hub_server.wait_for_request(FILE)
    assert not bodies
    fault.release()
    client.join(10)
    assert bodies == [TEXT]


def test_a_stalled_answer_ends_with_the_hub(plain: HubRepo, hub_server: HubServer) -> None:
    fault = hub_server.faults.stall("*/notes.txt", after_bytes=10)
    ends: list[BaseException] = []

    def fetch() -> None:
        try:
            get(hub_server, FILE)
        except (http.client.HTTPException, OSError) as error:
            ends.append(error)

    client = threading.Thread(target=fetch)
    client.start()
    assert fault.reached.wait(10)
    hub_server.stop()
    client.join(10)
    assert len(ends) == 1


def test_a_drip_sends_everything_in_small_pieces(hub_server: HubServer, plain: HubRepo) -> None:
    hub_server.faults.drip("*/notes.txt", bytes_per_s=100_000, chunk_bytes=500)
    start = time.monotonic()
    assert get(hub_server, FILE)[2] == TEXT
    assert time.monotonic() - start >= len(TEXT) / 100_000 * 0.9


def test_a_hub_without_ranges_sends_the_whole_file(hub_server: HubServer, plain: HubRepo) -> None:
    hub_server.faults.no_ranges("*/notes.txt")
    status, _, body = get(hub_server, FILE, {"Range": "bytes=10-20"})
    assert (status, body) == (200, TEXT)


def test_main_can_move_between_two_requests(hub_server: HubServer, plain: HubRepo) -> None:
    old = plain.head
    hub_server.faults.run("/api/models/org/plain*", lambda: plain.commit({"notes.txt": b"new"}))
    assert api(hub_server).model_info("org/plain").sha == old
    assert plain.head != old
    assert get(hub_server, FILE)[2] == b"new"
    assert get(hub_server, FILE.replace("main", old))[2] == TEXT


def test_a_token_the_hub_does_not_know_is_refused(hub_server: HubServer, plain: HubRepo) -> None:
    status, headers, _ = get(hub_server, FILE, {"Authorization": "Bearer hf_bad"})
    assert status == 401
    assert headers["x-error-message"] == "Invalid credentials in Authorization header"


def test_a_file_on_disk_is_not_read_into_memory(hub_server: HubServer, tmp_path: Path) -> None:
    big = tmp_path / "big.gguf"
    with big.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    blob = hub_server.add_repo("org/big", {"big.gguf": big}).blob("big.gguf")
    assert blob.data == big
    _, headers, _ = get(hub_server, "/org/big/resolve/main/big.gguf")
    url = urlsplit(headers["location"])
    _, _, body = get(hub_server, f"{url.path}?{url.query}", base=f"http://{url.netloc}")
    assert body == bytes(blob.size)
