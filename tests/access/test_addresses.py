"""From where a key may be used, and what a proxy may say about that."""

from __future__ import annotations

import pytest

from ostler.access.key_records import KeyDisabled, WrongAddress
from ostler.access.service import Access
from ostler.core.errors import InvalidField
from ostler.core.principals import Principal, Role
from tests.access.conftest import SettingsBox


def headers(token: str, forwarded: str | None = None) -> list[tuple[bytes, bytes]]:
    found = [(b"authorization", f"Bearer {token}".encode()), (b"host", b"localhost")]
    return [*found, (b"x-forwarded-for", forwarded.encode())] if forwarded else found


async def make(access: Access, admin: Principal, *addresses: str) -> str:
    _, token = await access.keys.create("office", Role.USER, admin, addresses=addresses)
    return token


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7", "2001:db8::5"])
async def test_a_key_works_from_its_addresses_and_networks(
    access: Access, admin: Principal, peer: str
) -> None:
    token = await make(access, admin, "10.0.0.0/8", "192.0.2.7", "2001:db8::/32")
    assert access.admit(headers(token), "GET", peer).name == "office"


@pytest.mark.parametrize("peer", ["11.0.0.1", "192.0.2.8", "::1", "", None, "unix:"])
async def test_from_elsewhere_it_does_not(access: Access, admin: Principal, peer: str | None) -> None:
    token = await make(access, admin, "10.0.0.0/8", "192.0.2.7")
    with pytest.raises(WrongAddress):
        access.admit(headers(token), "GET", peer)


async def test_an_invented_header_opens_nothing(access: Access, admin: Principal) -> None:
    token = await make(access, admin, "10.0.0.0/8")
    with pytest.raises(WrongAddress):
        access.admit(headers(token, "10.0.0.1"), "GET", "203.0.113.9")


async def test_behind_a_trusted_proxy_the_last_foreign_hop_counts(
    access: Access, admin: Principal, box: SettingsBox
) -> None:
    token = await make(access, admin, "10.0.0.0/8")
    box.use(trusted_proxies=("127.0.0.1", "172.16.0.0/12"))
    assert access.admit(headers(token, "9.9.9.9, 10.0.0.1, 172.16.0.3"), "GET", "127.0.0.1")
    with pytest.raises(WrongAddress):
        access.admit(headers(token, "10.0.0.1, 9.9.9.9"), "GET", "127.0.0.1")
    with pytest.raises(WrongAddress):
        access.admit(headers(token, "10.0.0.1"), "GET", "203.0.113.9")


@pytest.mark.parametrize("address", ["10.0.0.1/8", "host.example", "", "10.0.0.0/40"])
async def test_what_is_no_address_is_refused(access: Access, admin: Principal, address: str) -> None:
    with pytest.raises(InvalidField, match="no address"):
        await make(access, admin, address)


async def test_a_key_that_is_switched_off_is_kept_and_does_not_work_until_it_is_on_again(
    access: Access, admin: Principal
) -> None:
    key, token = await access.keys.create("ci", Role.USER, admin)
    await access.keys.switch("ci", admin, disabled=True)
    with pytest.raises(KeyDisabled):
        access.authenticate(token)
    await access.keys.refresh()
    with pytest.raises(KeyDisabled):
        access.authenticate(token)
    assert [one.id for one in (await access.keys.list(disabled=True)).items] == [key.id]
    await access.keys.switch("ci", admin, disabled=False)
    assert access.authenticate(token).key_id == key.id


async def test_scopes_are_those_that_exist(access: Access, admin: Principal) -> None:
    _, token = await access.keys.create("c", Role.USER, admin, scopes=["chat", "embeddings", "chat"])
    assert access.authenticate(token).scopes == frozenset({"chat", "embeddings"})
    _, everything = await access.keys.create("e", Role.USER, admin, scopes=["*"])
    assert access.authenticate(everything).scopes is None
    with pytest.raises(InvalidField, match="unknown scope 'chats'"):
        await access.keys.create("w", Role.USER, admin, scopes=["chats"])
