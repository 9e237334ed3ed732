"""What a person means by MODEL: a name, a path, or a repo of the hub. And making a model of it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostler.cli.client import Client, Json, model_path
from ostler.cli.failures import NOT_FOUND, USAGE, CommandFailed

_HUB_PREFIXES = ("hf.co/", "huggingface.co/", "https://huggingface.co/", "https://hf.co/")
_REPO = re.compile(r"[\w.-]+/[\w.-]+(:[^:@]+)?(@[\w./-]+)?")


def file_source(text: str) -> dict[str, str] | None:
    """`{"path": ...}` where the text is a path: one that exists, or one that can be nothing else."""
    path = Path(text).expanduser()
    looks_like_path = text.startswith(("/", "./", "../", "~")) or text.endswith((".gguf", ".safetensors"))
    if path.exists() or (looks_like_path and ":" not in text):
        return {"path": str(absolute_path(path))}
    return None


def absolute_path(path: Path) -> Path:
    """The path from the root, for a server that runs elsewhere: `~` and `..` are resolved, links stay."""
    path = path.expanduser().absolute()
    if path.name == "..":
        return path.resolve()
    return path.parent.resolve() / path.name if ".." in path.parts else path


_BEFORE_PATHS = ("-m", "--model", "-mm", "--mmproj", "serve")


def command_from_here(command: str) -> str:
    """A pasted command line with the paths of files that are here made absolute.

    The server, which reads the line, runs in another folder. A line that cannot be split is left as
    it is: the server says what is wrong with it.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    for at, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in _BEFORE_PATHS and equals:
            words[at] = f"{flag}={_path_from_here(value)}"
        elif at and words[at - 1] in _BEFORE_PATHS:
            words[at] = _path_from_here(word)
    return shlex.join(words)


def _path_from_here(text: str) -> str:
    path = Path(text).expanduser()
    return str(absolute_path(path)) if path.exists() else text


def hub_spec(text: str) -> str | None:
    """`org/repo[:selector][@revision]` where the text names a repo of the hub, without its prefix."""
    for prefix in _HUB_PREFIXES:
        text = text.removeprefix(prefix)
    return text if _REPO.fullmatch(text) else None


@dataclass(frozen=True, slots=True)
class Meant:
    """What a text means; exactly one of these: a stored model, a path from the root, a spec of the hub."""

    model: Json | None = None
    path: str | None = None
    hub: str | None = None


def what_is_meant(client: Client, text: str) -> Meant:
    """A stored model of that name, else what lies at that path, else a repo of the hub.

    Raises CommandFailed: not found with near names, or what the server says.
    """
    try:
        return Meant(model=client.get(model_path(text)))
    except CommandFailed as unknown:
        if unknown.exit_code not in (NOT_FOUND, USAGE):
            raise
        if source := file_source(text):
            return Meant(path=source["path"])
        if spec := hub_spec(text):
            return Meant(hub=spec)
        raise


def resolve_model(client: Client, text: str) -> Json:
    """The model that a person means, made if need be: a file is taken in, a repo is pulled first.

    Raises CommandFailed: not found with near names, or what the pull or the server says.
    """
    known, meant = known_model(client, text)
    if known is not None:
        return known
    if meant.path is not None:
        return new_model_from_path(client, Path(meant.path), None)
    from ostler.cli.pulling import pull_model

    return pull_model(client, str(meant.hub))


def known_model(client: Client, text: str) -> tuple[Json | None, Meant]:
    """The model that a person means, where there is one, and what the text means.

    Raises CommandFailed: not found, with near names, where the text is nothing that a model can be made of.
    """
    meant = what_is_meant(client, text)
    if meant.path is not None:
        return _model_of_path(client, existing(Path(meant.path))), meant
    if meant.hub is not None:
        return _model_of_repo(client, meant.hub), meant
    return meant.model, meant


def existing(path: Path) -> Path:
    """The path from the root. Raises CommandFailed where nothing is there."""
    path = absolute_path(path)
    if not path.exists():
        raise CommandFailed(
            f"{path} does not exist",
            hint="See the files that are known: ostler list --files",
            exit_code=NOT_FOUND,
        )
    return path


def new_model_from_path(client: Client, path: Path, name: str | None) -> Json:
    """Register a file or folder in place."""
    path = existing(path)
    body: dict[str, Any] = {"source": {"path": str(path)}}
    if name:
        body["name"] = name
    return client.post("/models", body)


def _model_of_path(client: Client, path: Path) -> Json | None:
    """A model that already has this source."""
    for model in client.every("/models", automatic=False)["items"]:
        if (model.get("source") or {}).get("path") in (str(path), str(path.resolve())):
            return dict(model)
    return None


def _model_of_repo(client: Client, spec: str) -> Json | None:
    """A model that was made from this repo before, with the same file or quantization if one is named."""
    bare, _, revision = spec.partition("@")
    repo, _, selector = bare.partition(":")
    for model in client.every("/models", automatic=False)["items"]:
        source = model.get("source") or {}
        if source.get("repo", "").lower() != repo.lower():
            continue
        selectors = {str(source.get(key, "")).lower() for key in ("tag", "file")}
        if (not selector or selector.lower() in selectors) and (
            not revision or source.get("revision") == revision
        ):
            return dict(model)
    return None
