"""From headers to a principal."""

from __future__ import annotations

import pytest

from ostler.access.browser import ForeignHost, ForeignOrigin
from ostler.access.headers import read_credentials
from ostler.access.service import Access, MissingCsrfToken, UnknownKey
from ostler.core.errors import Unauthenticated
from ostler.core.principals import LOCAL_ADMIN, Principal, Role
from tests.access.conftest import HeldClock, SettingsBox


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    named = {"host": "127.0.0.1:11500", **{name.replace("_", "-"): value for name, value in values.items()}}
    return [(name.encode(), value.encode("latin-1")) for name, value in named.items()]


@pytest.mark.parametrize("placeholder", ["sk-xxx", "ollama", "none", "ostler", "ostler-short", "é"])
async def test_at_this_machine_any_placeholder_is_the_local_person(access: Access, placeholder: str) -> None:
    assert access.admit(headers(authorization=f"Bearer {placeholder}")) is LOCAL_ADMIN
    assert access.admit(headers()) is LOCAL_ADMIN


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key"])
async def test_a_stored_key_counts_as_itself_at_this_machine_too(
    access: Access, admin: Principal, name: str
) -> None:
    _, token = await access.keys.create("ci", Role.USER, admin)
    value = f"bearer  {token} " if name == "authorization" else token
    assert access.admit([*headers(), (name.encode(), value.encode())]).name == "ci"


async def test_on_another_address_only_a_stored_key_comes_in(
    access: Access, admin: Principal, box: SettingsBox
) -> None:
    _, token = await access.keys.create("ci", Role.USER, admin)
    box.use(host="0.0.0.0")
    with pytest.raises(Unauthenticated):
        access.admit(headers(host="example.org"))
    with pytest.raises(UnknownKey):
        access.admit(headers(authorization="Bearer sk-xxx"))
    assert access.admit(headers(host="example.org", authorization=f"Bearer {token}")).name == "ci"


@pytest.mark.parametrize("proxy", ["x-forwarded-for", "forwarded", "x-real-ip"])
async def test_whoever_comes_through_a_proxy_is_not_the_local_person(access: Access, proxy: str) -> None:
    with pytest.raises(Unauthenticated):
        access.admit([*headers(), (proxy.encode(), b"203.0.113.7")])


async def test_under_an_allowed_name_a_key_is_needed(
    access: Access, admin: Principal, box: SettingsBox
) -> None:
    _, token = await access.keys.create("ci", Role.USER, admin)
    box.use(allowed_hosts=("models.example.org",))
    with pytest.raises(Unauthenticated):
        access.admit(headers(host="models.example.org"))
    assert access.admit(headers(host="models.example.org", x_api_key=token)).name == "ci"


async def test_a_foreign_page_is_refused_before_anything_else(access: Access, admin: Principal) -> None:
    _, token = await access.keys.create("ci", Role.USER, admin)
    with pytest.raises(ForeignHost):
        access.admit(headers(host="evil.example", x_api_key=token))
    with pytest.raises(ForeignOrigin):
        access.admit(headers(origin="https://evil.example", x_api_key=token))
    assert access.admit(headers(origin="http://localhost:3000")) is LOCAL_ADMIN


async def test_a_session_reads_with_its_cookie_and_changes_with_its_csrf_token(
    access: Access, admin: Principal, box: SettingsBox
) -> None:
    await access.users.create("ada", "a long password", Role.MANAGER, admin)
    box.use(host="0.0.0.0")
    cookie, session = await access.sign_in("ada", "a long password", "192.0.2.1")
    with_cookie = headers(cookie=f"theme=dark; ostler_session={cookie}")
    assert access.admit(with_cookie, "GET").role is Role.MANAGER
    for wrong in ([], [(b"x-csrf-token", b"wrong")], [(b"x-csrf-token", "é".encode("latin-1"))]):
        with pytest.raises(MissingCsrfToken):
            access.admit([*with_cookie, *wrong], "POST")
    token = (b"x-csrf-token", session.csrf_token.encode())
    assert access.admit([*with_cookie, token], "POST").name == "ada"


async def test_the_csrf_token_of_another_session_does_not_help(access: Access, admin: Principal) -> None:
    await access.users.create("ada", "a long password", Role.MANAGER, admin)
    cookie, _ = await access.sign_in("ada", "a long password", "192.0.2.1")
    _, other = await access.sign_in("ada", "a long password", "192.0.2.1")
    given = headers(cookie=f"ostler_session={cookie}", x_csrf_token=other.csrf_token)
    with pytest.raises(MissingCsrfToken):
        access.admit(given, "DELETE")


async def test_a_session_ends_by_time_by_a_change_and_by_removal(
    access: Access, admin: Principal, box: SettingsBox, clock: HeldClock
) -> None:
    box.use(host="0.0.0.0")
    user = await access.users.create("ada", "a long password", Role.USER, admin)

    async def sign_in() -> list[tuple[bytes, bytes]]:
        cookie, _ = await access.sign_in("ada", "a long password", "192.0.2.1")
        given = headers(cookie=f"ostler_session={cookie}")
        assert access.admit(given).name == "ada"
        return given

    timed = await sign_in()
    clock.pass_s(8 * 86_400)
    with pytest.raises(Unauthenticated):
        access.admit(timed)
    changed = await sign_in()
    await access.users.update(user.id, admin, role=Role.MANAGER)
    with pytest.raises(Unauthenticated):
        access.admit(changed)
    removed = await sign_in()
    await access.users.delete(user.id, admin)
    with pytest.raises(Unauthenticated):
        access.admit(removed)


async def test_a_forged_cookie_is_nobody(access: Access, admin: Principal, box: SettingsBox) -> None:
    await access.users.create("ada", "a long password", Role.ADMIN, admin)
    cookie, _ = await access.sign_in("ada", "a long password", "192.0.2.1")
    box.use(host="0.0.0.0")
    body, _, signature = cookie.rpartition(".")
    forged = [
        f"{body}.",
        f"x{body}.{signature}",
        f".{signature}",
        body,
        "é.é",
        f"{body}.{signature[:-1]}x",
        "x" * 5000,
    ]
    for value in forged:
        with pytest.raises(Unauthenticated):
            access.admit(headers(cookie=f"ostler_session={value}"))


def test_odd_headers_are_read_without_harm() -> None:
    odd = [
        (b"authorization", b"Basic dXNlcjpwYXNz"),
        (b"authorization", b""),
        (b"cookie", b"ostler_session=\xff\xfe; ;;=;"),
        (b"api-key", b"  "),
    ]
    found = read_credentials(odd)
    assert found.token is None and found.csrf_token is None
