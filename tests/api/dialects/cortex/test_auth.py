"""Signing in as Cortex's clients do, and the first administrator."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

from ostler.core.principals import LOCAL_ADMIN, Role
from tests.api.conftest import Api, MakeApi
from tests.api.dialects.cortex.shapes import envelope

PASSWORD = "a long password"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


async def sign_in(api: Api, name: str = "ada", password: str = PASSWORD) -> httpx2.Response:
    return await api.post("//auth/login", {"username": name, "password": password})


async def cookie_of(api: Api, name: str, role: Role) -> dict[str, str]:
    """A header with a session of a new person."""
    await api.services.access.users.create(name, PASSWORD, role, LOCAL_ADMIN)
    api.client.cookies.clear()
    answer = await sign_in(api, name)
    api.client.cookies.clear()
    return {"Cookie": f"cortex_session={answer.cookies['cortex_session']}"}


async def test_a_person_signs_in_and_out(guarded: Api) -> None:
    await guarded.services.access.users.create("ada", PASSWORD, Role.ADMIN, LOCAL_ADMIN)
    answer = await sign_in(guarded)
    assert answer.json() == {"status": "ok", "user": {"username": "ada", "role": "Admin"}}
    told = answer.headers["set-cookie"].lower()
    assert "httponly" in told and "samesite=lax" in told and "max-age=28800" in told and "ada" not in told
    assert (await guarded.get("//auth/me")).json() == {"username": "ada", "role": "Admin"}
    assert (await guarded.post("//auth/logout")).json() == {"status": "ok"}
    envelope(await guarded.get("//auth/me"), 401, "unauthenticated")


async def test_wrong_passwords_and_disabled_people_are_refused_alike(guarded: Api) -> None:
    users = guarded.services.access.users
    await users.create("ada", PASSWORD, Role.USER, LOCAL_ADMIN)
    for name, password in (("ada", "not the password"), ("nobody", PASSWORD)):
        envelope(await sign_in(guarded, name, password), 401, "invalid_credentials")
    await users.update("ada", LOCAL_ADMIN, disabled=True)
    envelope(await sign_in(guarded), 401, "invalid_credentials")


async def test_after_a_few_failures_one_has_to_wait(guarded: Api) -> None:
    await guarded.services.access.users.create("ada", PASSWORD, Role.USER, LOCAL_ADMIN)
    for _ in range(5):
        assert (await sign_in(guarded, password="not the password")).status_code == 401
    answer = await sign_in(guarded)
    assert answer.status_code == 429 and answer.json() == {"error": "too many failed sign-ins"}
    assert int(answer.headers["retry-after"]) > 0


async def test_what_is_missing_in_a_body_is_told_as_fastapi_does(guarded: Api) -> None:
    answer = await guarded.post("//auth/login", {"username": "ada"})
    assert answer.status_code == 422
    (wrong,) = answer.json()["detail"]
    assert wrong == {"loc": ["body", "password"], "msg": "Field required", "type": "missing"}


async def test_a_page_of_this_server_may_change_things_with_its_session_and_others_may_not(
    make_api: MakeApi,
) -> None:
    api = await make_api(host="0.0.0.0", allowed_origins=("https://ui.example",))
    session = await cookie_of(api, "ada", Role.ADMIN)
    session["Host"] = "models.example"

    async def change(**headers: str) -> httpx2.Response:
        body = {"name": f"org {len((await api.services.access.organisations.list()).items)}"}
        return await api("POST", "//admin/orgs", body, headers={**session, **headers})

    for good in (
        SAME_ORIGIN,
        {"Origin": "https://models.example"},
        {"Origin": "https://ui.example", "Sec-Fetch-Site": "cross-site"},
    ):
        assert (await change(**good)).status_code == 200, good
    refused: tuple[dict[str, str], ...] = (
        {},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://other.models.example", "Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "none"},
    )
    for bad in refused:
        envelope(await change(**bad), 403, "forbidden")
    assert (await api("GET", "//admin/orgs", headers=session)).status_code == 200


async def test_a_page_of_an_allowed_origin_may_send_its_session_along(make_api: MakeApi) -> None:
    api = await make_api(host="0.0.0.0", allowed_origins=("https://ui.example",))
    answer = await api("GET", "//auth/me", headers={"Origin": "https://ui.example"})
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-origin"] == "https://ui.example"


def owner(name: str = "boss", **more: Any) -> dict[str, Any]:
    return {"username": name, "password": PASSWORD, **more}


async def test_the_first_administrator_is_made_once_with_an_organisation(guarded: Api) -> None:
    made = await guarded.post("//admin/bootstrap-owner", owner(org_name="Inn"))
    assert made.json() == {"status": "ok", "owner_id": 1}
    user = await guarded.services.access.users.get("boss")
    assert user.role is Role.ADMIN
    assert (await guarded.services.access.organisations.get(user.org_id or 0)).name == "Inn"
    assert (await guarded.post("//admin/bootstrap-owner", owner("second"))).json() == {"status": "skipped"}
    assert (await sign_in(guarded, "boss")).status_code == 200


async def test_of_two_first_administrators_at_once_only_one_is_made(guarded: Api) -> None:
    answers = await asyncio.gather(
        *(guarded.post("//admin/bootstrap-owner", owner(f"boss{n}")) for n in range(4))
    )
    told = sorted(answer.json()["status"] for answer in answers)
    assert told == ["ok", "skipped", "skipped", "skipped"]
    assert (await guarded.services.access.users.list()).total == 1


async def test_where_a_key_administers_only_that_key_makes_the_first_person(guarded: Api) -> None:
    admin = await guarded.as_role(Role.ADMIN)
    stranger = await guarded.post("//admin/bootstrap-owner", owner())
    assert stranger.json() == {"status": "skipped"}
    made = await guarded("POST", "//admin/bootstrap-owner", owner(), headers=admin)
    assert made.json()["status"] == "ok"


async def test_a_first_administrator_needs_a_name_and_a_password_that_are_right(guarded: Api) -> None:
    for body in (owner(""), {**owner(), "password": "short"}, owner("a/b"), owner(org_name="a/b")):
        answer = await guarded.post("//admin/bootstrap-owner", body)
        assert answer.status_code == 422 and answer.json()["detail"]
    assert (await guarded.services.access.users.list()).total == 0
