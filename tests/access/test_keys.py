"""Keys: made once, shown once, kept as a hash, gone at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from ostler.access.key_records import KeyExpired, KeyNameTaken, KeyNotFound
from ostler.access.names import may_use
from ostler.access.service import Access, UnknownKey
from ostler.core.database import Database
from ostler.core.errors import InvalidField, NotAllowed
from ostler.core.events import EventLog
from ostler.core.principals import Limits, Principal, Role
from tests.access.conftest import HeldClock, MakeAccess, SettingsBox


async def test_a_key_stands_for_its_name_role_models_and_limits(access: Access, admin: Principal) -> None:
    limits = Limits(requests_per_minute=60, concurrency=2)
    key, token = await access.keys.create("ci", Role.USER, admin, models=("qwen*",), limits=limits)
    who = access.authenticate(token)
    assert (who.name, who.role, who.key_id, who.models, who.limits) == (
        "ci",
        Role.USER,
        key.id,
        ("qwen*",),
        limits,
    )


async def test_two_keys_are_never_alike_and_have_the_documented_shape(
    access: Access, admin: Principal
) -> None:
    tokens = [(await access.keys.create(f"k{n}", Role.USER, admin))[1] for n in range(5)]
    assert len(set(tokens)) == 5
    assert all(token.startswith("ostler-") and len(token) == 50 for token in tokens)


async def test_the_key_itself_is_nowhere_in_the_database_or_the_events(
    access: Access, admin: Principal, database: Database, events: EventLog
) -> None:
    key, token = await access.keys.create("ci", Role.ADMIN, admin)
    async with database.connect() as connection:
        rows = [str(row) for row in await connection.execute(text("SELECT * FROM keys"))]
        rows += [str(row) for row in await connection.execute(text("SELECT * FROM events"))]
    assert rows and not any(token in row or token[11:] in row for row in rows)
    assert token.startswith(key.prefix) and len(key.prefix) < 12


async def test_a_revoked_key_stops_working_at_once_even_on_loopback(access: Access, admin: Principal) -> None:
    key, token = await access.keys.create("ci", Role.USER, admin)
    await access.keys.revoke(key.id, admin)
    with pytest.raises(UnknownKey):
        access.authenticate(token)
    with pytest.raises(KeyNotFound):
        await access.keys.get("ci")


async def test_a_key_revoked_on_one_server_is_unknown_to_another_after_its_refresh(
    make_access: MakeAccess, admin: Principal
) -> None:
    first, second = await make_access(), await make_access()
    key, token = await first.keys.create("ci", Role.USER, admin)
    await second.keys.refresh()
    assert second.authenticate(token).name == "ci"
    await first.keys.revoke(key.id, admin)
    await second.keys.refresh()
    with pytest.raises(UnknownKey):
        second.authenticate(token)


async def test_an_expired_key_is_refused_even_on_loopback(
    access: Access, admin: Principal, clock: HeldClock
) -> None:
    _, token = await access.keys.create(
        "ci", Role.USER, admin, expires_at=clock.now() + timedelta(seconds=60)
    )
    assert access.authenticate(token).name == "ci"
    clock.pass_s(60)
    with pytest.raises(KeyExpired):
        access.authenticate(token)


async def test_the_last_use_of_a_key_is_written_in_batches_and_shown_before(
    access: Access, admin: Principal, clock: HeldClock, make_access: MakeAccess
) -> None:
    key, token = await access.keys.create("ci", Role.USER, admin)
    assert key.last_used_at is None
    access.authenticate(token)
    assert (await access.keys.get(key.id)).last_used_at == clock.now()
    other = await make_access()
    assert (await other.keys.get(key.id)).last_used_at is None
    await access.keys.write_used()
    assert (await other.keys.get(key.id)).last_used_at == clock.now()


async def test_closing_writes_the_last_use(
    make_access: MakeAccess, admin: Principal, clock: HeldClock
) -> None:
    access, other = await make_access(), await make_access()
    key, token = await access.keys.create("ci", Role.USER, admin)
    access.authenticate(token)
    await access.close()
    assert (await other.keys.get(key.id)).last_used_at == clock.now()


async def test_a_name_is_given_once_and_is_free_again_after_revoking(
    access: Access, admin: Principal
) -> None:
    await access.keys.create("ci", Role.USER, admin)
    with pytest.raises(KeyNameTaken):
        await access.keys.create("ci", Role.USER, admin)
    await access.keys.revoke("ci", admin)
    await access.keys.create("ci", Role.USER, admin)


@pytest.mark.parametrize("name", ["", " a", "a\n", "12", "../x", "x" * 101, "\0"])
async def test_a_bad_name_is_refused(access: Access, admin: Principal, name: str) -> None:
    with pytest.raises(InvalidField):
        await access.keys.create(name, Role.USER, admin)


@pytest.mark.parametrize(
    "limits", [{"rpm": 1}, {"concurrency": 0}, {"concurrency": True}, {"requests_per_minute": "5"}]
)
async def test_bad_limits_are_refused(access: Access, admin: Principal, limits: dict[str, object]) -> None:
    with pytest.raises(InvalidField):
        await access.keys.create("ci", Role.USER, admin, limits=limits)


async def test_an_expiry_in_the_past_is_refused(access: Access, admin: Principal, clock: HeldClock) -> None:
    with pytest.raises(InvalidField):
        await access.keys.create("ci", Role.USER, admin, expires_at=clock.now() - timedelta(days=1))


async def test_only_administrators_make_and_revoke_keys(
    access: Access, admin: Principal, manager: Principal
) -> None:
    with pytest.raises(NotAllowed):
        await access.keys.create("mine", Role.ADMIN, manager)
    key, _ = await access.keys.create("ci", Role.USER, admin)
    with pytest.raises(NotAllowed):
        await access.keys.revoke(key.id, manager)


async def test_keys_are_listed_in_pages_and_searched(access: Access, admin: Principal) -> None:
    for name in ("b", "a", "c", "ci"):
        await access.keys.create(name, Role.USER, admin)
    page = await access.keys.list(limit=2, offset=1)
    assert ([key.name for key in page.items], page.total) == (["b", "c"], 4)
    assert [key.name for key in (await access.keys.list(search="C", sort="id")).items] == ["c", "ci"]
    with pytest.raises(InvalidField):
        await access.keys.list(sort="sha256")


async def test_the_first_key_is_made_once_and_only_where_others_can_reach_the_server(
    access: Access, box: SettingsBox
) -> None:
    assert await access.ensure_first_admin_key() is None
    box.use(host="0.0.0.0")
    token = await access.ensure_first_admin_key()
    assert token is not None and access.authenticate(token).role is Role.ADMIN
    assert await access.ensure_first_admin_key() is None


async def test_no_first_key_where_an_administrator_can_sign_in(
    access: Access, box: SettingsBox, admin: Principal
) -> None:
    await access.users.create("ada", "a long password", Role.ADMIN, admin)
    box.use(host="0.0.0.0")
    assert await access.ensure_first_admin_key() is None


def test_an_allow_list_matches_any_name_of_a_model_case_by_case() -> None:
    who = Principal("ci", Role.USER, models=("qwen*", "org/*:Q4_K_M"))
    assert may_use(who, "qwen3-8b") and may_use(who, "other", "org/repo:Q4_K_M")
    assert not may_use(who, "Qwen3") and not may_use(who, "my-qwen")
    assert not may_use(Principal("none", Role.USER, models=()), "qwen")
    assert may_use(Principal("all", Role.USER), "anything")
