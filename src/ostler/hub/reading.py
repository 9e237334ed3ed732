"""From the hub's JSON to our values. Nothing in it is believed before it has been looked at.

A repo's owner chooses file names, tags and licence; a mirror could send anything. What would lead
out of a folder, or count backwards, refuses the whole answer (UntrustedAnswer); text that is only
shown is cut short and cleaned of terminal codes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from ostler.hub.choosing import find_mmprojs, find_variants
from ostler.hub.errors import BadSpec, UntrustedAnswer
from ostler.hub.records import HubFile, RepoInfo, SearchHit
from ostler.hub.specs import check_relative, check_repo

MAX_FILES = 100_000
MAX_FILE_BYTES = 2**50
MAX_TAGS = 200

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")


def read_repo(answer: Any, asked: str, revision: str | None) -> RepoInfo:
    """The answer of `/api/models/{repo}[/revision/{revision}]?blobs=true`."""
    data = _mapping(answer, "the repo")
    repo = _repo_name(data)
    commit = data.get("sha")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise UntrustedAnswer(f"the hub gives no usable commit for {repo}", repo=repo)
    if revision is not None and _COMMIT.fullmatch(revision) and commit != revision:
        raise UntrustedAnswer(
            f"the hub answers with commit {commit[:12]} of {repo} when asked for {revision[:12]}", repo=repo
        )
    files = _read_files(data.get("siblings"), repo)
    tags = _tags(data)
    return RepoInfo(
        repo=repo,
        commit=commit,
        revision=revision or "main",
        gated=_gated(data),
        private=data.get("private") is True,
        downloads=_count(data.get("downloads")),
        likes=_count(data.get("likes")),
        tags=tags,
        pipeline_tag=_text(data.get("pipeline_tag")),
        license=_license(data, tags),
        last_modified=_time(data.get("lastModified")),
        files=files,
        variants=find_variants(files, tags),
        mmprojs=find_mmprojs(files),
        renamed_from=asked if asked.casefold() != repo.casefold() else None,
    )


def read_hits(answer: Any) -> list[SearchHit]:
    """The answer of `/api/models?search=...`. An entry without a usable name is left out."""
    if not isinstance(answer, list):
        raise UntrustedAnswer("the hub's answer to a search is not a list")
    hits = []
    for entry in answer:
        data = _mapping(entry, "a search result")
        try:
            repo = _repo_name(data)
        except UntrustedAnswer:
            continue  # the first models of the hub have names without an owner: they redirect to others
        tags = _tags(data)
        hits.append(
            SearchHit(
                repo=repo,
                downloads=_count(data.get("downloads")),
                likes=_count(data.get("likes")),
                tags=tags,
                pipeline_tag=_text(data.get("pipeline_tag")),
                license=_license(data, tags),
                last_modified=_time(data.get("lastModified")),
                gated=_gated(data),
                private=data.get("private") is True,
                gguf="gguf" in tags,
                parameters=_parameters(data),
            )
        )
    return hits


def _read_files(siblings: Any, repo: str) -> tuple[HubFile, ...]:
    if not isinstance(siblings, list):
        raise UntrustedAnswer(f"the hub lists no files for {repo}", repo=repo)
    if len(siblings) > MAX_FILES:
        raise UntrustedAnswer(f"{repo} has over {MAX_FILES:,} files", repo=repo)
    files: dict[str, HubFile] = {}
    for entry in siblings:
        file = _read_file(_mapping(entry, "a file"), repo)
        if file.path in files:
            raise UntrustedAnswer(f"the hub lists {file.path} of {repo} twice", repo=repo, path=file.path)
        files[file.path] = file
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in files:
                raise UntrustedAnswer(f"{folder} in {repo} is both a file and a folder", repo=repo, path=path)
    return tuple(sorted(files.values(), key=lambda file: file.path))


def _read_file(entry: dict[str, Any], repo: str) -> HubFile:
    path = entry.get("rfilename")
    try:
        if not isinstance(path, str):
            raise BadSpec("a file without a name")
        check_relative(path)
    except BadSpec as error:
        raise UntrustedAnswer(f"{repo} has a file with an unsafe name: {error.message}", repo=repo) from error
    size, blob_id, lfs = entry.get("size"), entry.get("blobId"), entry.get("lfs")
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        raise UntrustedAnswer(f"the hub gives no usable size for {path} of {repo}", repo=repo, path=path)
    if not isinstance(blob_id, str) or not _COMMIT.fullmatch(blob_id):
        raise UntrustedAnswer(f"the hub gives no usable hash for {path} of {repo}", repo=repo, path=path)
    if lfs is None:
        return HubFile(path, size, None, blob_id, lfs=False)
    sha256 = _mapping(lfs, "a large file").get("sha256")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise UntrustedAnswer(f"the hub gives no usable hash for {path} of {repo}", repo=repo, path=path)
    if lfs.get("size", size) != size:
        raise UntrustedAnswer(f"the hub gives two sizes for {path} of {repo}", repo=repo, path=path)
    return HubFile(path, size, sha256, blob_id, lfs=True)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UntrustedAnswer(f"the hub's answer about {what} is not an object")
    return value


def _repo_name(data: dict[str, Any]) -> str:
    name = data.get("id")
    try:
        if not isinstance(name, str):
            raise BadSpec("a repo without a name")
        return check_repo(name)
    except BadSpec as error:
        raise UntrustedAnswer(f"the hub gives a repo an unusable name: {error.message}") from error


def _gated(data: dict[str, Any]) -> str | None:
    value = data.get("gated")
    if not value:
        return None
    return value if value in ("auto", "manual") else "manual"


def _license(data: dict[str, Any], tags: tuple[str, ...]) -> str | None:
    card = data.get("cardData")
    value = card.get("license") if isinstance(card, dict) else None
    if isinstance(value, list):
        value = ", ".join(str(part) for part in value[:5])
    if text := _text(value):
        return text
    return next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), None)


def _parameters(data: dict[str, Any]) -> int | None:
    for name in ("gguf", "safetensors"):
        about = data.get(name)
        if isinstance(about, dict) and (total := _count(about.get("total"))):
            return total
    return None


def _tags(data: dict[str, Any]) -> tuple[str, ...]:
    tags = data.get("tags")
    if not isinstance(tags, list):
        return ()
    return tuple(text for tag in tags[:MAX_TAGS] if (text := _text(tag)))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**63 else 0


def _text(value: Any, limit: int = 120) -> str | None:
    if not isinstance(value, str):
        return None
    return _UNPRINTABLE.sub(" ", value[:limit]).strip() or None


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
