"""Signing in by a provider, from the first address to the session, and everything that may not let in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc.jwk import RSAKey
from oidc_provider_mock import User, run_server_in_thread

from ostler.access.oidc.service import own_path
from ostler.core.principals import LOCAL_ADMIN, Role
from tests.access.provider import CLIENT, SECRET, FakeProvider, go
from tests.api.conftest import Api, MakeApi, problem
from tests.gateway.conftest import serving

pytestmark = pytest.mark.real

SIGN_IN = "//ostler/v1/session/oidc"
Made = Callable[..., Awaitable[Api]]


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    fake = FakeProvider()
    async with serving(fake) as url:
        fake.url = url
        yield fake


@pytest.fixture
def with_provider(make_api: MakeApi, provider: FakeProvider) -> Made:
    """Makes a server that knows the provider; it listens for others, so nobody is the local person."""

    async def make(**settings: Any) -> Api:
        known = {"oidc_issuer": provider.url, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET}
        return await make_api(host="0.0.0.0", **{**known, **settings})

    return make


async def sign_in(api: Api, provider: FakeProvider, then: str | None = None) -> httpx2.Response:
    """There and back; the answer to the provider's return."""
    begun = await api.get(SIGN_IN, **({"next": then} if then else {}))
    assert begun.status_code == 303, begun.text
    return await go(api.client, provider.authorise(begun.headers["location"]))


async def who(api: Api) -> Any:
    return (await api.get("/session")).json()


async def test_a_person_signs_in_and_has_a_session_like_any_other(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider()
    answer = await sign_in(api, provider, "/models?x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/models?x=1")
    me = await who(api)
    assert (me["name"], me["role"], me["kind"]) == ("ada", "user", "session") and me["csrf_token"]
    await api("DELETE", "/session")
    problem(await api.get("/session"), 401)
    await sign_in(api, provider)
    assert (await who(api))["name"] == "ada"
    assert (await api.services.access.users.list()).total == 1, "the same person again"


async def test_with_a_provider_that_others_made(make_api: MakeApi) -> None:
    person = User(sub="grace", claims={"preferred_username": "Grace H.", "groups": ["staff", "admins"]})
    with run_server_in_thread(user_claims=[person]) as server:
        issuer = f"http://localhost:{server.server_port}"
        api = await make_api(
            oidc_issuer=issuer,
            oidc_client_id="any",
            oidc_client_secret="any",
            oidc_roles=("admins=admin", "staff=user"),
        )
        begun = await api.get(SIGN_IN, next="/")
        async with httpx2.AsyncClient() as browser:
            page = begun.headers["location"]
            assert (await browser.get(page)).status_code == 200
            sent = await browser.post(page, data={"sub": "grace"})
        answer = await go(api.client, sent.headers["location"])
        assert answer.status_code == 303, answer.text
        me = await who(api)
        assert (me["name"], me["role"], me["kind"]) == ("Grace H", "admin", "session")


async def test_the_browser_is_sent_with_a_challenge_and_the_cookie_is_for_this_way_alone(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider()
    begun = await api.get(SIGN_IN)
    asked = parse_qs(urlsplit(begun.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"] and len(asked["state"][0]) >= 32 <= len(
        asked["nonce"][0]
    )
    assert SECRET not in begun.headers["location"] and "verifier" not in begun.headers["location"]
    cookie = begun.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/ostler/v1/session/oidc" in cookie


@pytest.mark.parametrize(
    "then",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil",
        "javascript:x",
        "/\r\nx",
        "",
        "x",
    ],
)
async def test_it_never_leads_to_another_server(then: str) -> None:
    assert own_path(then) == "/"


async def test_the_highest_of_the_mapped_roles_counts_and_is_brought_up_to_date_at_each_sign_in(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider(
        oidc_roles=("boss=manager", "staff=power_user"), oidc_role_claim="realm_access.roles"
    )
    await api.services.access.users.create("root", "a good password", Role.ADMIN, LOCAL_ADMIN)
    for theirs, ours in ((["staff", "boss"], "manager"), (["staff"], "power_user"), (["x"], "user")):
        provider.claims = {"realm_access": {"roles": theirs}}
        await sign_in(api, provider)
        assert (await who(api))["role"] == ours


async def test_without_a_mapping_the_role_that_was_given_here_stays(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider(oidc_default_role="power_user")
    await sign_in(api, provider)
    assert (await who(api))["role"] == "power_user"
    await api.services.access.users.update("ada", LOCAL_ADMIN, role=Role.MANAGER)
    await sign_in(api, provider)
    assert (await who(api))["role"] == "manager"


async def test_roles_may_come_from_userinfo(with_provider: Made, provider: FakeProvider) -> None:
    api = await with_provider(oidc_roles=("staff=manager",))
    provider.userinfo = {"groups": "other staff"}
    await sign_in(api, provider)
    assert (await who(api))["role"] == "manager"
    provider.userinfo = {"sub": "somebody else", "groups": ["staff"]}
    problem(await sign_in(api, provider), 401, "sign_in_refused")


async def test_who_has_no_role_here_is_not_let_in_and_not_made(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider(oidc_roles=("staff=user",), oidc_default_role="none")
    problem(await sign_in(api, provider), 403, "no_role_for_you")
    assert (await api.services.access.users.list()).total == 0


async def test_a_name_that_somebody_has_here_is_not_taken_over(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider()
    await api.services.access.users.create("ada", "a good password", Role.ADMIN, LOCAL_ADMIN)
    await sign_in(api, provider)
    me = await who(api)
    assert (me["name"], me["role"]) == ("ada-2", "user")
    provider.person = {"sub": "another", "preferred_username": "ada"}
    await sign_in(api, provider)
    assert (await who(api))["name"] == "ada-3"


async def test_who_is_disabled_stays_out(with_provider: Made, provider: FakeProvider) -> None:
    api = await with_provider()
    await sign_in(api, provider)
    await api.services.access.users.update("ada", LOCAL_ADMIN, disabled=True)
    problem(await sign_in(api, provider), 401, "sign_in_refused")


async def test_a_person_who_was_removed_is_made_anew(with_provider: Made, provider: FakeProvider) -> None:
    api = await with_provider()
    await sign_in(api, provider)
    before = (await api.services.access.users.get("ada")).id
    await api.services.access.users.delete("ada", LOCAL_ADMIN)
    problem(await api.get("/session"), 401)
    await sign_in(api, provider)
    assert (await api.services.access.users.get("ada")).id != before


FALSE: list[tuple[str, dict[str, Any]]] = [
    ("another nonce", {"claims": {"nonce": "guessed"}}),
    ("no nonce", {"claims": {"nonce": None}}),
    ("for another client", {"claims": {"aud": "somebody"}}),
    ("for several, given to another", {"claims": {"aud": [CLIENT, "x"], "azp": "x"}}),
    ("from another issuer", {"claims": {"iss": "https://evil.example"}}),
    ("out of time", {"claims": {"exp": 1_000_000_000}}),
    ("of nobody", {"claims": {"sub": None}}),
    ("of a number", {"claims": {"sub": 7}}),
    ("without an end", {"claims": {"exp": None}}),
    ("not signed", {"algorithm": "none"}),
    ("signed by another key", {"published": RSAKey.generate_key(2048, {"kid": "one"})}),
]


@pytest.mark.parametrize(("what", "lie"), FALSE, ids=[what for what, _ in FALSE])
async def test_a_word_that_does_not_hold_lets_nobody_in(
    with_provider: Made, provider: FakeProvider, what: str, lie: dict[str, Any]
) -> None:
    api = await with_provider()
    for name, value in lie.items():
        setattr(provider, name, value)
    problem(await sign_in(api, provider), 401, "sign_in_refused")
    problem(await api.get("/session"), 401)
    assert (await api.services.access.users.list()).total == 0


NONSENSE: list[tuple[str, dict[str, Any], str]] = [
    ("HTML", {"answers": {"/.well-known/openid-configuration": (200, b"<html>")}}, "provider_nonsense"),
    ("a list", {"answers": {"/.well-known/openid-configuration": (200, b"[]")}}, "provider_nonsense"),
    ("an error", {"answers": {"/.well-known/openid-configuration": (500, b"{}")}}, "provider_nonsense"),
    (
        "much",
        {"answers": {"/.well-known/openid-configuration": (200, b"[" * 2_000_000)}},
        "provider_nonsense",
    ),
    ("another name", {"about": {"issuer": "https://evil.example"}}, "provider_nonsense"),
    ("a place in clear", {"about": {"token_endpoint": "http://evil.example/token"}}, "provider_nonsense"),
    ("no place", {"about": {"jwks_uri": None}}, "provider_nonsense"),
]


@pytest.mark.parametrize(("what", "lie", "code"), NONSENSE, ids=[what for what, _, _ in NONSENSE])
async def test_a_provider_that_answers_nonsense_is_named_as_such(
    with_provider: Made, provider: FakeProvider, what: str, lie: dict[str, Any], code: str
) -> None:
    api = await with_provider()
    for name, value in lie.items():
        setattr(provider, name, value)
    problem(await api.get(SIGN_IN), 502, code)


async def test_a_provider_that_is_away_is_said_and_the_password_still_works(make_api: MakeApi) -> None:
    api = await make_api(host="0.0.0.0", oidc_issuer="http://127.0.0.1:9", oidc_client_id=CLIENT)
    told = problem(await api.get(SIGN_IN), 502, "provider_away")
    assert "password" in told["hint"]
    await api.services.access.users.create("ada", "a good password", Role.USER, LOCAL_ADMIN)
    assert (await api.post("/session", {"name": "ada", "password": "a good password"})).status_code == 200


async def test_broken_keys_and_a_code_that_is_not_taken_are_errors_in_words(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider()
    provider.answers["/keys"] = (200, b'{"keys": [{"kty": "odd"}]}')
    problem(await sign_in(api, provider), 502, "provider_nonsense")
    begun = await api.get(SIGN_IN)
    back = provider.authorise(begun.headers["location"])
    provider.codes.clear()
    told = problem(await go(api.client, back), 401, "sign_in_refused")
    assert "used up" in told["detail"]


async def test_a_new_key_of_the_provider_is_asked_for_once(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider()
    await sign_in(api, provider)
    assert provider.asked.count("/.well-known/openid-configuration") == 1
    provider.key = RSAKey.generate_key(2048, {"kid": "two"})
    keys = api.services.access.oidc._provider
    assert keys is not None and keys._keys is not None
    keys._keys = (keys._keys[0] - timedelta(minutes=5).total_seconds(), keys._keys[1])
    assert (await sign_in(api, provider)).status_code == 303
    assert provider.asked.count("/keys") == 2


async def test_an_answer_that_this_browser_did_not_ask_for_is_refused(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider()
    begun = await api.get(SIGN_IN)
    back = provider.authorise(begun.headers["location"])
    other = back.replace("state=", "state=x")
    problem(await go(api.client, other), 422, "sign_in_lost")
    problem(await go(api.client, back + "&iss=https://evil.example"), 422, "sign_in_lost")
    cookie = api.client.cookies.get("ostler_oidc", path="/ostler/v1/session/oidc")
    api.client.cookies.clear()
    problem(await go(api.client, back), 422, "sign_in_lost")
    assert cookie is not None
    body, _, signature = cookie.rpartition(".")
    forged = f"{body[:-4]}AAAA.{signature}"
    api.client.cookies.set("ostler_oidc", forged, path="/ostler/v1/session/oidc")
    problem(await go(api.client, back), 422, "sign_in_lost")
    assert provider.asked.count("/token") == 0


async def test_a_refusal_of_the_provider_is_told_in_its_words(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider()
    begun = await api.get(SIGN_IN)
    state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
    answer = await api.get(f"{SIGN_IN}/callback", state=state, error="access_denied")
    assert "access_denied" in problem(answer, 401, "sign_in_refused")["detail"]


async def test_without_a_provider_and_without_an_address_to_come_back_to_it_says_what_to_set(
    make_api: MakeApi, provider: FakeProvider
) -> None:
    api = await make_api(host="0.0.0.0")
    assert "oidc_issuer" in problem(await api.get(SIGN_IN), 404, "oidc_not_configured")["hint"]
    assert (await api.get("/session/ways")).json() == {"password": True, "oidc": False}
    problem(await api.get(f"{SIGN_IN}/callback", code="x", state="y"), 404, "oidc_not_configured")


async def test_an_address_that_a_header_names_is_not_believed(
    with_provider: Made, provider: FakeProvider
) -> None:
    api = await with_provider()
    answer = await api("GET", SIGN_IN, headers={"Host": "evil.example"})
    assert "oidc_redirect_uri" in problem(answer, 409, "no_way_back")["hint"]
    assert (await api.get("/session/ways")).json()["oidc"] is True


async def test_without_the_extra_it_says_how_to_install_it(
    with_provider: Made, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    api = await with_provider()
    monkeypatch.setitem(sys.modules, "authlib.oauth2.rfc7636", None)
    told = problem(await api.get(SIGN_IN), 501, "oidc_not_installed")
    assert "ostler[oidc]" in told["hint"]


async def test_the_secret_is_shown_nowhere(with_provider: Made, provider: FakeProvider) -> None:
    api = await with_provider()
    await api.services.access.users.create("root", "a good password", Role.ADMIN, LOCAL_ADMIN)
    key = await api.as_role(Role.ADMIN)
    assert SECRET not in (await api("GET", "/settings", headers=key)).text
