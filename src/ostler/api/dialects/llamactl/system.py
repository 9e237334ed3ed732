"""This server: its version, its configuration without secrets, and the only node there is."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Response

from ostler.api.dialects.llamactl.door import LlamactlRouter, management
from ostler.api.dialects.llamactl.nodes import LOCAL
from ostler.api.services import Rooms
from ostler.core.errors import NotFound
from ostler.core.settings import Settings

routes = LlamactlRouter("system")

MIB = 1024**2
_NO_LIMIT = -1

NodeName = Annotated[str, Path(max_length=255)]


class UnknownNode(NotFound):
    """There is no node of that name."""


@routes.at("GET", "/api/v1/version", **management())
async def show_version(rooms: Rooms) -> Response:
    """Which version of Ostler answers."""
    text = f"Version: {rooms.version}\nCommit: unknown\nBuild Time: unknown\n"
    return Response(text, media_type="text/plain")


@routes.group_root("GET", "/api/v1/nodes", **management())
async def list_nodes() -> dict[str, Any]:
    """Every node: this one."""
    return {LOCAL: {"address": ""}}


@routes.group_root("GET", "/api/v1/nodes/{node}", **management())
async def show_node(rooms: Rooms, node: NodeName) -> dict[str, Any]:
    """One node."""
    if node not in (LOCAL, rooms.node):
        raise UnknownNode("Node not found", hint="See them with: GET /api/v1/nodes", node=node)
    return {"address": ""}


@routes.at("GET", "/api/v1/config", **management())
async def show_config(rooms: Rooms) -> dict[str, Any]:
    """The settings in llamactl's words; no secret is among them. What it calls unlimited is -1."""
    settings = rooms.settings.current
    return {
        "server": {
            "host": settings.host,
            "port": settings.port,
            "allowed_origins": list(settings.allowed_origins),
            "allowed_headers": ["*"],
            "enable_swagger": True,
        },
        "backends": _backends(settings),
        "instances": _instances(settings),
        "database": {
            "path": str(settings.data_dir / "ostler.db") if settings.database_url is None else "",
            "max_open_connections": 0,
            "max_idle_connections": 0,
            "connection_max_lifetime": 0,
        },
        "auth": {
            "require_inference_auth": not settings.is_loopback,
            "require_management_auth": not settings.is_loopback,
            "management_keys": [],
        },
        "local_node": LOCAL,
        "nodes": {LOCAL: {"address": ""}},
        "data_dir": str(settings.data_dir),
        "version": rooms.version,
        "commit_hash": "unknown",
        "build_time": "unknown",
    }


def _backends(settings: Settings) -> dict[str, Any]:
    programs = {
        "llama-cpp": (settings.llama_server_command or "llama-server", settings.llamacpp_image),
        "vllm": (settings.vllm_command or "vllm", settings.vllm_image),
    }
    return {
        name: {
            "command": command,
            "args": [],
            "environment": {},
            "docker": {"enabled": False, "image": image, "args": [], "environment": {}},
        }
        for name, (command, image) in programs.items()
    }


def _instances(settings: Settings) -> dict[str, Any]:
    return {
        "max_instances": settings.max_models or _NO_LIMIT,
        "max_running_instances": settings.max_running or _NO_LIMIT,
        "group_limits": settings.limit_by_group,
        "enable_lru_eviction": True,
        "default_idle_timeout": round(settings.idle_timeout_s / 60),
        "default_auto_restart": settings.restart_limit > 0,
        "default_max_restarts": settings.restart_limit,
        "default_restart_delay": round(settings.restart_backoff_s),
        "default_on_demand_start": True,
        "on_demand_start_timeout": round(settings.start_timeout_s),
        "timeout_check_interval": 0,
        "logs_dir": str(settings.data_dir / "engines"),
        "LogRotationEnabled": True,
        "LogRotationMaxSize": max(1, settings.engine_log_bytes // MIB),
        "LogRotationCompress": False,
    }
