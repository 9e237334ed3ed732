"""What holds for every route: roles, shapes of errors, bodies, foreign pages."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from ostler.api import docs, health
from ostler.api.app import _NOUNS, build_api
from ostler.api.dialects.bodhi.mounted import owns as is_bodhis
from ostler.api.dialects.cortex.mounted import owns as is_cortexs
from ostler.api.dialects.llamactl.mounted import owns as is_llamactls
from ostler.api.dialects.ollama.mounted import owns as is_ollamas
from ostler.api.dialects.spoken import DIALECTS
from ostler.api.door import Door, router
from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi, problem
from tests.api.dialects.bodhi.shapes import bodhi_error
from tests.api.dialects.cortex.shapes import envelope
from tests.api.dialects.llamactl.shapes import not_let_in
from tests.api.dialects.ollama.shapes import failure

PARTS = {
    "name": "nothing",
    "file_set_id": "nothing",
    "root_id": "1",
    "job_id": "nothing",
    "key": "nothing",
    "user": "nothing",
    "organisation": "nothing",
    "org": "org",
    "repo": "repo",
    "served_name": "nothing",
    "recipe_id": "1",
    "key_id": "1",
    "user_id": "1",
    "org_id": "1",
    "model_id": "1",
    "session_id": "nothing",
    "model_name": "nothing",
    "topic": "version",
    "node": "nothing",
    "model": "nothing",
    "alias": "nothing",
    "id": "1",
    "digest": "sha256:" + "0" * 64,
}


def operations(api: Api) -> list[tuple[str, str, str]]:
    """Method, path with parts filled in, and the role, of every documented route."""
    document = build_api(api.services).openapi()
    return [
        (method.upper(), path.format(**PARTS), operation["x-role"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def is_ours(path: str) -> bool:
    """What no dialect owns."""
    return not any(dialect.owns(path) for dialect in DIALECTS)


def bodhi_too_low(path: str, answer: Any, facts: dict[str, str]) -> None:
    if path.startswith(("/bodhi/v1/tokens", "/bodhi/v1/settings")):  # for people; no key opens them
        bodhi_error(answer, 401, "api_auth_error-missing_auth")
    else:
        assert bodhi_error(answer, 403, "forbidden")["params"] == facts


def cortex_too_low(_path: str, answer: Any, facts: dict[str, str]) -> None:
    assert envelope(answer, 403)["facts"] == facts


def llamactl_too_low(_path: str, answer: Any, _facts: dict[str, str]) -> None:
    not_let_in(answer, "Invalid API key")


def ollama_too_low(_path: str, answer: Any, facts: dict[str, str]) -> None:
    failure(answer, 403, f"has the role {facts['has']}", f"the role {facts['needs']}")


def our_too_low(_path: str, answer: Any, facts: dict[str, str]) -> None:
    assert problem(answer, 403)["facts"] == facts


SPOKEN: tuple[tuple[Callable[[str], bool], Callable[[Any], Any], Callable[..., None]], ...] = (
    (is_bodhis, lambda answer: bodhi_error(answer, 401, "unauthorized"), bodhi_too_low),
    (is_cortexs, lambda answer: envelope(answer, 401), cortex_too_low),
    (is_llamactls, not_let_in, llamactl_too_low),
    (is_ollamas, lambda answer: failure(answer, 401), ollama_too_low),
    (is_ours, lambda answer: problem(answer, 401), our_too_low),
)
"""Each dialect's paths, its answer to one without a key, and its answer to one whose role is too low."""


def test_every_dialect_stands_in_the_table() -> None:
    assert len(SPOKEN) == len(DIALECTS) + 1


async def test_every_route_refuses_one_without_a_key_on_an_open_address(guarded: Api) -> None:
    seen = 0
    for method, path, role in operations(guarded):
        if role != "none":
            answer = await guarded(method, f"/{path}", content=b"not read at all")
            (without_key,) = [without_key for owns, without_key, _ in SPOKEN if owns(path)]
            without_key(answer)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            seen += 1
    assert seen > 40


async def test_every_route_refuses_a_role_below_its_own_before_it_reads_the_body(guarded: Api) -> None:
    headers = {role.label: await guarded.as_role(role) for role in Role}
    seen = 0
    for method, path, role in operations(guarded):
        if role in ("none", "user"):
            continue
        below = Role(Role.parse(role) - 1)
        answer = await guarded(method, f"/{path}", content=b"not read at all", headers=headers[below.label])
        (too_low,) = [too_low for owns, _, too_low in SPOKEN if owns(path)]
        too_low(path, answer, {"needs": role, "has": below.label})
        seen += 1
    assert seen > 20


def test_a_route_that_names_no_role_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="role"):
        router("x").get("/forgotten")(lambda: None)


def test_every_route_is_a_door() -> None:
    routers = [part.routes for part in (*_NOUNS, docs, health)]
    routers += [router for dialect in DIALECTS for router in dialect.routers]
    routes = [route for router in routers for route in router.routes]
    assert len(routes) > 50 and all(isinstance(route, Door) for route in routes)


async def test_unknown_routes_and_methods_are_problem_documents(api: Api) -> None:
    problem(await api.get("/nothing"), 404, "no_such_route")
    problem(await api("GET", "//nowhere"), 404, "no_such_route")
    problem(await api.get("/models/"), 404)
    answer = await api("PUT", "/models")
    problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b'{"name": NaN}', b'{"name": Infinity}', b"\xff\xfe", b"[" * 100_000,
     b'{"name": "\\ud800"}', b'{"name": "a\\u0000b"}'],
)  # fmt: skip
async def test_a_body_that_is_not_json_is_400_or_422(api: Api, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", "/models"), ("POST", "/keys"), ("PATCH", "/settings")):
        answer = await api(method, path, content=body, headers=headers)
        problem(answer, 422 if body == b"" else 400)


async def test_a_body_that_is_not_said_to_be_json_is_400(api: Api) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = await api("POST", "/keys", content=b'{"name": "a"}', headers={"Content-Type": kind})
        assert "Content-Type" in problem(answer, 400, "not_json")["hint"]
    assert (await api.get("/keys")).json()["total"] == 0


async def test_a_compressed_body_is_called_that(api: Api) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    told = problem(await api("POST", "/keys", content=gzip.compress(b"{}"), headers=headers), 400, "not_json")
    assert "gzip" in told["detail"] and "uncompressed" in told["hint"]


async def test_a_body_of_100_mb_is_413_and_not_read(api: Api) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 1_000_000

    headers = {"Content-Type": "application/json"}
    answer = await api("POST", "/keys", content=endless(), headers=headers)
    assert problem(answer, 413, "body_too_large")["facts"] == {"limit_bytes": 64 * 1024 * 1024}
    assert sent < 70
    claimed = {**headers, "Content-Length": "100000000"}
    problem(await api("POST", "/keys", content=b"{}", headers=claimed), 413, "body_too_large")


async def test_the_body_limit_is_a_setting(make_api: MakeApi) -> None:
    api = await make_api(request_body_limit_bytes=1_024)
    problem(await api("POST", "/keys", {"name": "x" * 2_000}), 413)
    problem(await api("POST", "/keys", {"name": "x" * 500}), 422)


async def test_foreign_pages_are_refused_on_loopback_on_every_path(api: Api) -> None:
    for path in ("/models", "//health", "//docs", "//openapi.json", "//", "//nowhere"):
        problem(await api("GET", path, headers={"Host": "evil.example"}), 403, "foreign_host")
        problem(await api("GET", path, headers={"Origin": "https://evil.example"}), 403, "foreign_origin")
        problem(await api("GET", path, headers={"Origin": "null"}), 403, "foreign_origin")
    body = {"name": "stolen", "role": "admin"}
    problem(await api("POST", "/keys", body, headers={"Origin": "https://evil.example"}), 403)
    assert (await api.get("/keys")).json()["total"] == 0


async def test_a_page_of_this_machine_may_read_answers_and_asks_first(api: Api) -> None:
    origin = "http://localhost:3000"
    answer = await api("GET", "/models", headers={"Origin": origin})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == origin
    asked = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
    first = await api("OPTIONS", "/models/x", headers=asked)
    assert first.status_code == 204 and "PATCH" in first.headers["access-control-allow-methods"]
    assert "authorization" in first.headers["access-control-allow-headers"]


async def test_on_an_open_address_only_allowed_origins_may_read(make_api: MakeApi) -> None:
    api = await make_api(host="0.0.0.0", allowed_origins=("https://ui.example",))
    key = await api.as_role(Role.USER)
    headers = {**key, "Host": "models.example"}
    good = await api("GET", "/models", headers={**headers, "Origin": "https://ui.example"})
    assert good.headers["access-control-allow-origin"] == "https://ui.example"
    other = await api("GET", "/models", headers={**headers, "Origin": "http://localhost:3000"})
    assert "access-control-allow-origin" not in other.headers


async def test_every_answer_carries_the_security_headers(api: Api) -> None:
    for path in ("/models", "/nothing", "//health", "//docs"):
        headers = (await api.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


async def test_what_nobody_expected_is_500_without_the_inside_and_logged_once(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise RuntimeError("the secret inside")

    api.services.devices.look = broken  # type: ignore[method-assign]
    answer = await api.get("/devices")
    assert "secret" not in json.dumps(problem(answer, 500, "internal"))
    logged = [record for record in caplog.records if record.exc_info]
    assert len(logged) == 1 and "/ostler/v1/devices" in logged[0].getMessage()


async def test_every_path_part_refuses_to_leave_its_place(api: Api) -> None:
    document = build_api(api.services).openapi()
    tried = 0
    for path, methods in document["paths"].items():
        if "{" not in path:
            continue
        for evil in ("..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "%2fetc%2fpasswd", "x" * 2_000):
            for method in methods:
                filled = path.format(**dict.fromkeys(PARTS, evil))
                answer = await api(method.upper(), f"/{filled}", {} if method in ("post", "patch") else None)
                assert 400 <= answer.status_code < 500, (method, filled, answer.text)
                tried += 1
    assert tried > 50
