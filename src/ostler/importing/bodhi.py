"""Taking over what BodhiApp keeps in its folder: aliases, predefined aliases of one's own, settings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ostler.core.errors import Invalid, InvalidField
from ostler.core.live_settings import LiveSettings
from ostler.core.principals import Principal, Role
from ostler.engines.registry import Engines
from ostler.hub.specs import check_relative, check_repo, check_revision
from ostler.importing.bodhi_home import DATABASE, Unreadable, read_home
from ostler.importing.report import Outcome, Report, Told, reason_of
from ostler.library.service import Library
from ostler.models.alias_params import (
    AT_NEXT_REQUEST,
    CONTEXT,
    CONTEXT_PARAMS,
    REQUEST,
    REQUEST_PARAMS,
    shown,
    to_ours,
)
from ostler.models.names import name_like
from ostler.models.predefined import SHIPPED, PredefinedAlias, read_entry, read_file
from ostler.models.records import Model, NewModel, Source
from ostler.models.service import Models

ORIGIN = "bodhi"
ENGINE = "llamacpp"


_AT_START = {
    "BODHI_HOST": "OSTLER_HOST",
    "BODHI_PORT": "OSTLER_PORT",
    "BODHI_LOG_LEVEL": "OSTLER_LOG_LEVEL",
}
"""Settings that are read when the server starts, by the variables that set them here."""


class BodhiImport:
    """Takes over BodhiApp's folder; what was taken before is passed over."""

    def __init__(self, models: Models, engines: Engines, library: Library, settings: LiveSettings) -> None:
        self._models = models
        self._engines = engines
        self._library = library
        self._settings = settings

    async def take(self, home: Path, principal: Principal, *, dry_run: bool = False) -> Report:
        """Read the folder, which is not changed, and take what is in it. Needs the role admin.

        Raises NotBodhiHome, NotAllowed.
        """
        principal.require(Role.ADMIN, "import another system's files")
        found = await asyncio.to_thread(read_home, home)
        report = Report(dry_run)
        for file, content in found.aliases.items():
            await report.take("alias", _name_in(content) or file, self._alias(content, principal, dry_run))
        await self._predefined(found.models, report)
        for key, value in sorted(_settings(found.settings, report).items()):
            await report.take("setting", key, self._setting(key, value, principal, dry_run))
        if found.has_database:
            note = "its tokens, people and downloads are not taken; make tokens anew"
            report.add("database", DATABASE, Outcome.REFUSED, note)
        return report

    async def _alias(self, content: Any, principal: Principal, dry_run: bool) -> Told:
        new, notes = await self._new_model(_object(content))
        there = self._models.find(new.name or "")
        if there is not None:
            if not _is_same(there, new):
                raise InvalidField("alias", f"another model is called {new.name}", hint="Rename one of them.")
            return Outcome.THERE, None
        if dry_run:
            await self._models.preview(new, principal)
        else:
            await self._models.create(new, principal)
        return Outcome.TAKEN, "; ".join(notes) or None

    async def _new_model(self, alias: Mapping[str, Any]) -> tuple[NewModel, list[str]]:
        """The record of an alias's file, and what a person should know of it."""
        name, repo, file = (_text(alias, key) for key in ("alias", "repo", "filename"))
        if not name:
            raise InvalidField("alias", "the file does not say what the alias is called")
        snapshot = _text(alias, "snapshot") or "main"
        source = Source(
            "hub", repo=check_repo(repo), file=check_relative(file), revision=check_revision(snapshot)
        )
        notes = [] if name_like(name) == name else [f"is called {name_like(name)} here"]
        if await self._library.find(repo=repo, file=file, revision=snapshot) is None:
            notes.append(f"its file is not here; fetch it with: ostler pull {source.label}")
        options, extra, ignored = self._context(alias.get(CONTEXT))
        notes += [f"left out, as Ostler decides it: {' '.join(ignored)}"] if ignored else []
        new = NewModel(
            source,
            name=name_like(name),
            engine=ENGINE,
            options=options,
            extra_args=extra,
            request_defaults=to_ours(REQUEST_PARAMS, alias.get(REQUEST), REQUEST, bounded=False),
            origin=ORIGIN,
            policy=AT_NEXT_REQUEST,
            dialect_data={ORIGIN: {"snapshot": snapshot}},
        )
        return new, notes

    def _context(self, given: Any) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
        """Options, more arguments, and what is not taken of them.

        BodhiApp's file has an object of parameters, or (later versions) a list of llama-server's arguments.
        """
        if not isinstance(given, list):
            return to_ours(CONTEXT_PARAMS, given, CONTEXT, bounded=False), (), ()
        words = " ".join(line for line in given if isinstance(line, str)).split()
        if not words:
            return {}, (), ()
        parsed = self._engines.get(ENGINE).options.parse_command(["llama-server", *words])
        return dict(parsed.options), parsed.extra_args, parsed.ignored

    async def _predefined(self, content: Any, report: Report) -> None:
        """The entries of models.yaml go to the predefined aliases, if their file is not a person's own."""
        kind = "predefined alias"
        if content is None:
            return
        if isinstance(content, Unreadable) or not isinstance(content, list):
            why = content.reason if isinstance(content, Unreadable) else "is no list"
            report.add(kind, "models.yaml", Outcome.REFUSED, f"the file {why}")
            return
        settings = self._settings.current
        target = settings.effective_predefined_file
        known = {alias.name: alias for alias in (*SHIPPED, *await asyncio.to_thread(read_file, target))}
        taken: list[Any] = []
        for number, entry in enumerate(content, 1):
            try:
                alias = read_entry(entry)
            except Invalid as error:
                report.add(kind, f"entry {number}", Outcome.REFUSED, reason_of(error))
                continue
            outcome, note = _place(alias, known, is_own_file=settings.predefined_aliases_file is not None)
            if outcome is Outcome.TAKEN:
                known[alias.name] = alias
                taken.append(entry)
            report.add(kind, alias.name, outcome, note)
        if taken and not report.dry_run:
            await asyncio.to_thread(_append, target, taken)

    async def _setting(self, key: str, value: Any, principal: Principal, dry_run: bool) -> Told:
        current = self._settings.current
        if key == "BODHI_KEEP_ALIVE_SECS":
            seconds = _keep_alive(value)
            if current.idle_timeout_s == seconds:
                return Outcome.THERE, None
            if not dry_run:
                await self._settings.change({"idle_timeout_s": seconds}, principal)
            return Outcome.TAKEN, f"is idle_timeout_s = {seconds} here"
        if key == "HF_HOME":
            if _cache_in(str(value)) == current.hub_cache_dir:
                return Outcome.THERE, None
            raise InvalidField(key, f"the cache here is {current.hub_cache_dir}", hint=_restart(key, value))
        if (variable := _AT_START.get(key)) is not None:
            raise InvalidField(key, "it is read when the server starts", hint=_restart(variable, value))
        raise InvalidField(key, "it has no meaning here")


def _place(alias: PredefinedAlias, known: Mapping[str, PredefinedAlias], *, is_own_file: bool) -> Told:
    there = known.get(alias.name)
    if there is not None and (there.repo, there.file) == (alias.repo, alias.file):
        return Outcome.THERE, None
    if is_own_file:
        return Outcome.REFUSED, "add it to the file that predefined_aliases_file names"
    if there is not None and there not in SHIPPED:
        return Outcome.REFUSED, f"the name stands for {there.spec} here"
    return Outcome.TAKEN, None


def _append(path: Path, entries: list[Any]) -> None:
    """Write the file anew with these entries at its end, in one step. Blocking."""
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(yaml.safe_dump([*(before or []), *entries], sort_keys=False, allow_unicode=True))
    draft.replace(path)


def _is_same(model: Model, new: NewModel) -> bool:
    assert isinstance(new.source, Source)
    return model.origin == ORIGIN and (model.source.repo, model.source.file) == (
        new.source.repo,
        new.source.file,
    )


def _name_in(content: Any) -> str:
    name = content.get("alias") if isinstance(content, Mapping) else None
    return name if isinstance(name, str) else ""


def _text(alias: Mapping[str, Any], key: str) -> str:
    value = alias.get(key) or ""
    if not isinstance(value, str):
        raise InvalidField(key, f"{key} must be a text, not {shown(value)}")
    return value


def _object(content: Any) -> Mapping[str, Any]:
    if isinstance(content, Unreadable):
        raise InvalidField("alias", f"the file {content.reason}")
    if not isinstance(content, Mapping):
        raise InvalidField("alias", "the file holds no alias")
    return content


def _settings(content: Any, report: Report) -> Mapping[str, Any]:
    if isinstance(content, Unreadable):
        report.add("setting", "settings.yaml", Outcome.REFUSED, f"the file {content.reason}")
    if not isinstance(content, Mapping):
        return {}
    # What is nested is no setting of BodhiApp's, and written out it might never end.
    plain = {key: value if isinstance(value, str | int | float) else None for key, value in content.items()}
    return {key: value for key, value in plain.items() if isinstance(key, str)}


def _keep_alive(value: Any) -> int:
    """Seconds without a request; never (-1) is 0 here. Raises InvalidField."""
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        raise InvalidField("BODHI_KEEP_ALIVE_SECS", f"{shown(value)} is no number of seconds")
    if value == 0:
        raise InvalidField(
            "BODHI_KEEP_ALIVE_SECS",
            "models cannot leave after each request by a setting",
            hint="Clients send keep_alive: 0, or set idle_timeout_s to a few seconds.",
        )
    return max(0, value)


def _cache_in(hf_home: str) -> Path:
    return Path(hf_home).expanduser() / "hub"


def _restart(variable: str, value: Any) -> str:
    return f"Start the server with {variable}={str(value)[:200]}."
