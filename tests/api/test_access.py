"""Keys, people and sessions over HTTP."""

from __future__ import annotations

from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi, problem


async def test_a_key_is_shown_once_works_and_is_revoked(guarded: Api) -> None:
    admin = await guarded.as_role(Role.ADMIN)
    body = {
        "name": "ci",
        "role": "power_user",
        "models": ["qwen*"],
        "limits": {"requests_per_minute": 60},
        "expires_at": "2099-01-01T00:00:00Z",
    }
    made = await guarded("POST", "/keys", body, headers=admin)
    assert made.status_code == 201, made.text
    key = made.json()
    shown = await guarded("GET", "/keys/ci", headers=admin)
    listed = await guarded("GET", "/keys", headers=admin)
    assert key["key"] not in shown.text + listed.text and "sha256" not in shown.text
    limits = {name: value for name, value in shown.json()["limits"].items() if value is not None}
    assert limits == {"requests_per_minute": 60}
    assert (shown.json()["role"], shown.json()["models"]) == ("power_user", ["qwen*"])
    mine = {"x-api-key": key["key"]}
    who = (await guarded("GET", "/session", headers=mine)).json()
    assert (who["name"], who["role"], who["kind"]) == ("ci", "power_user", "key")
    assert (await guarded("GET", f"/keys/{key['id']}", headers=admin)).json()["last_used_at"]
    assert (await guarded("DELETE", f"/keys/{key['id']}", headers=admin)).json()["name"] == "ci"
    problem(await guarded("GET", "/session", headers=mine), 401, "unknown_key")
    problem(await guarded("DELETE", "/keys/ci", headers=admin), 404, "key_not_found")


async def test_bad_keys_are_refused(api: Api) -> None:
    for body in (
        {},
        {"name": ""},
        {"name": "a", "role": "king"},
        {"name": "a", "models": "qwen"},
        {"name": "a", "limits": {"rpm": 1}},
        {"name": "a", "limits": {"concurrency": 0}},
        {"name": "a", "expires_at": "2001-01-01T00:00:00Z"},
        {"name": "a", "expires_at": "2099-01-01T00:00:00"},
        {"name": "a", "expires_at": "soon"},
        {"name": "../../a"},
    ):
        problem(await api.post("/keys", body), 422)
    assert (await api.post("/keys", {"name": "a"})).status_code == 201
    problem(await api.post("/keys", {"name": "a"}), 409, "key_name_taken")


async def test_people_are_added_changed_and_removed(api: Api) -> None:
    made = await api.post("/users", {"name": "ada", "password": "a long password", "role": "manager"})
    assert made.status_code == 201 and "password" not in made.text
    assert (await api.get("/users")).json()["items"] == [made.json()]
    changed = await api("PATCH", "/users/ada", {"role": "user", "disabled": True})
    assert (changed.json()["role"], changed.json()["disabled"]) == ("user", True)
    assert (await api("DELETE", f"/users/{made.json()['id']}")).status_code == 200
    problem(await api.get("/users/ada"), 404, "user_not_found")
    for body in ({"name": "a"}, {"name": "a", "password": "short"}, {"name": "/", "password": "long enough"}):
        problem(await api.post("/users", body), 422)


async def test_a_person_signs_in_changes_with_the_csrf_token_and_signs_out(guarded: Api) -> None:
    admin = await guarded.as_role(Role.ADMIN)
    body = {"name": "ada", "password": "a long password", "role": "admin"}
    await guarded("POST", "/users", body, headers=admin)
    wrong = await guarded.post("/session", {"name": "ada", "password": "wrong password"})
    problem(wrong, 401, "wrong_password")
    signed_in = await guarded.post("/session", {"name": "ada", "password": "a long password"})
    cookie = signed_in.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and "Secure" not in cookie
    assert (await guarded.get("/session")).json()["kind"] == "session"
    problem(await guarded.post("/keys", {"name": "mine"}), 403, "missing_csrf_token")
    token = (await guarded.get("/session")).json()["csrf_token"]
    assert token == signed_in.json()["csrf_token"]
    made = await guarded("POST", "/keys", {"name": "mine"}, headers={"X-CSRF-Token": token})
    assert made.status_code == 201
    await guarded("DELETE", "/session")
    problem(await guarded.get("/session"), 401)


async def test_the_cookie_is_secure_over_https(guarded: Api) -> None:
    admin = await guarded.as_role(Role.ADMIN)
    body = {"name": "ada", "password": "a long password"}
    await guarded("POST", "/users", body, headers=admin)
    answer = await guarded.client.post("https://models.example/ostler/v1/session", json=body)
    assert "Secure" in answer.headers["set-cookie"]


async def test_too_many_wrong_passwords_are_429_with_a_time_to_wait(guarded: Api) -> None:
    for _ in range(5):
        problem(await guarded.post("/session", {"name": "ada", "password": "wrong"}), 401)
    answer = await guarded.post("/session", {"name": "ada", "password": "wrong"})
    problem(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 300


async def test_at_this_machine_one_is_the_local_administrator(make_api: MakeApi) -> None:
    api = await make_api()
    who = (await api("GET", "/session", headers={"Authorization": "Bearer sk-placeholder"})).json()
    assert (who["name"], who["role"], who["kind"]) == ("local", "admin", "local")


async def test_organisations_own_people_and_keys_and_keys_are_switched_off(api: Api) -> None:
    made = await api.post("/organisations", {"name": "Physics"})
    assert made.status_code == 201
    org_id = made.json()["id"]
    user = await api.post("/users", {"name": "marie", "password": "a good password", "org_id": org_id})
    assert user.json()["org_id"] == org_id
    body = {"name": "hers", "user_id": user.json()["id"], "org_id": org_id, "scopes": ["chat"]}
    key = (await api.post("/keys", body)).json()
    assert (key["scopes"], key["org_id"], key["disabled"]) == (["chat"], org_id, False)
    off = await api("PATCH", "/keys/hers", {"disabled": True})
    assert off.json()["disabled"] is True
    refused = await api("GET", "/session", headers={"Authorization": f"Bearer {key['key']}"})
    problem(refused, 401, "key_disabled")
    same = await api("PATCH", "/users/marie", {"role": "power_user"})
    assert same.json()["org_id"] == org_id
    gone = await api("PATCH", "/users/marie", {"org_id": None})
    assert gone.json()["org_id"] is None
    renamed = await api("PATCH", f"/organisations/{org_id}", {"name": "Chemistry"})
    assert renamed.json()["name"] == "Chemistry"
    assert (await api.get("/organisations")).json()["total"] == 1
    assert (await api("DELETE", "/organisations/Chemistry")).status_code == 200
    assert (await api.get("/keys/hers")).json()["org_id"] is None
    problem(await api.post("/keys", {"name": "x", "org_id": 77}), 422)
    problem(await api.post("/keys", {"name": "x", "scopes": ["all"]}), 422)
    problem(await api.post("/keys", {"name": "x", "addresses": ["nowhere"]}), 422)
