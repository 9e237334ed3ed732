"""Cortex's paths under /v1 on a whole server, where the gateway stands in front."""

from __future__ import annotations

from pathlib import Path

import bcrypt
import httpx2

from ostler.core.principals import SYSTEM, Role
from tests.api.dialects.cortex.shapes import envelope
from tests.server import running_ostler


async def test_cortexs_paths_are_its_own_and_all_others_are_the_gateways(tmp_path: Path) -> None:
    async with running_ostler(tmp_path / "data") as server, httpx2.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/v1/models/status")).json() == {"data": []}
        assert (await client.get("/v1/models/running")).json() == []
        envelope(await client.get("/v1/models/none/constraints"), 404, "not_found")
        chat = (await client.post("/v1/chat/sessions", json={"model_name": "m"})).json()
        assert (await client.get(f"/v1/chat/sessions/{chat['id']}")).json() == chat
        assert (await client.get("/v1/models")).json() == {"object": "list", "data": []}
        for path in ("/v1/models/other", "/v1/models/status/x", "/v1/chat/sessionsx"):
            assert "type" in (await client.get(path)).json()["error"], path
        answer = await client.post("/v1/chat/completions", json={"model": "none", "messages": []})
        assert answer.status_code == 404 and answer.json()["error"]["type"]
        evil = {"Origin": "https://evil.example"}
        envelope(await client.get("/v1/chat/sessions", headers=evil), 403, "forbidden")


async def test_a_foreign_key_opens_the_gateway_at_its_first_use(tmp_path: Path) -> None:
    token = "AbCdEf12" + "x" * 32
    hashed = bcrypt.hashpw(token.encode(), bcrypt.gensalt(4)).decode()
    async with (
        running_ostler(tmp_path / "data", host="0.0.0.0") as server,
        httpx2.AsyncClient(base_url=server.url) as client,
    ):
        keys = server.ostler.services.keys
        await keys.take_over("cortex AbCdEf12", token[:8], hashed, SYSTEM, scopes=["chat"])
        assert (await client.get("/v1/models")).status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        assert not keys.has_foreign and keys.principal_of(token) is not None
        refused = await client.post("/v1/embeddings", json={"model": "m", "input": "x"}, headers=headers)
        assert refused.status_code == 403
        assert (await keys.get("cortex AbCdEf12")).role is Role.USER
