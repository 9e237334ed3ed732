"""BodhiApp's settings over ours, and the routes about the server and who asks."""

from __future__ import annotations

from typing import Any

import pytest

from ostler.access.sessions import COOKIE
from ostler.core.principals import Role
from tests.access.provider import CLIENT, SECRET, FakeProvider, go
from tests.api.conftest import Api, MakeApi
from tests.api.dialects.bodhi.shapes import bodhi_error
from tests.gateway.conftest import serving

PASSWORD = "a long password"


async def signed_in(api: Api, role: str) -> dict[str, str]:
    """Headers of a browser in which somebody with that role has signed in."""
    admin = await api.as_role(Role.ADMIN)
    body = {"name": f"a-{role}", "password": PASSWORD}
    await api("POST", "/users", {**body, "role": role}, headers=admin)
    answer = await api("POST", "/session", body)
    cookie = answer.cookies[COOKIE]
    api.client.cookies.clear()
    return {"Cookie": f"{COOKIE}={cookie}", "Sec-Fetch-Site": "same-origin"}


async def test_the_list_names_bodhis_settings_with_our_values(api: Api) -> None:
    listed = {item["key"]: item for item in (await api.get("//bodhi/v1/settings")).json()}
    assert listed["BODHI_HOME"]["current_value"] == str(api.data_dir)
    assert listed["HF_HOME"]["current_value"] == str(api.data_dir)
    assert listed["BODHI_KEEP_ALIVE_SECS"] == {
        "key": "BODHI_KEEP_ALIVE_SECS",
        "current_value": 900,
        "default_value": 900,
        "source": "default",
        "metadata": {"type": "number", "min": 300, "max": 86400},
    }
    assert {item["source"] for item in listed.values()} <= {"system", "command_line", "default"}


async def test_keep_alive_is_our_idle_timeout_and_holds_at_once(api: Api) -> None:
    path = "//bodhi/v1/settings/BODHI_KEEP_ALIVE_SECS"
    changed = (await api("PUT", path, {"value": 600})).json()
    assert (changed["current_value"], changed["source"]) == (600, "settings_file")
    assert api.services.settings.current.idle_timeout_s == 600
    assert (await api("PUT", path, {"value": "700"})).json()["current_value"] == 700
    reset = (await api("DELETE", path)).json()
    assert (reset["current_value"], reset["source"]) == (900, "default")


async def test_what_the_environment_says_stays(make_api: MakeApi) -> None:
    api = await make_api({"OSTLER_IDLE_TIMEOUT_S": "0"})
    path = "//bodhi/v1/settings/BODHI_KEEP_ALIVE_SECS"
    left = (await api("DELETE", path)).json()
    assert (left["current_value"], left["source"]) == (-1, "environment")
    bodhi_error(await api("PUT", path, {"value": 600}), 409)


@pytest.mark.parametrize(
    ("key", "value", "status", "code"),
    [
        ("BODHI_HOME", "x", 400, "settings_error-bodhi_home"),
        ("NOTHING", "x", 404, "settings_error-not_found"),
        ("BODHI_PORT", 1, 400, "settings_error-unsupported"),
        ("BODHI_KEEP_ALIVE_SECS", 299, 400, "settings_metadata_error-invalid_value"),
        ("BODHI_KEEP_ALIVE_SECS", 86_401, 400, "settings_metadata_error-invalid_value"),
        ("BODHI_KEEP_ALIVE_SECS", "soon", 400, "settings_metadata_error-invalid_value_type"),
        ("BODHI_KEEP_ALIVE_SECS", True, 400, "settings_metadata_error-invalid_value_type"),
        ("BODHI_KEEP_ALIVE_SECS", None, 400, "settings_metadata_error-null_value"),
        ("BODHI_EXEC_VARIANT", "cuda-12.6", 400, "settings_metadata_error-invalid_value"),
    ],
)
async def test_a_value_that_cannot_be_is_refused(
    api: Api, key: str, value: Any, status: int, code: str
) -> None:
    bodhi_error(await api("PUT", f"//bodhi/v1/settings/{key}", {"value": value}), status, code)
    assert api.services.settings.current.idle_timeout_s == 900


async def test_people_open_what_no_key_does(guarded: Api) -> None:
    for path, role in (("settings", "admin"), ("tokens", "power_user")):
        bodhi_error(
            await guarded("GET", f"//bodhi/v1/{path}", headers=await guarded.as_role(Role.ADMIN)),
            401,
            "api_auth_error-missing_auth",
        )
        person = await signed_in(guarded, role)
        assert (await guarded("GET", f"//bodhi/v1/{path}", headers=person)).status_code == 200
    low = await signed_in(guarded, "user")
    for path in ("settings", "tokens"):
        bodhi_error(await guarded("GET", f"//bodhi/v1/{path}", headers=low), 403, "forbidden")


async def test_each_sees_their_own_tokens_only(guarded: Api) -> None:
    first, second = await signed_in(guarded, "power_user"), await signed_in(guarded, "manager")
    made = await guarded("POST", "//bodhi/v1/tokens", {"name": "mine"}, headers=first)
    assert made.status_code == 201 and made.headers["cache-control"] == "no-store"
    assert made.json()["scope"] == "scope_token_user"
    same = await guarded("POST", "//bodhi/v1/tokens", {"name": "mine"}, headers=second)
    assert same.status_code == 201 and same.json()["name"].startswith("mine-")
    listed = (await guarded("GET", "//bodhi/v1/tokens", headers=second)).json()
    assert [item["id"] for item in listed["data"]] == [same.json()["id"]]
    path = f"//bodhi/v1/tokens/{made.json()['id']}"
    bodhi_error(await guarded("PUT", path, {"name": "x"}, headers=second), 404, "entity_error-not_found")
    for scope in ("scope_token_admin", "everything"):
        body = {"scope": scope}
        bodhi_error(await guarded("POST", "//bodhi/v1/tokens", body, headers=first), 400)


async def test_a_token_that_is_off_or_over_is_said_to_be_that(guarded: Api) -> None:
    person = await signed_in(guarded, "power_user")
    made = (await guarded("POST", "//bodhi/v1/tokens", {}, headers=person)).json()
    bearer = {"Authorization": f"Bearer {made['token']}"}
    path = f"//bodhi/v1/tokens/{made['id']}"
    await guarded("PUT", path, {"status": "inactive"}, headers=person)
    bodhi_error(await guarded("GET", "//bodhi/v1/models", headers=bearer), 401, "auth_error-token_inactive")
    past = {"expires_at": "2020-01-01T00:00:00Z"}
    bodhi_error(await guarded("POST", "//bodhi/v1/tokens", past, headers=person), 400)
    unknown = {"Authorization": "Bearer sk-bodhi-" + "x" * 43}
    bodhi_error(await guarded("GET", "//bodhi/v1/models", headers=unknown), 401, "unauthorized")


async def test_the_server_and_who_asks(guarded: Api) -> None:
    assert (await guarded.get("//ping")).json() == {"message": "pong"}
    info = (await guarded.get("//bodhi/v1/info")).json()
    assert info == {"version": guarded.services.version, "status": "ready"}
    nobody = (await guarded.get("//bodhi/v1/user")).json()
    assert nobody["logged_in"] is False and nobody["role"] is None
    person = await signed_in(guarded, "power_user")
    who = (await guarded("GET", "//bodhi/v1/user", headers=person)).json()
    assert (who["email"], who["role"], who["token_type"]) == ("a-power_user", "power_user", "session")
    bad = {"Authorization": "Bearer ostler-" + "x" * 43}
    assert (await guarded("GET", "//bodhi/v1/user", headers=bad)).json()["logged_in"] is False


async def test_what_is_set_up_already_and_who_signs_out(guarded: Api) -> None:
    bodhi_error(await guarded.post("//bodhi/v1/setup", {"name": "short"}), 400, "json_rejection_error")
    long_enough = {"name": "a name long enough"}
    bodhi_error(await guarded.post("//bodhi/v1/setup", long_enough), 400, "app_service_error-already_setup")
    answer = await guarded.post("//bodhi/v1/logout")
    assert answer.json()["location"] and COOKIE in answer.headers["set-cookie"]


async def test_unknown_paths_are_404_in_bodhis_shape(api: Api) -> None:
    for path in ("/bodhi/v1", "/bodhi/v1/nothing", "/bodhi/v1/models/"):
        bodhi_error(await api.get(f"/{path}"), 404)


async def test_on_loopback_the_local_person_has_tokens_too(api: Api) -> None:
    made = (await api.post("//bodhi/v1/tokens", {"name": "local", "scope": "scope_token_power_user"})).json()
    listed = (await api.get("//bodhi/v1/tokens")).json()
    assert [item["name"] for item in listed["data"]] == ["local"]
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert (await api("GET", "//bodhi/v1/user", headers=bearer)).json()["role"] == "power_user"


async def test_without_a_provider_it_is_said_how_people_sign_in(guarded: Api) -> None:
    bodhi_error(await guarded.post("//bodhi/v1/auth/initiate"), 501)
    bodhi_error(await guarded.post("//bodhi/v1/auth/callback", {"code": "x", "state": "y"}), 501)
    person = await signed_in(guarded, "user")
    at_home = await guarded("POST", "//bodhi/v1/auth/initiate", headers=person)
    assert (at_home.status_code, at_home.json()) == (200, {"location": "/"})


async def test_a_browser_goes_from_bodhis_door_to_the_provider_and_comes_back_signed_in(
    make_api: MakeApi,
) -> None:
    provider = FakeProvider()
    async with serving(provider) as provider.url:
        known = {"oidc_issuer": provider.url, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET}
        api = await make_api(host="0.0.0.0", **known)
        begun = await api.post("//bodhi/v1/auth/initiate")
        assert begun.status_code == 201
        there = await api.get(f"/{begun.json()['location']}")
        assert there.status_code == 303 and there.headers["location"].startswith(provider.url)
        await go(api.client, provider.authorise(there.headers["location"]))
        who = (await api.get("//bodhi/v1/user")).json()
        assert (who["logged_in"], who["token_type"], who["role"]) == (True, "session", "user")
