"""The door of Cortex's routes: envelope, ids, headers, sessions of pages that know no CSRF token."""

from __future__ import annotations

from ostler.core.principals import LOCAL_ADMIN, Role
from tests.api.conftest import Api
from tests.api.dialects.cortex.shapes import envelope

ME = "//auth/me"


async def test_the_local_person_is_an_administrator(api: Api) -> None:
    assert (await api.get(ME)).json() == {"username": "local", "role": "Admin"}


async def test_every_answer_has_an_id_which_the_client_may_choose(api: Api) -> None:
    assert len((await api.get(ME)).headers["x-request-id"]) == 32
    answer = await api("GET", ME, headers={"x-request-id": "mine-7"})
    assert answer.headers["x-request-id"] == "mine-7"
    odd = await api("GET", ME, headers={"x-request-id": "a b\t<script>"})
    assert "<" not in odd.headers["x-request-id"]


async def test_answers_carry_cortexs_security_headers(api: Api) -> None:
    for path in (ME, "//admin/nothing"):
        headers = (await api.get(path)).headers
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "strict-origin-when-cross-origin"
        assert headers["x-xss-protection"] == "0"
        assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_what_is_not_there_is_an_envelope(api: Api) -> None:
    envelope(await api.get("//admin/nothing"), 404, "Not Found")
    envelope(await api("PUT", ME), 405, "Method Not Allowed")


async def test_a_key_comes_in_as_what_it_is(guarded: Api) -> None:
    envelope(await guarded.get(ME), 401, "unauthenticated")
    for role, word in ((Role.ADMIN, "Admin"), (Role.MANAGER, "User"), (Role.USER, "User")):
        answer = await guarded("GET", ME, headers=await guarded.as_role(role))
        assert answer.json()["role"] == word


async def test_a_session_comes_in_under_both_names_of_its_cookie_and_never_a_bare_name(guarded: Api) -> None:
    await guarded.services.access.users.create("ada", "a long password", Role.USER, LOCAL_ADMIN)
    cookie, _ = await guarded.services.access.sign_in("ada", "a long password", "here")
    for name in ("cortex_session", "ostler_session"):
        answer = await guarded("GET", ME, headers={"Cookie": f"{name}={cookie}"})
        assert answer.json() == {"username": "ada", "role": "User"}
    stale = f"ostler_session=over; cortex_session={cookie}"
    assert (await guarded("GET", ME, headers={"Cookie": stale})).status_code == 200
    for forged in ("ada", cookie[:-1] + "x"):
        envelope(await guarded("GET", ME, headers={"Cookie": f"cortex_session={forged}"}), 401)
