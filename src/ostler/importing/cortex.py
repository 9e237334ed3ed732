"""Taking over what Cortex keeps: organisations, people, keys, models, routes, recipes, conversations."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from ostler.access.key_records import KeyNameTaken, KeyNotFound, Owner
from ostler.access.names import check_name
from ostler.access.organisations import OrganisationNotFound
from ostler.access.service import Access
from ostler.access.users import UserNotFound
from ostler.chats.service import ChatNotFound, Chats, Said, owner_named
from ostler.core.comma_lists import comma_list
from ostler.core.errors import InvalidField
from ostler.core.principals import Principal, Role
from ostler.importing.cortex_database import Row, Tables, read_tables
from ostler.importing.report import Outcome, Report, Told
from ostler.models.names import name_like
from ostler.models.recipes import RecipeNameTaken, Recipes
from ostler.models.records import NewModel
from ostler.models.service import Models
from ostler.upstreams.entries import Externals

NewModelOf = Callable[[dict[str, Any]], Awaitable[NewModel]]
"""Makes the record of a row of Cortex's table `models`. Raises InvalidField and the like."""

Ids = dict[int, int]
"""Our ids by Cortex's; in a dry run, Cortex's own stand for those that would be made."""


class CortexImport:
    """Takes over a whole Cortex; what was taken before is passed over."""

    def __init__(
        self,
        access: Access,
        models: Models,
        recipes: Recipes,
        chats: Chats,
        externals: Externals,
    ) -> None:
        self._access = access
        self._models = models
        self._recipes = recipes
        self._chats = chats
        self._externals = externals

    async def take(
        self, database_url: str, new_model_of: NewModelOf, principal: Principal, *, dry_run: bool = False
    ) -> Report:
        """Read Cortex's database and take what is in it. Needs the role admin.

        Every model is stopped afterwards. Raises InvalidField, DatabaseUnreachable, NotAllowed.
        """
        principal.require(Role.ADMIN, "import another system's database")
        tables = await read_tables(database_url)
        taking = _Taking(self, new_model_of, Report(dry_run), principal)
        return await taking.all(tables)


class _Taking:
    """One import that goes on."""

    def __init__(
        self, rooms: CortexImport, new_model_of: NewModelOf, report: Report, principal: Principal
    ) -> None:
        self._access = rooms._access
        self._models = rooms._models
        self._recipes = rooms._recipes
        self._chats = rooms._chats
        self._externals = rooms._externals
        self._new_model_of = new_model_of
        self._report = report
        self._principal = principal
        self._orgs: Ids = {}
        self._users: Ids = {}
        self._model_names: set[str] = set()

    async def all(self, tables: Tables) -> Report:
        for row in tables["organizations"]:
            await self._report.take("organisation", row.get("name"), self._organisation(row))
        for row in tables["users"]:
            await self._report.take("person", row.get("username"), self._user(row))
        for row in tables["api_keys"]:
            await self._report.take("key", row.get("prefix"), self._key(row))
        for row in tables["models"]:
            await self._report.take(
                "model", row.get("served_model_name") or row.get("name"), self._model(row)
            )
        values = {str(row.get("key")): row.get("value") for row in tables["config_kv"]}
        own = {row.get("served_model_name") for row in tables["models"]}
        for name, entry in _registry(values.get("model_registry")).items():
            if name not in own:  # those are containers of Cortex, which are not ours
                await self._report.take("upstream", name, self._upstream(name, entry))
        for row in tables["recipes"]:
            await self._report.take("recipe", row.get("name"), self._recipe(row))
        said = _by_chat(tables["chat_messages"])
        for row in tables["chat_sessions"]:
            name = f"{row.get('title')} ({str(row.get('id'))[:8]})"
            await self._report.take("conversation", name, self._chat(row, said.get(str(row.get("id")), [])))
        self._tell_of_the_rest(values, tables)
        return self._report

    async def _organisation(self, row: Row) -> Told:
        rooms, name = self._access.organisations, str(row["name"])
        outcome = Outcome.THERE
        try:
            found = (await rooms.get(name)).id
        except OrganisationNotFound:
            outcome = Outcome.TAKEN
            found = int(row["id"])
            if self._report.dry_run:
                check_name(name, "name")
            else:
                found = (await rooms.create(name, self._principal)).id
        self._orgs[row["id"]] = found
        return outcome, None

    async def _user(self, row: Row) -> Told:
        users, name = self._access.users, str(row["username"])
        try:
            self._users[row["id"]] = (await users.get(name)).id
            return Outcome.THERE, None
        except UserNotFound:
            pass
        role = Role.ADMIN if str(row.get("role")).lower() == "admin" else Role.USER
        password_hash = row.get("password_hash")
        if not password_hash:
            raise InvalidField("password_hash", "this person has no password", hint="Add them by hand.")
        org_id = self._orgs.get(row.get("org_id") or 0)
        disabled = row.get("status") not in (None, "active")
        if self._report.dry_run:
            users.check_taking_over(name, password_hash)
            self._users[row["id"]] = row["id"]
        else:
            made = await users.take_over(
                name, password_hash, role, self._principal, org_id=org_id, disabled=disabled
            )
            self._users[row["id"]] = made.id
        return Outcome.TAKEN, "switched off, as there" if disabled else None

    async def _key(self, row: Row) -> Told:
        prefix = str(row["prefix"])
        name = f"cortex {prefix}"
        try:
            await self._access.keys.get(name)
            return Outcome.THERE, None
        except KeyNotFound:
            pass
        scopes, addresses = comma_list(row.get("scopes")), comma_list(row.get("ip_allowlist"))
        user, org = row.get("user_id") or 0, row.get("org_id") or 0
        owner = Owner(self._users.get(user), self._orgs.get(org))
        try:
            await self._access.keys.take_over(
                name,
                prefix,
                str(row["hash"]),
                self._principal,
                owner=owner,
                scopes=scopes,
                addresses=addresses or None,
                expires_at=row.get("expires_at"),
                last_used_at=row.get("last_used_at"),
                disabled=bool(row.get("disabled")),
                dry_run=self._report.dry_run,
            )
        except KeyNameTaken:
            return Outcome.THERE, None
        lost = user and owner.user_id is None
        return Outcome.TAKEN, "its person was not taken, so it belongs to nobody" if lost else None

    async def _model(self, row: Row) -> Told:
        new = await self._new_model_of(_model_fields(row))
        notes = []
        if (name := name_like(new.name or "")) != new.name:
            notes.append(f"is called {name} here")
            new = replace(new, name=name)
        if name in self._model_names:
            raise InvalidField("name", "Cortex has two models of this name", hint="Rename one of them there.")
        self._model_names.add(name)
        there = self._models.find(name)
        if there is not None:
            if there.origin != "cortex":
                raise InvalidField("name", f"another model is called {name}", hint="Rename one of them.")
            return Outcome.THERE, None
        if self._report.dry_run:
            await self._models.preview(new, self._principal)
        else:
            made = await self._models.create(new, self._principal)
            if row.get("archived"):
                await self._models.update(made.id, {"archived": True}, self._principal)
        return Outcome.TAKEN, "; ".join(notes) or None

    async def _upstream(self, name: str, entry: Row) -> Told:
        if any(external.name == name for external in self._externals.all()):
            return Outcome.THERE, None
        engine = str(entry.get("engine_type") or "vllm")
        task = "embed" if str(entry.get("task") or "").startswith("embed") else "generate"
        url = str(entry.get("url") or "")
        if self._report.dry_run:
            self._externals.check(name, url, engine, task)
        else:
            await self._externals.add(name, url, engine, task, self._principal)
        return Outcome.TAKEN, None

    async def _recipe(self, row: Row) -> Told:
        found = await self._recipes.list(search=str(row["name"]), limit=1_000)
        if any(recipe.name == row["name"] for recipe in found.items):
            return Outcome.THERE, None
        stored = {**_object(row.get("config_json")), **row, "name": row.get("model_name")}
        fields = {key: value for key, value in stored.items() if key not in _RECIPES_OWN}
        new = await self._new_model_of(_model_fields(fields))
        new = replace(new, name=name_like(new.name or str(row["name"])))
        try:
            if self._report.dry_run:
                await self._models.preview(new, self._principal)
            else:
                description = str(row.get("description") or "")
                await self._recipes.create(str(row["name"]), description, new, self._principal)
        except RecipeNameTaken:
            return Outcome.THERE, None
        return Outcome.TAKEN, None

    async def _chat(self, row: Row, said: list[Row]) -> Told:
        user_id = self._users.get(row.get("user_id") or 0)
        if user_id is None:
            raise InvalidField("user_id", "its person was not taken")
        owner = owner_named(user_id)
        try:
            await self._chats.get(owner, str(row["id"]))
            return Outcome.THERE, None
        except ChatNotFound:
            pass
        if not self._report.dry_run:
            await self._chats.create(
                owner,
                str(row.get("model_name") or ""),
                str(row.get("engine_type") or "vllm"),
                constraints=_object(row.get("constraints_json")) or None,
                title=str(row.get("title") or ""),
                said=[_said(message) for message in said],
                chat_id=str(row["id"]),
                created_at=row.get("created_at"),
            )
        return Outcome.TAKEN, None

    def _tell_of_the_rest(self, values: Mapping[str, Any], tables: Tables) -> None:
        if folder := values.get("models_base_dir"):
            note = "the folder of models is the setting models_dir; set it to where they are here"
            self._report.add("setting", f"models_base_dir {folder}", Outcome.REFUSED, note)
        if rows := tables["usage_rows"][0]["count"]:
            note = "the past is not taken; keep Cortex's database for it"
            self._report.add("usage", f"{rows:,} requests", Outcome.REFUSED, note)


_RECIPES_OWN = frozenset({"description", "model_name", "model_id", "config_json"})


def _model_fields(row: Row) -> dict[str, Any]:
    """The row as a body that makes a model: what is set, with the JSON of the GPUs read."""
    fields = {key: value for key, value in row.items() if value is not None}
    if isinstance(fields.get("selected_gpus"), str):
        try:
            fields["selected_gpus"] = json.loads(fields["selected_gpus"])
        except ValueError:
            del fields["selected_gpus"]
    return {"mode": "offline" if fields.get("local_path") else "online", **fields}


def _registry(text: Any) -> dict[str, Row]:
    """Entries by served name; what is none is passed over."""
    return {name: entry for name, entry in _object(text).items() if isinstance(entry, Mapping)}


def _object(text: Any) -> dict[str, Any]:
    """An object that is stored as JSON in a text; an empty one where it is none."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return {}
    return dict(value) if isinstance(value, Mapping) else {}


def _by_chat(messages: Any) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for message in messages:
        found.setdefault(str(message.get("session_id")), []).append(message)
    return found


def _said(row: Row) -> Said:
    at: datetime | None = row.get("created_at")
    metrics = _object(row.get("metrics_json")) or None
    return Said(str(row.get("role")), str(row.get("content") or ""), metrics, at)
