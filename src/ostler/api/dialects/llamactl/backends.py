"""Utilities around the engines: what their programs say, and pasted command lines as options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Literal

from fastapi import Response
from pydantic import StrictStr

from ostler.api.dialects.base import Refused
from ostler.api.dialects.llamactl import backend_options
from ostler.api.dialects.llamactl.backend_options import ENGINES, EXTRA
from ostler.api.dialects.llamactl.door import LlamactlBody, LlamactlRouter, management
from ostler.api.dialects.llamactl.errors import says
from ostler.api.dialects.llamactl.mlx import read_mlx
from ostler.api.services import Rooms, Services
from ostler.core.errors import EngineError
from ostler.engines.asking import run_program
from ostler.engines.base import LaunchRequest
from ostler.engines.options import OptionTable, name_of
from ostler.engines.rows import ParsedCommand

routes = LlamactlRouter("backends")

ROOT = "/api/v1/backends"
_FLAGS = {"help": "--help", "version": "--version", "devices": "--list-devices"}


class CommandFailed(EngineError):
    """The program does not say it."""

    hint = "See which program is used, and what is wrong with it: ostler doctor"


class CommandIn(LlamactlBody):
    """A pasted command line."""

    command: StrictStr = ""


@routes.at("GET", f"{ROOT}/llama-cpp/{{topic}}", dependencies=[says("command failed")], **management())
async def ask_llama_server(rooms: Rooms, topic: Literal["help", "version", "devices"]) -> Response:
    """What the llama-server that would be used says of its options, its version or the devices it sees."""
    request = LaunchRequest(0, topic, FilePath("model"))
    found = await rooms.engines.get("llamacpp").executable(request)
    text = await run_program(*found.command, _FLAGS[topic])
    if text is None:
        raise CommandFailed(f"Failed to get {topic}: {' '.join(found.command)} {_FLAGS[topic]} failed")
    return Response(text, media_type="text/plain")


@routes.at("POST", f"{ROOT}/llama-cpp/parse-command", dependencies=[says("parse_error")], **management())
async def parse_llama_server(rooms: Rooms, body: CommandIn) -> dict[str, Any]:
    """A `llama-server` command line as options of an instance."""
    return _parsed(rooms, "llama_cpp", body.command)


@routes.at("POST", f"{ROOT}/vllm/parse-command", dependencies=[says("parse_error")], **management())
async def parse_vllm(rooms: Rooms, body: CommandIn) -> dict[str, Any]:
    """A `vllm serve` command line as options of an instance."""
    return _parsed(rooms, "vllm", body.command)


@routes.at("POST", f"{ROOT}/mlx/parse-command", dependencies=[says("parse_error")], **management())
async def parse_mlx(body: CommandIn) -> dict[str, Any]:
    """An `mlx_lm.server` command line as options. Instances of it cannot be made here."""
    return {"backend_type": backend_options.MLX, "backend_options": read_mlx(_command(body.command))}


def _command(text: str) -> str:
    if not text.strip():
        raise Refused("invalid_command", "Command cannot be empty")
    return text


def _parsed(rooms: Services, backend: str, text: str) -> dict[str, Any]:
    table = rooms.engines.get(ENGINES[backend]).options
    parsed = table.parse_command(_command(text))
    found = backend_options.written(table, parsed.options, parsed.extra_args)
    extra = found.pop(EXTRA, None)
    found = {**found, **_owned(table, parsed)}
    options = {**dict(sorted(found.items())), **({EXTRA: extra} if extra else {})}
    environment = {"environment": dict(parsed.env)} if parsed.env else {}
    return {"backend_type": backend, "backend_options": options, **environment}


def _owned(table: OptionTable, parsed: ParsedCommand) -> Mapping[str, Any]:
    """What a command line says of things that Ostler decides: shown, as llamactl shows it; never a secret."""
    found: dict[str, Any] = {}
    for words in parsed.ignored:
        flag, _, value = words.partition(" ")
        if flag.startswith("-") and (value or not _is_valued(table, flag)):
            found[name_of(flag)] = _typed(value) if value else True
    if parsed.model:
        found["model"] = parsed.model
    if parsed.hub:
        repo, _, selector = parsed.hub.partition(":")
        is_file = selector.lower().endswith(".gguf")
        if table.models_may_be_repos:
            found["model"] = parsed.hub
        elif is_file:
            found |= {"hf_repo": repo, "hf_file": selector}
        else:
            found["hf_repo"] = parsed.hub
    return {**found, **({"alias": parsed.alias} if parsed.alias else {})}


def _is_valued(table: OptionTable, flag: str) -> bool:
    owned = table.owned_flag(flag)
    return owned is not None and owned.values > 0


def _typed(text: str) -> Any:
    """A number where the text is one."""
    return int(text) if text.lstrip("-").isdecimal() else text
