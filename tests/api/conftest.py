"""The API over real rooms, called in the process; and a server with keys for every role."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostler.api.app import build_api
from ostler.api.services import Services
from ostler.app import build
from ostler.core.principals import LOCAL_ADMIN, SYSTEM, Role
from ostler.core.settings_sources import load_settings
from ostler.models.records import Model, NewModel
from tests.schema_file import place_database

API = "/ostler/v1"


@dataclass
class Api:
    """Calls the API as one principal would; paths are relative to /ostler/v1 unless they begin with //."""

    services: Services
    client: httpx2.AsyncClient
    data_dir: Path

    async def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        url = path[1:] if path.startswith("//") else API + path
        if body is not None:
            more["json"] = body
        return await self.client.request(method, url, **more)

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        return await self("GET", path, params=query or None)

    async def post(self, path: str, body: Any = None) -> httpx2.Response:
        return await self("POST", path, body)

    async def model(self, path: Path, name: str, **more: Any) -> Model:
        return await self.services.models.create(
            NewModel({"path": str(path)}, name=name, **more), LOCAL_ADMIN
        )

    async def as_role(self, role: Role, **more: Any) -> dict[str, str]:
        """Headers with a new key of that role."""
        number = (await self.services.keys.list()).total
        _, token = await self.services.keys.create(f"key {number}", role, SYSTEM, **more)
        return {"Authorization": f"Bearer {token}"}


MakeApi = Callable[..., Awaitable[Api]]


@pytest.fixture
async def make_api(tmp_path: Path) -> AsyncIterator[MakeApi]:
    """A started Ostler of its own data, with these settings and variables."""
    async with AsyncExitStack() as ending:

        async def make(environ: dict[str, str] | None = None, **settings: Any) -> Api:
            data_dir = tmp_path / "data"
            (data_dir / "models").mkdir(parents=True)
            flags = {
                "data_dir": data_dir,
                "hub_cache_dir": data_dir / "hub",
                "offline": True,
                "stop_engines_on_exit": True,
                "cortex_runtime": "docker",  # else it depends on the machine
                **settings,
            }
            place_database(data_dir)
            ostler = build(load_settings(flags=flags, environ=environ or {}))
            await ending.enter_async_context(ostler.running())
            transport = httpx2.ASGITransport(app=build_api(ostler.services))
            client = await ending.enter_async_context(
                httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:11500", timeout=60)
            )
            return Api(ostler.services, client, data_dir)

        yield make


@pytest.fixture
async def api(make_api: MakeApi) -> Api:
    """On loopback, where the caller is the local person."""
    return await make_api()


@pytest.fixture
async def guarded(make_api: MakeApi) -> Api:
    """On an address that others can reach: keys are needed."""
    return await make_api(host="0.0.0.0")


@pytest.fixture
def model_file(api: Api, demo_model: Path) -> Path:
    """The demo model in the models folder of `api`."""
    return Path(shutil.copy(demo_model, api.data_dir / "models" / "tiny-Q8_0.gguf"))


def problem(answer: httpx2.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, checked for its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"type", "title", "status", "detail", "code", "kind", "hint", "facts"}
    assert body["status"] == status and body["detail"]
    if code is not None:
        assert body["code"] == code, body
    return body
