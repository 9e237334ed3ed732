"""Keys, people and organisations over Cortex's API."""

from __future__ import annotations

from typing import Any

from ostler.core.principals import LOCAL_ADMIN, Role
from tests.api.conftest import Api
from tests.api.dialects.cortex.shapes import envelope
from tests.api.dialects.cortex.test_auth import PASSWORD, SAME_ORIGIN, cookie_of


async def names(api: Api, path: str, field: str, **query: Any) -> list[Any]:
    return [item[field] for item in (await api.get(path, **query)).json()]


async def test_a_key_is_shown_once_listed_and_switched_off(guarded: Api) -> None:
    admin = await guarded.as_role(Role.ADMIN)
    ada = await guarded.services.access.users.create("ada", PASSWORD, Role.USER, LOCAL_ADMIN)
    inn = await guarded.services.access.organisations.create("Inn", LOCAL_ADMIN)
    body = {
        "scopes": "chat,embeddings",
        "expires_at": "2099-01-01T00:00:00",
        "ip_allowlist": "127.0.0.1, 10.0.0.0/8",
        "user_id": ada.id,
        "org_id": inn.id,
    }
    made = (await guarded("POST", "//admin/keys", body, headers=admin)).json()
    assert made.keys() == {"id", "prefix", "token"} and made["token"].startswith(made["prefix"])
    mine = {"Authorization": f"Bearer {made['token']}"}
    assert (await guarded("GET", "//auth/me", headers=mine)).json()["role"] == "User"
    listed = await guarded("GET", f"//admin/keys?user_id={ada.id}", headers=admin)
    assert made["token"] not in listed.text
    (item,) = listed.json()
    assert (item["username"], item["org_name"]) == ("ada", "Inn")
    assert item["scopes"] == "chat,embeddings" and item["expires_at"] == "2099-01-01T00:00:00Z"
    assert item["prefix"] == made["prefix"] and item["disabled"] is False and item["last_used_at"]
    bare = await guarded("GET", f"//admin/keys?user_id={ada.id}&include_names=false", headers=admin)
    assert bare.json()[0]["username"] is None
    revoked = await guarded("DELETE", f"//admin/keys/{made['id']}", headers=admin)
    assert revoked.json() == {"status": "ok"}
    envelope(await guarded("GET", "//auth/me", headers=mine), 401, "unauthenticated")
    assert (await guarded("GET", f"//admin/keys?org_id={inn.id}", headers=admin)).json() == []
    again = await guarded("GET", f"//admin/keys?org_id={inn.id}&include_disabled=true", headers=admin)
    assert again.json()[0]["disabled"] is True
    envelope(await guarded("DELETE", "//admin/keys/999", headers=admin), 404, "not_found")


async def test_keys_are_filtered_sorted_and_cut(api: Api) -> None:
    made = [(await api.post("//admin/keys", {})).json() for _ in range(4)]
    ids = [key["id"] for key in made]
    assert await names(api, "//admin/keys", "id") == ids[::-1]
    assert await names(api, "//admin/keys", "id", sort="id:asc", limit=2, offset=1) == ids[1:3]
    assert await names(api, "//admin/keys", "id", sort="created_at:asc") == ids
    assert await names(api, "//admin/keys", "id", sort="nonsense") == ids[::-1]
    assert await names(api, "//admin/keys", "id", q=made[2]["prefix"][3:]) == [ids[2]]
    assert len(await names(api, "//admin/keys", "id", limit=0)) == 1
    assert await names(api, "//admin/keys", "id", offset=10**30) == []
    for wrong in ({"user_id": 10**30}, {"org_id": 0}, {"q": "x" * 1_000}, {"limit": "many"}):
        assert (await api.get("//admin/keys", **wrong)).status_code == 422
    assert (await api.get("//admin/keys")).json()[0]["scopes"] == "chat,completions,embeddings"


async def test_a_key_with_bad_fields_is_refused(api: Api) -> None:
    for body in (
        {"scopes": "chat,everything"},
        {"ip_allowlist": "somewhere"},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"user_id": 999},
        {"org_id": 999},
        {"user_id": -1},
    ):
        answer = await api.post("//admin/keys", body)
        assert answer.status_code == 422 and answer.json()["detail"][0]["loc"][0] == "body", body
    assert (await api.get("//admin/keys")).json() == []


async def test_a_person_has_keys_of_their_own(guarded: Api) -> None:
    ada = await cookie_of(guarded, "ada", Role.USER)
    eve = await cookie_of(guarded, "eve", Role.USER)
    made = (await guarded("POST", "//admin/me/keys", {}, headers={**ada, **SAME_ORIGIN})).json()
    mine = await guarded("GET", "//admin/me/keys", headers=ada)
    assert [key["id"] for key in mine.json()] == [made["id"]]
    assert (await guarded("GET", "//admin/me/keys", headers=eve)).json() == []
    path = f"//admin/me/keys/{made['id']}"
    envelope(await guarded("DELETE", path, headers={**eve, **SAME_ORIGIN}), 404, "not_found")
    by_key = {"Authorization": f"Bearer {made['token']}"}
    envelope(await guarded("POST", "//admin/me/keys", {}, headers=by_key), 403, "forbidden")
    assert (await guarded("DELETE", path, headers={**ada, **SAME_ORIGIN})).json() == {"status": "ok"}
    assert (await guarded("GET", "//admin/me/keys", headers=ada)).json() == []
    everything = await guarded("GET", "//admin/me/keys?include_disabled=true", headers=ada)
    assert everything.json()[0]["disabled"] is True


async def test_people_are_added_found_changed_and_removed(api: Api) -> None:
    inn = (await api.post("//admin/orgs", {"name": "Inn"})).json()
    body = {"username": "ada", "password": PASSWORD, "role": "Admin", "org_id": inn["id"]}
    ada = (await api.post("//admin/users", body)).json()
    assert (ada["username"], ada["role"], ada["org_id"], ada["status"]) == ("ada", "Admin", 1, "active")
    envelope(await api.post("//admin/users", body), 409, "username_exists")
    for name in ("bob", "eve"):
        made = await api.post("//admin/users", {"username": name, "password": PASSWORD})
        assert made.json()["role"] == "User"
    changed = await api("PATCH", "//admin/users/2", {"status": "disabled", "org_id": inn["id"]})
    assert (changed.json()["status"], changed.json()["org_id"]) == ("disabled", 1)
    assert (await api("PATCH", "//admin/users/2", {"org_id": None})).json()["org_id"] is None
    assert (await api.get("//admin/users/1")).json() == ada
    envelope(await api.get("//admin/users/9"), 404, "not_found")
    users = "//admin/users"
    assert await names(api, users, "username", sort="username:asc") == ["ada", "bob", "eve"]
    assert await names(api, users, "username", sort="status:desc", limit=1) == ["bob"]
    assert await names(api, users, "username", role="Admin") == ["ada"]
    assert await names(api, users, "username", role="User", status="active") == ["eve"]
    assert await names(api, users, "username", org_id=inn["id"]) == ["ada"]
    assert await names(api, users, "username", q="B") == ["bob"]
    assert await names(api, users, "username", sort="id:asc", limit=1, offset=1) == ["bob"]
    assert (await api.get("//admin/users/lookup", q="e")).json() == [{"id": 3, "username": "eve"}]
    assert (await api("DELETE", "//admin/users/3")).json() == {"status": "ok"}
    envelope(await api("DELETE", "//admin/users/3"), 404, "not_found")


async def test_bad_people_are_refused_and_the_last_administrator_stays(api: Api) -> None:
    for body in (
        {"username": "ada", "password": "short"},
        {"username": "a/b", "password": PASSWORD},
        {"username": "ada", "password": PASSWORD, "role": "King"},
        {"username": "ada", "password": PASSWORD, "org_id": 7},
    ):
        assert (await api.post("//admin/users", body)).status_code == 422
    await api.post("//admin/users", {"username": "ada", "password": PASSWORD, "role": "Admin"})
    for change in ({"role": "User"}, {"status": "disabled"}):
        envelope(await api("PATCH", "//admin/users/1", change), 409)
    envelope(await api("DELETE", "//admin/users/1"), 409)
    assert (await api("PATCH", "//admin/users/1", {"status": "away"})).status_code == 422
    assert (await api("PATCH", "//admin/users/x", {})).status_code == 422


async def test_organisations_are_added_renamed_found_and_removed(api: Api) -> None:
    inn = (await api.post("//admin/orgs", {"name": "Inn"})).json()
    assert inn.keys() == {"id", "name", "created_at"}
    envelope(await api.post("//admin/orgs", {"name": "Inn"}), 409, "name_exists")
    await api.post("//admin/orgs", {"name": "Stable"})
    assert await names(api, "//admin/orgs", "name", sort="name:asc") == ["Inn", "Stable"]
    assert await names(api, "//admin/orgs", "name", q="tab") == ["Stable"]
    assert (await api.get("//admin/orgs/lookup")).json()[0] == {"id": 1, "name": "Inn"}
    assert (await api.get("//admin/orgs/1")).json() == inn
    renamed = await api("PATCH", "//admin/orgs/1", {"name": "Tavern"})
    assert renamed.json()["name"] == "Tavern"
    envelope(await api("PATCH", "//admin/orgs/1", {"name": "Stable"}), 409, "name_exists")
    assert (await api("DELETE", "//admin/orgs/1")).json() == {"status": "ok"}
    envelope(await api("DELETE", "//admin/orgs/1"), 404, "not_found")
