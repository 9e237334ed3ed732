"""From what a person writes to a source, and from a source to its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from ostler.core.errors import Conflict, InvalidField, NotAllowed, NotFound
from ostler.core.principals import Principal, Role
from ostler.hub.specs import HubSpec, parse_spec
from ostler.library.filesets import FileSet
from ostler.library.paths import safe_join
from ostler.library.service import Library
from ostler.models.records import Model, Source


class ModelFileGone(NotFound):
    """The files of a model are not where its source says."""


class ModelFilesMissing(ModelFileGone):
    """Some of a model's files are here and others are not: a shard, for example."""


class NoModelFile(Conflict):
    """The recipe names no model file at all."""


class ModelFileBroken(Conflict):
    """The files of a model are there and cannot be loaded."""


def source_of(spec: HubSpec) -> Source:
    """The source that a spec names: its selector is a file or a quantization."""
    is_file = spec.selector is not None and spec.selector.lower().endswith((".gguf", ".safetensors"))
    return Source(
        kind="hub",
        repo=spec.repo,
        file=spec.selector if is_file else None,
        tag=None if is_file else spec.selector,
        revision=spec.revision,
    )


class SourceReader:
    """Turns sources into files by way of the library.

    `models_dir` is the folder that relative paths are taken from.
    """

    def __init__(self, library: Library, models_dir: Path) -> None:
        self._library = library
        self._models_dir = models_dir

    async def read(self, given: Source | Mapping[str, Any], principal: Principal) -> Source:
        """Check a source. Relative paths are inside the models folder and may not leave it.

        An absolute path outside every root needs the role admin. Raises InvalidField, NotAllowed,
        UnsafePath, BadSpec.
        """
        if isinstance(given, Source):
            if given.kind == "none":
                return given
            given = given.to_json()
        if not isinstance(given, Mapping):
            raise InvalidField(
                "source", "source must be an object", hint='{"path": "..."} or {"hub": "org/repo:tag"}'
            )
        fields = {key: value for key, value in given.items() if key != "kind" and value is not None}
        for key, value in fields.items():
            if not isinstance(value, str) or not value.strip() or "\0" in value:
                raise InvalidField(f"source.{key}", f"source.{key} must be a text that is not empty")
        if set(fields) == {"path"}:
            return await self._read_path(fields["path"], principal)
        if set(fields) == {"hub"}:
            return source_of(parse_spec(fields["hub"]))
        if "repo" in fields and set(fields) <= {"repo", "file", "tag", "revision"}:
            parse_spec(fields["repo"])
            return Source(kind="hub", **fields)
        raise InvalidField(
            "source",
            "source needs either a path or a hub spec",
            hint='{"path": "..."} or {"hub": "org/repo:tag"}',
        )

    async def _read_path(self, text: str, principal: Principal) -> Source:
        path = _expanded(text)
        if not path.is_absolute():
            return Source(kind="file", path=str(safe_join(self._models_dir, text)))
        if ".." in path.parts:
            raise InvalidField("source.path", f"{text!r} has '..' in it", hint="Give the path without '..'.")
        if not any(path.is_relative_to(root) for root in await self.roots()) and principal.role < Role.ADMIN:
            raise NotAllowed(
                f"{path} is outside every library folder",
                hint="Use a path inside the models folder, or ask an administrator to add the folder.",
            )
        return Source(kind="file", path=str(path))

    async def roots(self) -> list[Path]:
        """The folders of the library."""
        return [root.path for root in await self._library.roots()]

    async def files(self, source: Source) -> FileSet | None:
        """The file set that a source means, None where there is none. Raises BrokenFile and the like."""
        if source.kind == "file" and source.path is not None:
            path = Path(source.path)
            found = await self._library.find(path=path)
            return found or await self._library.inspect(path)
        if source.kind == "none":
            return None
        return await self._library.find(
            repo=source.repo, file=source.file, tag=source.tag, revision=source.revision
        )

    async def files_of(self, model: Model) -> FileSet:
        """The file set of a model, complete. Raises NoModelFile, ModelFileGone with what to do next."""
        if model.source.kind == "none":
            raise NoModelFile(
                f"{model.name} names no model file; one engine that loads models by itself is not run here",
                hint="Make one model of each file instead: Ostler starts and stops them as needed.",
                model=model.name,
            )
        facts = {"model": model.name, "source": model.source.label}
        try:
            found = await self.files(model.source)
        except NotFound as error:
            raise ModelFileGone(
                f"the files of {model.name} are gone: {error.message}", hint=_get_back(model), **facts
            ) from error
        if found is None:
            raise ModelFileGone(
                f"the files of {model.name} ({model.source.label}) are not here",
                hint=_get_back(model),
                **facts,
            )
        if found.error is not None:
            raise ModelFileBroken(
                f"the files of {model.name} cannot be loaded: {found.error}", hint=_get_back(model), **facts
            )
        if not found.complete:
            missing = ", ".join(found.missing) or "some files"
            raise ModelFilesMissing(
                f"{model.name} is incomplete: {missing} missing",
                hint=_get_back(model),
                missing=list(found.missing),
                **facts,
            )
        return found


def _expanded(text: str) -> Path:
    return Path(text).expanduser()


def _get_back(model: Model) -> str:
    if model.source.kind == "hub":
        return f"Fetch them with: ostler pull {model.source.label}"
    elsewhere = f"point the model elsewhere: ostler show {quote(model.name)}"
    return f"Put the file back at {model.source.path}, or {elsewhere}"
