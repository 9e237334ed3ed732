"""Taking over what llamactl keeps: instances, keys for inference and for management, and settings."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ostler.access.foreign import UNMARKED
from ostler.access.key_records import KeyNotFound
from ostler.access.service import Access
from ostler.core.clock import Clock
from ostler.core.errors import InvalidField
from ostler.core.live_settings import LiveSettings
from ostler.core.principals import Principal, Role
from ostler.core.settings import environment_names
from ostler.importing.llamactl_files import Found, Row, read_llamactl
from ostler.importing.report import Outcome, Report, Told
from ostler.models.names import name_from
from ostler.models.records import NewModel
from ostler.models.service import Models

NewModelOf = Callable[[str, Mapping[str, Any]], NewModel]
"""Makes the record of an instance's name and options. Raises InvalidField, Unsupported."""

ORIGIN = "llamactl"
_PLAIN = re.compile(r"[^A-Za-z0-9._@+ -]+")
_BACKENDS = {"llama_cpp": "llama-cpp", "vllm": "vllm"}
_PROGRAMS = {"llama-cpp": ("llama-server", "llama_server_command"), "vllm": ("vllm", "vllm_command")}
_YES = ("true", "1", "yes", "on")


class LlamactlImport:
    """Takes over a whole llamactl; what was taken before is passed over."""

    def __init__(self, access: Access, models: Models, settings: LiveSettings, clock: Clock) -> None:
        self._access = access
        self._models = models
        self._settings = settings
        self._clock = clock

    async def take(
        self,
        config: Path | None,
        database: Path | None,
        environ: Mapping[str, str],
        new_model_of: NewModelOf,
        principal: Principal,
        *,
        dry_run: bool = False,
    ) -> Report:
        """Read its files and take what is in them; every instance is stopped here. Needs the role admin.

        `environ` are the variables that llamactl ran with. Raises NotLlamactl, NotAllowed.
        """
        principal.require(Role.ADMIN, "import another system's database")
        found = await read_llamactl(config, database, environ)
        taking = _Taking(self, found, new_model_of, Report(dry_run), principal)
        return await taking.all()


class _Taking:
    """One import that goes on."""

    def __init__(
        self,
        rooms: LlamactlImport,
        found: Found,
        new_model_of: NewModelOf,
        report: Report,
        principal: Principal,
    ) -> None:
        self._access, self._models = rooms._access, rooms._models
        self._settings, self._clock = rooms._settings, rooms._clock
        self._found = found
        self._new_model_of = new_model_of
        self._report = report
        self._principal = principal
        self._model_ids: dict[int, int] = {}

    async def all(self) -> Report:
        tables = self._found.tables
        for row in tables["instances"]:
            await self._report.take("model", row.get("name"), self._instance(row))
        allowed: dict[int, list[int]] = {}
        for row in tables["key_permissions"]:
            allowed.setdefault(int(row["key_id"]), []).append(int(row["instance_id"]))
        for row in tables["api_keys"]:
            await self._report.take("key", row.get("name"), self._key(row, allowed.get(int(row["id"]), [])))
        for key in _texts(self._found.get("auth", "management_keys")):
            name = f"llamactl management {hashlib.sha256(key.encode()).hexdigest()[:8]}"
            await self._report.take("management key", name, self._management_key(name, key))
        for name, value in _settings(self._found).items():
            await self._report.take("setting", name, self._setting(name, value))
        self._tell_of_the_rest()
        return self._report

    async def _instance(self, row: Row) -> Told:
        options = _object(row.get("options_json"), "options_json")
        nodes = options.pop("nodes", None) or []
        local = self._found.get("local_node") or "main"
        if nodes and local not in nodes:
            raise InvalidField("nodes", f"it runs on the node {nodes[0]}", hint="Import it there.")
        given, name = str(row["name"]), name_from(str(row["name"]))
        notes = [f"is called {name} here"] if name != given else []
        there = self._models.find(name)
        if there is not None:
            if there.origin != ORIGIN:
                raise InvalidField("name", f"another model is called {name}", hint="Rename one of them.")
            self._model_ids[int(row["id"])] = there.id
            return Outcome.THERE, None
        new = self._new_model_of(name, self._with_backend(options, notes))
        if new.extra_args:
            flags = " ".join(part for part in new.extra_args if part.startswith("-"))
            notes.append(f"options that are not known here are passed on as they are: {flags}")
        if row.get("status") == "running":
            notes.append(f"it ran there; start it with: ostler start {name}")
        if self._report.dry_run:
            await self._models.preview(new, self._principal, files_may_come=True)
            self._model_ids[int(row["id"])] = int(row["id"])
        else:
            made = await self._models.create(new, self._principal, files_may_come=True)
            self._model_ids[int(row["id"])] = made.id
        return Outcome.TAKEN, "; ".join(notes) or None

    def _with_backend(self, options: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
        """An instance's options with what the configuration says for all of its backend."""
        backend = _BACKENDS.get(str(options.get("backend_type")), "")
        environment = _environment(self._found.get("backends", backend, "environment"))
        merged = dict(options)
        if environment:
            merged["environment"] = {**environment, **(options.get("environment") or {})}
        if merged.get("docker_enabled") is None and _is_true(
            self._found.get("backends", backend, "docker", "enabled")
        ):
            merged["docker_enabled"] = True
        if args := [arg for arg in _words(self._found.get("backends", backend, "args")) if arg != "serve"]:
            notes.append(f"arguments of its backend are not taken: {' '.join(args)}")
        return merged

    async def _key(self, row: Row, instances: list[int]) -> Told:
        name = f"llamactl {row['id']} {_PLAIN.sub('-', str(row['name'])).strip()}"[:100].strip()
        try:
            await self._access.keys.get(name)
            return Outcome.THERE, None
        except KeyNotFound:
            pass
        expires_at = _time(row.get("expires_at"))
        if expires_at is not None and expires_at <= self._clock.now():
            raise InvalidField("expires_at", "it has expired")
        models, note = None, None
        if row.get("permission_mode") == "per_instance":
            ids = sorted(self._model_ids[number] for number in instances if number in self._model_ids)
            if len(ids) < len(instances):
                note = "it may use only those of its instances that were taken"
            models = tuple(f"#{number}" for number in ids)
        await self._access.keys.take_over(
            name,
            UNMARKED,
            str(row["key_hash"]),
            self._principal,
            models=models,
            expires_at=expires_at,
            last_used_at=_time(row.get("last_used_at")),
            dry_run=self._report.dry_run,
        )
        return Outcome.TAKEN, note

    async def _management_key(self, name: str, key: str) -> Told:
        is_new = await self._access.keys.take_over_secret(
            name, key, Role.ADMIN, self._principal, dry_run=self._report.dry_run
        )
        return (Outcome.TAKEN, "with the role admin") if is_new else (Outcome.THERE, None)

    async def _setting(self, name: str, value: Any) -> Told:
        if getattr(self._settings.current, name) == value:
            return Outcome.THERE, f"is {value}"
        if not self._report.dry_run:
            await self._settings.change({name: value}, self._principal)
        return Outcome.TAKEN, f"is {value}"

    def _tell_of_the_rest(self) -> None:
        """What stands in the configuration and has to be set by hand, or has no meaning here."""
        get = self._found.get
        for backend, (default, setting) in _PROGRAMS.items():
            command = get("backends", backend, "command")
            if command and command != default:
                self._by_hand(f"backends.{backend}.command", setting, command)
        origins = _texts(get("server", "allowed_origins"))
        if origins and origins != ["*"]:
            self._by_hand("server.allowed_origins", "allowed_origins", ",".join(origins))
        for name in ("host", "port"):
            if (value := get("server", name)) is not None:
                self._by_hand(f"server.{name}", name, value)
        if folder := get("backends", "llama-cpp", "cache_dir"):
            note = f"start the server with LLAMACTL_LLAMACPP_CACHE_DIR={shlex.quote(str(folder))}"
            self._report.add("setting", "backends.llama-cpp.cache_dir", Outcome.REFUSED, note)
        nodes = get("nodes")
        for node in sorted(nodes) if isinstance(nodes, Mapping) else ():
            if node != (get("local_node") or "main"):
                note = "this server is one node: import there, and ask each by its own address"
                self._report.add("node", str(node), Outcome.REFUSED, note)
        eviction = get("instances", "enable_lru_eviction")
        if eviction is not None and not _is_true(eviction):
            note = "an idle model always leaves for a new one; pin those that must stay (policy.pinned)"
            self._report.add("setting", "instances.enable_lru_eviction", Outcome.REFUSED, note)

    def _by_hand(self, theirs: str, ours: str, value: Any) -> None:
        told = f"start the server with {environment_names(ours)[0]}={shlex.quote(str(value))}"
        self._report.add("setting", theirs, Outcome.REFUSED, told)


def _settings(found: Found) -> dict[str, Any]:
    """Our settings that the configuration says."""
    values: dict[str, Any] = {}
    for theirs, ours in (("max_instances", "max_models"), ("max_running_instances", "max_running")):
        if (number := _number(found.get("instances", theirs))) is not None:
            values[ours] = max(0, number)
    limits = found.get("instances", "group_limits")
    if isinstance(limits, Mapping) and limits:
        positive = {str(group): _number(limit) for group, limit in sorted(limits.items())}
        values["group_limits"] = ",".join(f"{g}={n}" for g, n in positive.items() if n and n > 0)
    if (minutes := _number(found.get("instances", "default_idle_timeout"))) is not None:
        values["idle_timeout_s"] = float(max(0, minutes) * 60)
    restarts = _number(found.get("instances", "default_max_restarts"))
    automatic = found.get("instances", "default_auto_restart")
    if automatic is not None and not _is_true(automatic):
        restarts = 0
    if restarts is not None:
        values["restart_limit"] = max(0, restarts)
    if (delay := _number(found.get("instances", "default_restart_delay"))) is not None:
        values["restart_backoff_s"] = float(max(0, delay))
    if (wait := _number(found.get("instances", "on_demand_start_timeout"))) is not None and wait > 0:
        values["request_wait_s"] = float(wait)
    return values


def _number(value: Any) -> int | None:
    try:
        return None if value is None or isinstance(value, bool) else int(value)
    except (TypeError, ValueError):
        return None


def _is_true(value: Any) -> bool:
    return value is True or str(value).strip().lower() in _YES


def _texts(value: Any) -> list[str]:
    """A list, or a text with commas."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [text for part in parts if (text := str(part).strip())]


def _words(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [str(part) for part in value or ()]


def _environment(value: Any) -> dict[str, str]:
    """An object, or `K=V,K=V`."""
    if isinstance(value, Mapping):
        return {str(name): str(text) for name, text in value.items()}
    pairs = (part.partition("=") for part in _texts(value))
    return {name: text for name, equals, text in pairs if equals}


def _object(text: Any, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str | bytes) else text
    except (ValueError, RecursionError) as error:
        raise InvalidField(what, f"its {what} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InvalidField(what, f"its {what} is no object")
    return value


def _time(seconds: Any) -> datetime | None:
    try:
        return None if seconds in (None, 0) else datetime.fromtimestamp(int(seconds), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
