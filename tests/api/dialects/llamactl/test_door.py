"""The door of llamactl's routes: who comes in, how bodies are read, how failures look."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Request

from ostler.access.headers import key_in_header
from ostler.api.dialects.base import Refused
from ostler.api.dialects.llamactl.door import (
    LlamactlBody,
    LlamactlRouter,
    inference,
    management,
    public,
)
from ostler.api.dialects.llamactl.nodes import LocalNode
from ostler.core.errors import OstlerError
from ostler.core.principals import Role
from tests.api.conftest import Api
from tests.api.dialects.llamactl.shapes import failure, not_let_in


class _StartFailed(OstlerError):
    code = "start_failed"


ASKED = "//api/v1/asked"


class Body(LlamactlBody):
    repo: str


def routes() -> LlamactlRouter:
    """One route of each sort."""
    router = LlamactlRouter("test")

    @router.group_root("GET", "/api/v1/asked", **management())
    async def show_asked(request: Request, node: LocalNode) -> dict[str, Any]:
        return {"query": request.url.query, "node": node}

    @router.at("POST", "/api/v1/asked", **management())
    async def take_asked(body: Body) -> dict[str, str]:
        return {"repo": body.repo}

    @router.at("GET", "/llama-cpp/asked/props", **inference())
    async def show_props() -> dict[str, str]:
        return {"for": "inference"}

    @router.at("GET", "/llama-cpp/asked", **public())
    async def show_page() -> dict[str, str]:
        return {"for": "all"}

    @router.at("DELETE", "/api/v1/asked/{how}", **management())
    async def fail(how: str) -> None:
        raise Refused("invalid_name", "a reason") if how == "refused" else _StartFailed("a reason")

    return router


@pytest.fixture
async def asked(api: Api) -> Api:
    """`api` with these routes beside its own."""
    app = api.client._transport.app  # type: ignore[attr-defined]
    app.include_router(routes())
    return api


@pytest.fixture
async def kept(guarded: Api) -> Api:
    """`guarded` with these routes beside its own."""
    app = guarded.client._transport.app  # type: ignore[attr-defined]
    app.include_router(routes())
    return guarded


async def test_a_key_comes_in_three_ways_and_never_shows(kept: Api, caplog: pytest.LogCaptureFixture) -> None:
    key = (await kept.as_role(Role.MANAGER))["Authorization"].removeprefix("Bearer ")
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
        assert (await kept("GET", ASKED, headers=headers)).status_code == 200
    answer = await kept("GET", f"{ASKED}?a=1&api_key={key}&b=")
    assert answer.json() == {"query": "a=1&b=", "node": "main"}
    assert answer.text.endswith("}\n") and '": "' not in answer.text
    assert key not in caplog.text
    basic = await kept("GET", f"{ASKED}?api_key={key}", headers={"Authorization": "Basic eDp5"})
    assert basic.status_code == 200


async def test_who_does_not_come_in_is_told_so_in_the_other_shape(kept: Api) -> None:
    not_let_in(await kept.get(ASKED), "Missing API key")
    not_let_in(await kept("GET", ASKED, headers={"Authorization": "Basic eDp5"}), "Missing API key")
    not_let_in(await kept("GET", f"{ASKED}?api_key=wrong"), "Invalid API key")
    for role in (Role.USER, Role.POWER_USER):
        headers = await kept.as_role(role)
        not_let_in(await kept("GET", ASKED, headers=headers), "Invalid API key")
        assert (await kept("GET", "//llama-cpp/asked/props", headers=headers)).status_code == 200
    not_let_in(await kept.get("//llama-cpp/asked/props"), "Missing API key")
    assert (await kept.get("//llama-cpp/asked")).json() == {"for": "all"}


async def test_only_group_roots_answer_with_a_slash_at_their_end(asked: Api) -> None:
    assert (await asked.get(f"{ASKED}/")).status_code == 200
    failure(await asked.get("//llama-cpp/asked/props/"), 404, "not_found")


async def test_what_is_not_there_is_told_in_llamactls_words(asked: Api) -> None:
    failure(await asked.get("//api/v1/nothing"), 404, "not_found")
    failure(await asked.get("//llama-cpp/x/y/z"), 404, "not_found")
    failure(await asked("PUT", ASKED), 405, "method_not_allowed")
    failure(await asked("DELETE", f"{ASKED}/refused"), 400, "invalid_name")
    failure(await asked("DELETE", f"{ASKED}/failed"), 500, "start_failed")


async def test_the_first_json_value_of_a_body_counts_whatever_it_is_said_to_be(asked: Api) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
        answer = await asked(
            "POST", ASKED, content=b' {"repo": "a/b", "more": 1} {', headers={"Content-Type": kind}
        )
        assert answer.json() == {"repo": "a/b"}
    for body in (b"", b"{", b'{"repo": 1}', b"[]", b"null", b'{"repo": NaN}'):
        failure(await asked("POST", ASKED, content=body), 400, "invalid_request")


async def test_only_this_node_is_known(asked: Api) -> None:
    for node in ("", "main", asked.services.node):
        assert (await asked.get(ASKED, node=node)).status_code == 200
    failure(await asked.get(ASKED, node="other"), 404, "node_not_found")


async def test_a_page_of_this_machine_asks_first_without_a_key(asked: Api) -> None:
    first = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    answer = await asked("OPTIONS", ASKED, headers=first)
    assert answer.status_code == 204 and "POST" in answer.headers["access-control-allow-methods"]
    assert "x-api-key" in answer.headers["access-control-allow-headers"]
    assert (await asked.get(ASKED)).headers["vary"] == "Origin"


def test_a_query_goes_on_without_its_key() -> None:
    assert key_in_header([], b"a=1&api_key=a%20b&b=%20") == ([(b"x-api-key", b"a b")], b"a=1&b=%20")
    other = [(b"api-key", b"x")]
    assert key_in_header(other, b"%61pi_key=secret&api_key=s&a=%2B") == (other, b"a=%2B")
    assert key_in_header([], b"a=1") == ([], b"a=1")
