"""Predefined aliases: short names for models on the hub, which a pull by that name fetches and makes.

Some come with Ostler; an operator's own file adds more, and its entries win over ours. The file is a YAML
list as BodhiApp's `models.yaml` has it: `alias`, `repo`, `filename`, and where wanted `description`,
`snapshot`, `request_params` and `context_params`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ostler.core.errors import Invalid, InvalidField, NotFound
from ostler.core.near import near_names
from ostler.hub.specs import check_relative, check_repo, check_revision
from ostler.models.alias_params import (
    AT_NEXT_REQUEST,
    CONTEXT,
    CONTEXT_PARAMS,
    REQUEST,
    REQUEST_PARAMS,
    to_ours,
)
from ostler.models.names import check_name
from ostler.models.records import NewModel, Source

MAX_FILE_BYTES = 4 * 1024 * 1024


class PredefinedNotFound(NotFound):
    """No predefined alias has this name."""

    hint = "See them with: GET /ostler/v1/predefined"


class PredefinedFileUnusable(InvalidField):
    """The operator's own file cannot be read, or says something that no alias can have."""


@dataclass(frozen=True, slots=True)
class PredefinedAlias:
    """A name, the file on the hub that it stands for, and with which parameters that is served."""

    name: str
    repo: str
    file: str
    description: str = ""
    revision: str | None = None
    request_defaults: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """What a download is asked for."""
        return f"{self.repo}:{self.file}{f'@{self.revision}' if self.revision else ''}"

    def new_model(self, commit: str | None) -> NewModel:
        """The model of it, whose file is at `commit`."""
        return NewModel(
            Source("hub", repo=self.repo, file=self.file, revision=commit),
            name=self.name,
            engine="llamacpp",
            description=self.description,
            options=self.options,
            request_defaults=self.request_defaults,
            origin="bodhi",
            policy=AT_NEXT_REQUEST,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `PredefinedAlias(**values)` makes it again."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "request_defaults": dict(self.request_defaults),
            "options": dict(self.options),
        }


def _shipped(
    name: str, repo: str, file: str, description: str, stop: tuple[str, ...], slots: int, **options: Any
) -> PredefinedAlias:
    defaults = {"stop": list(stop)} if stop else {}
    return PredefinedAlias(
        name, repo, file, description, None, defaults, {"parallel_slots": slots, **options}
    )


_LLAMA_3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_LLAMA_2 = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
_MISTRAL = ("[INST]", "[/INST]")
_PHI_3 = ("<|end|>", "<|user|>", "<|assistant|>")

SHIPPED: tuple[PredefinedAlias, ...] = (
    _shipped("llama3:instruct", "QuantFactory/Meta-Llama-3-8B-Instruct-GGUF",
             "Meta-Llama-3-8B-Instruct.Q8_0.gguf", "Meta Llama 3 8B Instruct", _LLAMA_3, 4, keep=24),
    _shipped("llama3:70b-instruct", "QuantFactory/Meta-Llama-3-70B-Instruct-GGUF",
             "Meta-Llama-3-70B-Instruct.Q4_0.gguf", "Meta Llama 3 70B Instruct", _LLAMA_3, 1, keep=24),
    _shipped("llama2:chat", "TheBloke/Llama-2-7B-Chat-GGUF",
             "llama-2-7b-chat.Q8_0.gguf", "Llama 2 7B Chat", _LLAMA_2, 4),
    _shipped("llama2:13b-chat", "TheBloke/Llama-2-13B-chat-GGUF",
             "llama-2-13b-chat.Q8_0.gguf", "Llama 2 13B Chat", _LLAMA_2, 4),
    _shipped("llama2:70b-chat", "TheBloke/Llama-2-70B-Chat-GGUF",
             "llama-2-70b-chat.Q4_0.gguf", "Llama 2 70B Chat", _LLAMA_2, 1),
    _shipped("phi3:mini", "microsoft/Phi-3-mini-4k-instruct-gguf",
             "Phi-3-mini-4k-instruct-fp16.gguf", "Phi 3 Mini", _PHI_3, 4),
    _shipped("mistral:instruct", "MaziyarPanahi/Mistral-7B-Instruct-v0.3-GGUF",
             "Mistral-7B-Instruct-v0.3.Q8_0.gguf", "Mistral 7B Instruct", _MISTRAL, 4),
    _shipped("mixtral:instruct", "TheBloke/Mixtral-8x7B-Instruct-v0.1-GGUF",
             "mixtral-8x7b-instruct-v0.1.Q8_0.gguf", "Mixtral 8x7B Instruct", _MISTRAL, 1),
    _shipped("gemma:instruct", "google/gemma-7b-it-GGUF", "gemma-7b-it.gguf", "Gemma 7B Instruct", (), 4),
    _shipped("gemma:7b-instruct-v1.1-q8_0", "google/gemma-1.1-7b-it-GGUF",
             "7b_it_v1p1.gguf", "Gemma 1.1 7B Instruct", (), 4),
    PredefinedAlias(
        "tinyllama:instruct", "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
        "tinyllama-1.1b-chat-v1.0.Q4_0.gguf", "TinyLlama 1.1B Chat", None,
        {"temperature": 0.7, "top_p": 0.95, "max_tokens": 256, "frequency_penalty": 0.0,
         "presence_penalty": 0.0, "stop": ["<|system|>", "<|user|>", "<|assistant|>", "</s>"]},
        {"seed": 42, "context_length": 2048, "parallel_slots": 4, "max_tokens": 256, "keep": 4},
    ),
)  # fmt: skip
"""The aliases of BodhiApp's registry (its guide "Model Management" and its file of 2025-06)."""


class Predefined:
    """All predefined aliases: those that come with Ostler, and over them the operator's own.

    `own_file` says where the operator's file is; it need not exist.
    """

    def __init__(self, own_file: Callable[[], Path]) -> None:
        self._own_file = own_file

    async def list(self) -> list[PredefinedAlias]:
        """Every one, by name. Raises PredefinedFileUnusable."""
        return sorted((await self._all()).values(), key=lambda alias: alias.name)

    async def find(self, name: str) -> PredefinedAlias | None:
        """The one with this name. Raises PredefinedFileUnusable."""
        return (await self._all()).get(name)

    async def get(self, name: str) -> PredefinedAlias:
        """The one with this name. Raises PredefinedNotFound with near names, PredefinedFileUnusable."""
        known = await self._all()
        if name not in known:
            near = near_names(name, known)
            hint = f"Did you mean {' or '.join(near)}?" if near else None
            raise PredefinedNotFound(f"there is no predefined alias {name!r}", hint=hint, alias=name)
        return known[name]

    async def _all(self) -> dict[str, PredefinedAlias]:
        own = await asyncio.to_thread(read_file, self._own_file())
        return {alias.name: alias for alias in (*SHIPPED, *own)}


def read_file(path: Path) -> list[PredefinedAlias]:
    """The entries of an operator's file; none where there is no file. Blocking.

    Raises PredefinedFileUnusable naming the entry and what is wrong with it.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _unusable(path, f"is larger than {MAX_FILE_BYTES:,} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _unusable(path, f"is not valid YAML: {str(error)[:300]}") from error
    if content is None:
        return []
    if not isinstance(content, list):
        raise _unusable(path, "is not a list of aliases")
    found = []
    for number, entry in enumerate(content, 1):
        try:
            found.append(read_entry(entry))
        except Invalid as error:
            raise _unusable(path, f"entry {number}: {error.message}") from error
    return found


def read_entry(entry: Any) -> PredefinedAlias:
    """One entry of a file. Raises InvalidField, BadSpec."""
    if not isinstance(entry, Mapping):
        raise InvalidField("alias", "an alias must have alias, repo and filename")
    texts: dict[str, Any] = {name: entry.get(name) for name in ("alias", "repo", "filename")}
    for name, value in texts.items():
        if not isinstance(value, str) or not value:
            raise InvalidField(name, f"{name} is missing or no text")
    description, revision = entry.get("description") or "", entry.get("snapshot") or "main"
    if not isinstance(description, str) or not isinstance(revision, str):
        raise InvalidField("alias", "description and snapshot must be texts")
    return PredefinedAlias(
        check_name(texts["alias"]),
        check_repo(texts["repo"]),
        check_relative(texts["filename"]),
        description,
        None if revision == "main" else check_revision(revision),
        to_ours(REQUEST_PARAMS, entry.get(REQUEST), REQUEST),
        to_ours(CONTEXT_PARAMS, entry.get(CONTEXT), CONTEXT),
    )


def _unusable(path: Path, what: str) -> PredefinedFileUnusable:
    return PredefinedFileUnusable(
        "predefined_aliases_file",
        f"the file of predefined aliases {path} {what}",
        hint="It is a YAML list of entries with alias, repo and filename.",
    )
