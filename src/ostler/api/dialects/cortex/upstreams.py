"""Upstreams: everything that requests may be sent to, with the registry of names that lead there.

Ours are the running engines and the servers elsewhere; a person enters and takes out only the latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path

from ostler.api.dialects.base import Refused
from ostler.api.dialects.cortex.door import CortexBody, router
from ostler.api.dialects.cortex.words import EMBED, GENERATE, plain_task, task_of
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import Conflict, Invalid, NotFound
from ostler.core.principals import Role
from ostler.core.states import InstanceState
from ostler.upstreams.pools import Member
from ostler.usage.engine_numbers import EngineNumbers

routes = router("upstreams")

ServedName = Annotated[str, Path(max_length=300)]


class EntryIn(CortexBody):
    """A name, and the server elsewhere that serves it."""

    served_name: str
    url: str
    task: str = "generate"
    engine_type: str = "vllm"


class RefreshIn(CortexBody):
    """Which servers to look at; all where none is named."""

    urls: list[str] | None = None


class OwnModel(Conflict):
    """The name is that of a model of this server."""

    hint = "It leaves the registry when it is stopped."


@routes.get("/admin/upstreams", **needs(Role.ADMIN))
async def list_upstreams(rooms: Rooms) -> dict[str, Any]:
    """Every server that requests may be sent to, with its health, its breaker and what it serves."""
    now, members = rooms.clock.now().timestamp(), rooms.pools.members
    meta = {member.url: _meta(member) for member in members}
    health = {m.url: {"ok": bool(m.healthy), "ts": _ts(m)} for m in members if m.healthy is not None}
    breakers = {
        member.url: {"fail": member.breaker.failures, "open_until": _open_until(member, now)}
        for member in members
    }
    for one in await rooms.numbers.read(rooms.instances.views()):
        url = _url_of(rooms, one)
        if url is not None:
            meta[url] = _meta_of_ours(rooms, one)
            health[url] = {"ok": True, "ts": now}
            breakers[url] = {"fail": 0, "open_until": 0.0}
    return {
        "circuit_breakers": breakers,
        "health": health,
        "meta": meta,
        "registry": _registry(rooms),
        "lb_index": {},
        "now": now,
        "health_ttl_sec": max(30.0, 3 * rooms.settings.current.upstream_poll_s),
    }


@routes.post("/admin/upstreams/refresh-health", **needs(Role.ADMIN))
async def refresh_health(rooms: Rooms, body: RefreshIn | None = None) -> dict[str, Any]:
    """Look at the servers elsewhere now; only at those that are known."""
    asked = {url.rstrip("/") for url in (body.urls if body and body.urls else ())}
    await rooms.pools.look(asked or None)
    results = [_result(member) for member in rooms.pools.members if not asked or member.url in asked]
    known = {result["url"] for result in results}
    ours = {url for one in rooms.instances.views() if one.state is InstanceState.RUNNING and (url := one.url)}
    results += [
        {"url": url, "status": "up" if url in ours else "unknown", "elapsed_sec": None}
        for url in sorted((asked or ours) - known)
    ]
    return {"results": results}


@routes.get("/admin/models/registry", **needs(Role.ADMIN))
async def list_registry(rooms: Rooms) -> dict[str, Any]:
    """Every name that requests are routed by now."""
    return _registry(rooms)


@routes.post("/admin/models/registry", **needs(Role.ADMIN))
async def add_entry(rooms: Rooms, who: Who, body: EntryIn) -> dict[str, str]:
    """Enter a name of a server elsewhere, or change where it leads."""
    task = EMBED if body.task.lower().startswith(EMBED) else body.task or GENERATE
    if not body.served_name.strip() or not body.url.strip():
        raise Refused("invalid_registry_entry", "an entry needs a served_name and a url")
    try:
        await rooms.externals.add(body.served_name, body.url, body.engine_type, task, who, replace=True)
    except (Invalid, NotFound) as error:
        raise Refused("invalid_registry_entry", error.message, hint=error.hint) from error
    return {"status": "ok"}


@routes.delete("/admin/models/registry/{served_name:path}", **needs(Role.ADMIN))
async def remove_entry(rooms: Rooms, who: Who, served_name: ServedName) -> dict[str, str]:
    """Take an entry out. Raises OwnModel, ExternalNotFound."""
    if rooms.models.find(served_name) is not None:
        raise OwnModel(f"{served_name} is a model of this server", model=served_name)
    await rooms.externals.remove(served_name, who)
    return {"status": "ok"}


def _registry(rooms: Services) -> dict[str, Any]:
    """Names in order: those of servers elsewhere, and over them those of the engines that run here."""
    found = {name: (m.url, m.task, m.engine) for m in rooms.pools.members for name in m.names}
    for view in rooms.instances.views():
        if view.state is InstanceState.RUNNING and view.url is not None:
            found[view.model_name] = (view.url, _task_of(rooms, view.model_name), view.engine)
    return {
        name: {
            "url": url,
            "task": task,
            "engine_type": engine,
            "request_defaults_json": None,
            "vllm_v1_enabled": None,
        }
        for name, (url, task, engine) in sorted(found.items())
    }


def _meta(member: Member) -> dict[str, Any]:
    """What is known of a server elsewhere."""
    history = [
        {
            "ts": probe.at.timestamp(),
            "ok": probe.ok,
            "latency_ms": round(probe.latency_s * 1000),
            "status_code": probe.status,
        }
        for probe in member.history
    ]
    last: Mapping[str, Any] = history[-1] if history else {}
    return {
        "last_status_code": last.get("status_code"),
        "last_latency_ms": last.get("latency_ms"),
        "last_ok_ts": next((look["ts"] for look in reversed(history) if look["ok"]), None),
        "last_fail_ts": next((look["ts"] for look in reversed(history) if not look["ok"]), None),
        "consecutive_fails": next(
            (n for n, look in enumerate(reversed(history)) if look["ok"]), len(history)
        ),
        "history": history,
        "served_names": sorted(member.names),
        "models": sorted(member.told),
        "category": member.task,
        "breaker": {
            "state": {"closed": "CLOSED", "open": "OPEN", "half_open": "HALF_OPEN"}[member.breaker.state],
            "cooldown_remaining_sec": round(member.breaker.retry_after_s, 3),
            "consecutive_fails": member.breaker.failures,
        },
        "tokens_per_sec": None,
    }


def _meta_of_ours(rooms: Services, one: EngineNumbers) -> dict[str, Any]:
    """What is known of an engine that runs here; its keeper watches it, so there is no history of looks."""
    prompt, generation = one.prompt_tokens_per_second, one.generation_tokens_per_second
    return {
        "last_status_code": 200,
        "last_latency_ms": None,
        "last_ok_ts": rooms.clock.now().timestamp(),
        "last_fail_ts": None,
        "consecutive_fails": 0,
        "history": [],
        "served_names": [one.model_name],
        "models": [one.model_name],
        "category": _task_of(rooms, one.model_name),
        "breaker": {"state": "CLOSED", "cooldown_remaining_sec": 0.0, "consecutive_fails": 0},
        "tokens_per_sec": None if prompt is None else {"prompt": prompt, "generation": generation},
    }


def _url_of(rooms: Services, one: EngineNumbers) -> str | None:
    """Where its engine listens; None where it shares another's, or does not run."""
    view = rooms.instances.view(one.model_id)
    return view.url if one.state is InstanceState.RUNNING and view.shares is None else None


def _task_of(rooms: Services, name: str) -> str:
    model = rooms.models.find(name)
    return plain_task(task_of(model)) if model is not None else GENERATE


def _ts(member: Member) -> float:
    return member.history[-1].at.timestamp()


def _open_until(member: Member, now: float) -> float:
    return now + member.breaker.retry_after_s if member.breaker.retry_after_s > 0 else 0.0


def _result(member: Member) -> dict[str, Any]:
    probe = member.history[-1] if member.history else None
    if probe is None or probe.status is None:
        return {"url": member.url, "status": "error", "elapsed_sec": None}
    word = "up" if probe.ok else f"err:{probe.status}"
    return {"url": member.url, "status": word, "elapsed_sec": probe.latency_s}
