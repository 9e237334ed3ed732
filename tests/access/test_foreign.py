"""Keys and passwords of another system, of which only bcrypt hashes are known."""

from __future__ import annotations

import asyncio
import hashlib

import bcrypt
import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, text

from ostler.access.foreign import UNMARKED, is_foreign_hash
from ostler.access.key_records import KeyDisabled, KeyNameTaken, Owner
from ostler.access.service import Access, UnknownKey
from ostler.access.tables import KeyRow, UserRow
from ostler.access.users import WrongPassword
from ostler.core.database import Database
from ostler.core.errors import InvalidField, Unauthenticated
from ostler.core.events import EventLog
from ostler.core.migrate import upgrade
from ostler.core.principals import SYSTEM, Role
from ostler.core.secrets import ServerSecret
from tests.access.conftest import HeldClock, MakeAccess, SettingsBox
from tests.core.schema import make_schema

TOKEN = "AbCdEf12" + "x" * 32


def hashed(secret: str) -> str:
    return bcrypt.hashpw(secret.encode(), bcrypt.gensalt(4)).decode()


async def take_over(access: Access, token: str = TOKEN, **more: object) -> None:
    await access.keys.take_over(f"cortex {token[:8]}", token[:8], hashed(token), SYSTEM, **more)  # type: ignore[arg-type]


async def use(access: Access, token: str) -> str:
    headers = [(b"authorization", f"Bearer {token}".encode())]
    if access.has_foreign_keys:
        await access.recognise(headers)
    return access.admit(headers).name


async def test_a_foreign_key_works_and_becomes_one_of_ours_at_its_first_use(
    access: Access, box: SettingsBox, database: Database, make_access: MakeAccess
) -> None:
    box.use(host="0.0.0.0")
    await take_over(access, owner=Owner(), scopes=["chat"])
    assert access.has_foreign_keys is True
    assert await asyncio.gather(*(use(access, TOKEN) for _ in range(3))) == ["cortex AbCdEf12"] * 3
    assert access.keys.has_foreign is False
    async with database.read() as session:
        row = (await session.scalars(select(KeyRow))).one()
    assert row.foreign_hash is None and len(row.sha256) == 64 and row.scopes == ["chat"]
    assert await use(await make_access(), TOKEN) == "cortex AbCdEf12"


async def test_keys_of_which_only_argon2_hashes_are_known_are_found_among_many(
    access: Access, box: SettingsBox
) -> None:
    box.use(host="0.0.0.0")
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    tokens = [f"llamactl-{number:064x}" for number in range(3)]
    for number, token in enumerate(tokens):
        await access.keys.take_over(
            f"old {number}", UNMARKED, hasher.hash(token), SYSTEM, models=(f"#{number}",)
        )
    assert await use(access, tokens[1]) == "old 1"
    assert await use(access, tokens[0]) == "old 0"
    with pytest.raises(UnknownKey):
        await use(access, f"llamactl-{9:064x}")
    before = access.keys.has_foreign
    assert await use(access, tokens[2]) == "old 2"
    assert (before, access.keys.has_foreign) == (True, False)
    found = access.keys.principal_of(tokens[2])
    assert found is not None and found.models == ("#2",) and found.role is Role.USER


async def test_a_key_that_is_known_in_clear_is_stored_once(access: Access, box: SettingsBox) -> None:
    box.use(host="0.0.0.0")
    token = "llamactl-mgmt-" + "a" * 64
    assert await access.keys.take_over_secret("old", token, Role.ADMIN, SYSTEM) is True
    assert await access.keys.take_over_secret("again", token, Role.ADMIN, SYSTEM) is False
    assert await use(access, token) == "old"
    with pytest.raises(InvalidField):
        await access.keys.take_over_secret("short", "secret", Role.ADMIN, SYSTEM)


def test_hashes_that_would_take_too_much_memory_are_none() -> None:
    rest = "$c29tZXNhbHRzb21lc2FsdA$YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo"
    assert is_foreign_hash(f"$argon2id$v=19$m=65536,t=1,p=4{rest}")
    assert not is_foreign_hash(f"$argon2id$v=19$m=9999999,t=1,p=4{rest}")
    assert not is_foreign_hash(f"$argon2i$v=19$m=65536,t=1,p=4{rest}")


async def test_other_keys_with_the_same_beginning_are_refused_and_change_nothing(
    access: Access, box: SettingsBox
) -> None:
    box.use(host="0.0.0.0")
    await take_over(access)
    for wrong in (TOKEN[:-1] + "y", TOKEN[:8], "AbCdEf12", "Z" * 40, TOKEN + "x", "foreign:AbCdEf12"):
        with pytest.raises(Unauthenticated):
            await use(access, wrong)
    assert access.has_foreign_keys and await use(access, TOKEN)


async def test_a_foreign_key_that_is_switched_off_or_revoked_does_not_work(
    access: Access, box: SettingsBox
) -> None:
    box.use(host="0.0.0.0")
    await take_over(access, disabled=True)
    with pytest.raises(KeyDisabled):
        await use(access, TOKEN)
    await access.keys.revoke("cortex AbCdEf12", SYSTEM)
    with pytest.raises(UnknownKey):
        await use(access, TOKEN)
    await take_over(access)
    await access.keys.revoke("cortex AbCdEf12", SYSTEM)
    assert not access.has_foreign_keys
    with pytest.raises(UnknownKey):
        await use(access, TOKEN)


async def test_what_is_no_foreign_key_is_refused(access: Access) -> None:
    await take_over(access)
    with pytest.raises(KeyNameTaken):
        await take_over(access)
    with pytest.raises(InvalidField):
        await access.keys.take_over("a", "AbCdEf12", "no hash", SYSTEM)
    with pytest.raises(InvalidField):
        await access.keys.take_over("a", "AbC", hashed(TOKEN), SYSTEM)


async def test_a_foreign_password_works_and_is_kept_as_ours_after_the_first_sign_in(
    access: Access, database: Database
) -> None:
    secret = "short"  # other systems allowed it
    await access.users.take_over("ada", hashed(secret), Role.ADMIN, SYSTEM)
    with pytest.raises(WrongPassword):
        await access.users.verify("ada", "wrong")
    assert (await access.users.verify("ada", secret)).role is Role.ADMIN
    async with database.read() as session:
        row = (await session.scalars(select(UserRow))).one()
    assert row.password_hash.startswith("$argon2")
    assert (await access.users.verify("ada", secret)).name == "ada"
    with pytest.raises(InvalidField):
        await access.users.take_over("eve", "plain text", Role.USER, SYSTEM)


async def test_a_foreign_person_who_is_switched_off_does_not_come_in(access: Access) -> None:
    await access.users.take_over("ada", hashed("secret"), Role.USER, SYSTEM, disabled=True)
    with pytest.raises(WrongPassword):
        await access.users.verify("ada", "secret")


async def test_a_key_of_an_earlier_database_goes_on(
    database_url: str, clock: HeldClock, box: SettingsBox
) -> None:
    box.use(host="0.0.0.0")
    database = Database(database_url)
    await make_schema(database, "0005")
    token = "ostler-" + "y" * 43
    digest = hashlib.sha256(token.encode()).hexdigest()
    async with database.write() as session:
        await session.execute(
            text(
                "INSERT INTO keys (id, name, prefix, sha256, role, limits, created_at, created_by, disabled)"
                f" VALUES (1, 'old', 'ostler-yyyy', '{digest}', 'user', '{{}}',"
                " '2026-01-01 00:00:00+00:00', 'x', FALSE)"
            )
        )
    await upgrade(database)
    access = Access(database, EventLog(database, clock), clock, ServerSecret(b"s" * 32), box)
    await access.start()
    assert await use(access, token) == "old" and access.has_foreign_keys is False
    await access.close()
    await database.close()
