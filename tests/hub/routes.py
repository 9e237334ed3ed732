"""What the test hub answers: the hub's API as `huggingface_hub` and llama.cpp use it.

Seen in huggingface_hub 2.4: `hf_api.py` (API paths and fields), `file_download.py` (headers of
`/resolve/`), `utils/_http.py` (X-Error-Code).
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qs, quote, unquote

from tests.hub.repos import Blob, Commit, HubRepo

if TYPE_CHECKING:
    from tests.hub.server import HubServer, Request

QUANT = re.compile(r"(?i)(?<![a-z0-9])(i?q\d(_[a-z0-9]+)*|bf16|f16|f32|mxfp4)(?![a-z0-9])")


@dataclass
class Body:
    """The bytes of an answer: a part of a blob, or bytes."""

    data: bytes | Path = b""
    offset: int = 0
    length: int | None = None

    @property
    def size(self) -> int:
        """How many bytes are sent."""
        if self.length is not None:
            return self.length
        whole = len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size
        return whole - self.offset

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The whole data as a file; the body begins at `offset`."""
        with io.BytesIO(self.data) if isinstance(self.data, bytes) else self.data.open("rb") as file:
            yield file


@dataclass
class Answer:
    """Status, headers and body; `json` is what the body was made from, if anything."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=Body)
    json: Any = None

    @classmethod
    def of_json(cls, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
        """A JSON answer."""
        return cls(
            status,
            {**(headers or {}), "Content-Type": "application/json; charset=utf-8"},
            Body(json.dumps(value).encode()),
            value,
        )

    @classmethod
    def error(cls, status: int, code: str | None, message: str) -> Answer:
        """An error as the hub reports it: in headers, and in the body."""
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        return cls.of_json({"error": message}, status, headers)


def answer(hub: HubServer, request: Request) -> Answer:
    """The answer to one request, before any fault."""
    if request.host == "cdn":
        return _cdn(hub, request)
    if request.token is not None and request.token not in hub.tokens:
        return Answer.error(401, None, "Invalid credentials in Authorization header")
    parts = request.raw_path.strip("/").split("/")
    if parts[:2] == ["api", "whoami-v2"]:
        return _whoami(hub, request)
    if parts[:2] == ["api", "models"]:
        if len(parts) == 2:
            return _search(hub, request)
        return _api(hub, request, parts[2:])
    if len(parts) == 5 and parts[0] == "v2" and parts[3] == "manifests":
        return _manifest(hub, request, "/".join(parts[1:3]), parts[4])
    if len(parts) >= 5 and parts[2] in ("resolve", "raw"):
        return _resolve(hub, request, parts)
    return Answer.error(404, None, "Not Found")


def _find(hub: HubServer, request: Request, name: str) -> HubRepo | Answer:
    """The repo, or the redirect to its new name, or what the hub says to those who may not see it."""
    if new := hub.renamed.get(name):
        query = f"?{quote('&'.join(f'{k}={v}' for k, vs in request.query.items() for v in vs), safe='=&')}"
        path = request.raw_path.replace(name, new, 1) + (query if request.query else "")
        return Answer(307, {"Location": path}, Body(f"Temporary Redirect. Redirecting to {path}".encode()))
    repo = hub.repos.get(name)
    if repo is not None and repo.is_visible_to(request.token):
        return repo
    if request.token is None:
        return Answer.error(401, "RepoNotFound", "Invalid username or password.")
    return Answer.error(404, "RepoNotFound", "Repository not found")


def _refused(repo: HubRepo, request: Request) -> Answer | None:
    """What a gated repo says to those who have no access."""
    if repo.may_fetch(request.token):
        return None
    if request.token is None:
        message = (
            f"Access to model {repo.name} is restricted. You must have access to it and be authenticated."
        )
        return Answer.error(401, "GatedRepo", message)
    return Answer.error(
        403, "GatedRepo", f"Access to model {repo.name} is restricted and you are not in the list."
    )


def _no_revision(revision: str) -> Answer:
    return Answer.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")


def _api(hub: HubServer, request: Request, parts: list[str]) -> Answer:
    """/api/models/{org}/{name}[/revision/{rev} | /tree/{rev}[/{folder}] | /refs | /paths-info/{rev}]."""
    found = _find(hub, request, "/".join(parts[:2]))
    if isinstance(found, Answer):
        return found
    what, *more = parts[2:] or ["revision", "main"]
    if what == "auth-check":
        return _refused(found, request) or Answer.of_json({})
    if what == "refs":
        return _refs(found)
    revision = unquote(more[0]) if more else "main"
    commit = found.find(revision)
    if commit is None:
        return _no_revision(revision)
    if what == "revision":
        return Answer.of_json(found.to_json(commit, blobs="blobs" in request.query))
    if what == "tree":
        return _tree(hub, request, commit, unquote("/".join(more[1:])))
    if what == "paths-info":
        paths = parse_qs(request.body.decode()).get("paths", [])
        return Answer.of_json(
            [_entry(hub, path, commit.files[path]) for path in paths if path in commit.files]
        )
    if what == "commits":
        return Answer.of_json(
            [
                {"id": c.sha, "title": c.title, "message": "", "authors": [], "date": c.date.isoformat()}
                for c in found.commits
            ]
        )
    return Answer.error(404, None, "Not Found")


def _refs(repo: HubRepo) -> Answer:
    def refs(names: dict[str, str], kind: str) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": sha} for n, sha in names.items()]

    return Answer.of_json(
        {
            "branches": refs(repo.branches, "heads"),
            "tags": refs(repo.version_tags, "tags"),
            "converts": [],
            "pullRequests": [],
        }
    )


def _entry(hub: HubServer, path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
        if hub.xet:
            entry["xetHash"] = blob.sha256
    return entry


def _tree(hub: HubServer, request: Request, commit: Commit, folder: str) -> Answer:
    prefix = f"{folder}/" if folder else ""
    recursive = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    entries: dict[str, dict[str, Any]] = {}
    for path, blob in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        parents = path[len(prefix) :].split("/")[:-1]
        for depth in range(len(parents)):
            name = prefix + "/".join(parents[: depth + 1])
            if recursive or depth == 0:
                entries.setdefault(name, {"type": "directory", "path": name, "size": 0, "oid": "0" * 40})
        if recursive or not parents:
            entries[path] = _entry(hub, path, blob)
    if folder and not entries:
        return Answer.error(404, "EntryNotFound", f"{folder} does not exist on {commit.sha}")
    start = int(request.query.get("cursor", ["0"])[0])
    end = start + min(int(request.query.get("limit", [str(hub.page_size)])[0]), hub.page_size)
    headers = {"X-Repo-Commit": commit.sha}
    if end < len(entries):
        more = f"recursive={str(recursive).lower()}&cursor={end}"
        headers["Link"] = f'<{hub.endpoint}{request.raw_path}?{more}>; rel="next"'
    return Answer.of_json(list(entries.values())[start:end], headers=headers)


def _search(hub: HubServer, request: Request) -> Answer:
    query = request.query
    words = query.get("search", [""])[0].lower().split()
    filters = [part for value in query.get("filter", []) for part in value.split(",")]
    author = query.get("author", [None])[0]
    found = []
    for repo in list(hub.repos.values()):
        entry = repo.to_json(repo.at("main"), blobs=False, siblings="full" in query)
        if (
            repo.is_visible_to(request.token)
            and all(word in repo.name.lower() for word in words)
            and all(tag in entry["tags"] for tag in filters)
            and (author is None or entry["author"] == author)
        ):
            found.append(entry)
    sort = query.get("sort", ["downloads"])[0]
    key = sort if sort in ("downloads", "likes", "lastModified", "createdAt") else "downloads"
    found.sort(key=lambda entry: (entry[key], entry["id"]), reverse=True)
    start = int(query.get("cursor", ["0"])[0])
    end = start + min(int(query.get("limit", ["1000"])[0]), hub.page_size)
    headers = {}
    if end < len(found):
        keep = "&".join(f"{k}={quote(v)}" for k, vs in query.items() if k != "cursor" for v in vs)
        headers["Link"] = f'<{hub.endpoint}/api/models?{keep}&cursor={end}>; rel="next"'
    return Answer.of_json(found[start:end], headers=headers)


def _whoami(hub: HubServer, request: Request) -> Answer:
    if request.token is None:
        return Answer.error(401, None, "Invalid username or password.")
    owner = hub.tokens[request.token]
    return Answer.of_json(
        {
            "type": "user",
            "name": owner,
            "fullname": owner,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": "read"}},
        }
    )


def _manifest(hub: HubServer, request: Request, name: str, tag: str) -> Answer:
    """What llama.cpp asks for `-hf org/name:tag`: which file the tag means, and the mmproj."""
    found = _find(hub, request, name)
    if isinstance(found, Answer):
        return found
    if refused := _refused(found, request):
        return refused
    commit = found.at("main")
    files = {p: b for p, b in sorted(commit.files.items()) if p.endswith(".gguf") and "mmproj" not in p}
    wanted = "q4_k_m" if tag == "latest" else tag.lower()
    chosen = [p for p in files if any(m.group().lower() == wanted for m in QUANT.finditer(p))]
    if tag == "latest" and not chosen:
        chosen = list(files)[:1]
    if not chosen:
        return Answer.error(404, None, "The specified tag is not a valid quantization scheme")
    projector = next((p for p in sorted(commit.files) if fnmatch.fnmatch(p, "*mmproj*.gguf")), None)

    def entry(path: str | None) -> dict[str, Any] | None:
        if path is None:
            return None
        blob = commit.files[path]
        return {"rfilename": path, "size": blob.size, "blobId": blob.oid, "lfs": {"sha256": blob.sha256}}

    manifest: dict[str, Any] = {"schemaVersion": 2}
    if "llama-cpp" not in request.headers.get("user-agent", ""):
        return Answer.of_json(manifest)  # what other programs get says nothing of GGUF files
    manifest["ggufFile"] = entry(chosen[0])
    if projector:
        manifest["mmprojFile"] = entry(projector)
    return Answer.of_json(manifest)


def _resolve(hub: HubServer, request: Request, parts: list[str]) -> Answer:
    """/{org}/{name}/resolve/{rev}/{path}: the file, or for large files the way to the other host."""
    found = _find(hub, request, "/".join(parts[:2]))
    if isinstance(found, Answer):
        return found
    revision, path = unquote(parts[3]), unquote("/".join(parts[4:]))
    if refused := _refused(found, request):
        return refused
    commit = found.find(revision)
    if commit is None:
        return _no_revision(revision)
    headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
    blob = commit.files.get(path)
    if blob is None:
        reply = Answer.error(404, "EntryNotFound", "Entry not found")
        reply.headers.update(headers)
        return reply
    headers["ETag"] = f'"{blob.etag}"'
    headers["Content-Disposition"] = f'inline; filename="{quote(path.rpartition("/")[2])}"'
    if not blob.lfs:
        return _bytes(request, blob, headers)
    headers |= {"X-Linked-Size": str(blob.size), "X-Linked-Etag": f'"{blob.sha256}"'}
    if hub.xet:
        headers["X-Xet-Hash"] = blob.sha256
        headers["Link"] = (
            f'<{hub.endpoint}/api/models/{found.name}/xet-read-token/{commit.sha}>; rel="xet-auth"'
        )
    if not hub.redirect_lfs:
        return _bytes(request, blob, headers)
    headers["Location"] = f"{hub.cdn}/cdn/{blob.sha256}/{quote(path)}?X-Signature={hub.signature}"
    return Answer(302, headers, Body(b"Found"))


def _cdn(hub: HubServer, request: Request) -> Answer:
    """The other host: no tokens, a signed link to contents."""
    parts = request.path.strip("/").split("/")
    if len(parts) < 2 or parts[0] != "cdn" or request.query.get("X-Signature") != [hub.signature]:
        return Answer.error(403, None, "Forbidden")
    for repo in list(hub.repos.values()):
        for commit in repo.commits:
            for blob in commit.files.values():
                if blob.sha256 == parts[1]:
                    return _bytes(request, blob, {"ETag": f'"{blob.sha256}"', "Accept-Ranges": "bytes"})
    return Answer.error(404, None, "Not Found")


def _bytes(request: Request, blob: Blob, headers: dict[str, str]) -> Answer:
    """The contents: all (200), a part (206), or a part that is not there (416)."""
    headers["Content-Type"] = "application/octet-stream"
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.range or "")
    condition = request.headers.get("if-range")
    if wanted is None or wanted.groups() == ("", "") or condition not in (None, headers["ETag"]):
        return Answer(200, headers, Body(blob.data))
    first, last = wanted.groups()
    start = int(first) if first else max(blob.size - int(last), 0)
    end = min(int(last), blob.size - 1) if first and last else blob.size - 1
    if start > end:
        headers["Content-Range"] = f"bytes */{blob.size}"
        return Answer(416, headers)
    headers["Content-Range"] = f"bytes {start}-{end}/{blob.size}"
    return Answer(206, headers, Body(blob.data, start, end - start + 1))
