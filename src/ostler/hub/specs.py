"""What a person writes to name a model on the hub.

org/repo                          the repo; Ostler chooses the file (see choosing.py)
org/repo:Q4_K_M                   a quantization, in any case
org/repo:file.gguf                a file; also in a folder: org/repo:sub/file.gguf
org/repo:Q4_K_M@v1.0              a branch, tag or commit
hf.co/org/repo:Q4_K_M             as Ollama writes it; huggingface.co/..., hf://... too
https://huggingface.co/org/repo/blob/main/file.gguf      an address copied from the browser
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ostler.hub.errors import BadSpec

HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "hub-ci.huggingface.co"})
MODEL_SUFFIXES = (".gguf", ".safetensors")
MAX_SPEC_LENGTH = 1_024

_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,254}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OTHER_KINDS = frozenset({"datasets", "spaces", "buckets", "kernels", "collections", "docs", "api", "papers"})
_VIEWS = frozenset({"tree", "blob", "resolve", "raw"})


@dataclass(frozen=True, slots=True)
class HubSpec:
    """A parsed spec. `selector` is a quantization tag or the path of a file or folder in the repo."""

    repo: str
    selector: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        selector = f":{self.selector}" if self.selector else ""
        return f"{self.repo}{selector}{f'@{self.revision}' if self.revision else ''}"


def parse_spec(text: str, *, endpoint: str | None = None) -> HubSpec:
    """Read a spec. `endpoint` is the hub's address in the settings: links to it are read too.

    Raises BadSpec. What it returns is safe in a URL and in a path: no `..`, no control characters.
    """
    text = text.strip()
    if len(text) > MAX_SPEC_LENGTH:
        raise BadSpec(f"a model's name has at most {MAX_SPEC_LENGTH:,} characters, this has {len(text):,}")
    if _CONTROL.search(text):
        raise BadSpec("a model's name has no control characters")
    hosts = HUB_HOSTS | ({urlsplit(endpoint).netloc.lower()} if endpoint else set())
    lower = text.lower()
    if lower.startswith(("http://", "https://")):
        return _parse_url(text, hosts)
    if lower.startswith("hf://"):
        text = text[len("hf://") :].removeprefix("models/")
    host, slash, rest = text.partition("/")
    if slash and host.lower() in hosts:
        text = rest
        if any(f"/{view}/" in rest for view in _VIEWS):
            return _parse_url(f"https://{host}/{rest}", hosts)
    return _parse_short(text)


def looks_like_spec(text: str) -> bool:
    """True when the text names something on the hub rather than a stored model or a file on disk."""
    text = text.strip()
    if text.startswith((".", "/", "~", "\\")):
        return False
    try:
        spec = parse_spec(text)
    except BadSpec:
        return False
    # "folder/file.gguf" is a path: a repo's own name hardly ever ends like a file's.
    return bool(spec.selector) or not spec.repo.lower().endswith(MODEL_SUFFIXES)


def check_repo(repo: str) -> str:
    """The repo's name, unchanged, when it is of the form `org/name`. Raises BadSpec."""
    parts = repo.split("/")
    if len(parts) != 2:
        raise BadSpec(f"{_shown(repo)} is not of the form org/repo", spec=_shown(repo))
    if parts[0].lower() in _OTHER_KINDS:
        raise BadSpec(f"{_shown(repo)} does not name a model repo", spec=_shown(repo))
    for part in parts:
        if not _PART.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
            raise BadSpec(f"{_shown(part)} cannot be the name of an owner or a repo", spec=_shown(repo))
    return repo


def check_relative(path: str) -> str:
    """The path, unchanged, when it stays below the folder it is joined to. Raises BadSpec."""
    if not path or len(path) > MAX_SPEC_LENGTH or "\\" in path or _CONTROL.search(path):
        raise BadSpec(f"{_shown(path)} is not a path in a repo", spec=_shown(path))
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise BadSpec(f"{_shown(path)} leads out of the repo", spec=_shown(path))
    return path


def check_revision(revision: str) -> str:
    """The branch, tag or commit, unchanged, when git could have it. Raises BadSpec."""
    parts = revision.split("/")
    if not _REVISION.fullmatch(revision) or ".." in revision or "" in parts or revision.endswith(".lock"):
        raise BadSpec(f"{_shown(revision)} cannot be a revision", spec=_shown(revision))
    return revision


def _parse_short(text: str) -> HubSpec:
    """`org/repo`, then `:selector` and `@revision` in this order (the other one is understood too)."""
    if "?" in text or "#" in text:
        raise BadSpec(f"{_shown(text)} is not of the form org/repo", spec=_shown(text))
    head, revision = _split_revision(text)
    repo, colon, selector = head.partition(":")
    if not colon and revision and ":" in revision:
        revision, colon, selector = revision.partition(":")
    check_repo(repo)
    if colon:
        check_relative(selector)
    return HubSpec(repo, selector or None, check_revision(revision) if revision is not None else None)


def _split_revision(text: str) -> tuple[str, str | None]:
    head, at, revision = text.rpartition("@")
    # A file may have an @ in its name; a revision does not end like a model file.
    if not at or (":" in head and revision.lower().endswith(MODEL_SUFFIXES)):
        return text, None
    return head, revision


def _parse_url(text: str, hosts: frozenset[str] | set[str]) -> HubSpec:
    """An address of a repo, or of a file or folder in it, as a browser shows it."""
    try:
        url = urlsplit(text)
        netloc = url.netloc.lower()
    except ValueError as error:
        raise BadSpec(f"{_shown(text)} is not a valid address") from error
    if netloc not in hosts:
        # netloc and not hostname: "https://huggingface.co@evil.example/" must not pass, nor be shown.
        raise BadSpec(
            f"{_shown(url.hostname or '')} is not the hub",
            hint="Give an address on huggingface.co, or set HF_ENDPOINT to your mirror.",
        )
    parts = [unquote(part) for part in url.path.strip("/").split("/")]
    if parts[0].lower() in _OTHER_KINDS or len(parts) < 2:
        raise BadSpec(f"{_shown(url.path)} does not name a model repo")
    name, _, selector = parts[1].partition(":")
    repo = check_repo(f"{parts[0]}/{name}")
    if len(parts) == 2:
        return _parse_short(f"{repo}:{selector}" if selector else repo)
    if parts[2] not in _VIEWS or len(parts) < 4:
        raise BadSpec(f"{_shown(url.path)} is not the address of a repo or of a file in one")
    # A reference such as refs/pr/1 has slashes of its own; the site shows them both ways.
    length = 3 if parts[3] == "refs" and len(parts) >= 6 else 1
    revision = check_revision("/".join(parts[3 : 3 + length]))
    path = "/".join(parts[3 + length :])
    return HubSpec(repo, check_relative(path) if path else None, revision)


def _shown(text: str) -> str:
    """Text from outside as it may stand in a message: quoted, short, without control characters."""
    return repr(_CONTROL.sub("?", text[:120]) + ("..." if len(text) > 120 else ""))
