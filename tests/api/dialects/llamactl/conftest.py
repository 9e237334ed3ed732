"""A whole server, gateway included, as llamactl's clients reach it; its engines are real."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostler.api.services import Services
from ostler.app import build
from ostler.core.principals import SYSTEM, Role
from ostler.core.settings_sources import load_settings

SMALL = {"ctx_size": 512, "parallel": 1, "gpu_layers": 0}
ROOT = "/api/v1/instances"


@dataclass
class Llamactl:
    """Asks the server; paths are whole. `model_file` is the demo model in its models folder."""

    services: Services
    client: httpx2.AsyncClient
    model_file: Path

    async def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        if body is not None:
            more["json"] = body
        return await self.client.request(method, path, **more)

    async def get(self, path: str, **more: Any) -> httpx2.Response:
        return await self("GET", path, **more)

    def options(self, **more: Any) -> dict[str, Any]:
        """Options of an instance of the demo model; `backend_options` are added to the small ones."""
        own = more.pop("backend_options", {})
        return {
            "backend_type": "llama_cpp",
            "backend_options": {"model": str(self.model_file), **SMALL, **own},
            **more,
        }

    async def make(self, name: str, **more: Any) -> dict[str, Any]:
        """Make an instance."""
        answer = await self("POST", f"{ROOT}/{name}", self.options(**more))
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def do(self, name: str, verb: str) -> dict[str, Any]:
        """Start, stop or restart one."""
        answer = await self("POST", f"{ROOT}/{name}/{verb}")
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def key(self, role: Role, **more: Any) -> dict[str, str]:
        """Headers with a new key of that role."""
        number = (await self.services.keys.list()).total
        _, token = await self.services.keys.create(f"key {number}", role, SYSTEM, **more)
        return {"Authorization": f"Bearer {token}"}


MakeLlamactl = Callable[..., Awaitable[Llamactl]]


@pytest.fixture
async def make_llamactl(tmp_path: Path, demo_model: Path) -> AsyncIterator[MakeLlamactl]:
    """A started server with these settings."""
    async with AsyncExitStack() as ending:

        async def make(**settings: Any) -> Llamactl:
            data_dir = tmp_path / "served"
            (data_dir / "models").mkdir(parents=True)
            file = Path(shutil.copy(demo_model, data_dir / "models" / "tiny-Q8_0.gguf"))
            flags = {
                "data_dir": data_dir,
                "hub_cache_dir": data_dir / "hub",
                "offline": True,
                "stop_engines_on_exit": True,
                "stop_grace_s": 2.0,
                **settings,
            }
            ostler = build(load_settings(flags=flags, environ={}))
            await ending.enter_async_context(ostler.running())
            transport = httpx2.ASGITransport(app=ostler.gateway)
            client = await ending.enter_async_context(
                httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:11500", timeout=60)
            )
            return Llamactl(ostler.services, client, file)

        yield make


@pytest.fixture
async def llamactl(make_llamactl: MakeLlamactl) -> Llamactl:
    """On loopback, where the caller is the local person."""
    return await make_llamactl()
