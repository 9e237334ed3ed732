"""What runs: start, stop and apply, the dry run, logs, readiness and a test of a model.

Cortex's web pages ask for a dry run themselves and start right after it, whatever it said, and know no
way to say it again; so a start here is refused for errors, and its answer carries the warnings. A client
that wants to be asked sends `confirm=false` first. The state that is told is the real one: a start that
has begun is `starting` or `loading`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from time import perf_counter
from typing import Annotated, Any

from fastapi import Query

from ostler.api.dialects.base import Refused
from ostler.api.dialects.cortex.diagnosis import diagnosis_out, summary_out
from ostler.api.dialects.cortex.door import router
from ostler.api.dialects.cortex.dry_run import dry_run_view
from ostler.api.dialects.cortex.fields import VLLM
from ostler.api.dialects.cortex.models import ModelIn, found, in_cortex_words, new_model, place_of
from ostler.api.dialects.cortex.words import EMBED, Id, task_of
from ostler.api.door import needs
from ostler.api.estimates import estimate_of
from ostler.api.services import Rooms, Services, Who
from ostler.api.shapes import hide_args, hide_env
from ostler.core.errors import Conflict, Kind, NotFound, OstlerError
from ostler.core.findings import Category, Finding, Severity
from ostler.core.principals import Principal, Role
from ostler.core.states import InstanceState
from ostler.instances.dry_runs import MISSING, NO_IMAGE, NO_RUNTIME
from ostler.instances.errors import StartBlocked
from ostler.instances.looking_ahead import IGNORABLE
from ostler.instances.views import DryRun, InstanceView
from ostler.models.index import ModelNotFound
from ostler.models.records import Model

routes = router("models")

LOG_LINES = 1_000
CHAT_TIMEOUT_S, EMBED_TIMEOUT_S = 120.0, 10.0
MOST_OF_AN_ERROR = 500
HELLO = "Hello"
NO_TEMPLATE = "default chat template is no longer allowed"
"""What vLLM says of a chat with a model that has no template for it; completions need none."""
_LOADING = (InstanceState.STARTING, InstanceState.LOADING)


Override = Annotated[bool, Query(description="Start it also where errors say that it will fail.")]
Confirm = Annotated[
    bool | None,
    Query(description="false: answer warnings with 409 and start nothing. true: they were read."),
]


class Unconfirmed(Conflict):
    """The dry run warns, and the client wanted to be asked. `findings` are the warnings."""

    hint = "Read them, then repeat the request with confirm=true."


class NoModelToTest(NotFound):
    """There is no model to try out."""


class CannotRunHere(StartBlocked):
    """The image of the engine is not here and may not be fetched, or the daemon does not answer."""

    kind = Kind.OFFLINE


@routes.post("/admin/models/dry-run", **needs(Role.ADMIN))
async def dry_run_unsaved(rooms: Rooms, who: Who, body: ModelIn) -> dict[str, Any]:
    """The dry run of a model that is not made yet."""
    with in_cortex_words(body.engine_type or VLLM):
        new = await new_model(rooms, body.model_dump(exclude_unset=True))
        model = await rooms.models.preview(new, who)
    return await _dry_run(rooms, model)


@routes.post("/admin/models/{model_id}/dry-run", **needs(Role.ADMIN))
async def dry_run(rooms: Rooms, model_id: Id) -> dict[str, Any]:
    """What would run, what is known to be wrong with it, and the memory that it would take."""
    return await _dry_run(rooms, found(rooms, model_id))


@routes.post("/admin/models/{model_id}/start", **needs(Role.ADMIN))
async def start_model(
    rooms: Rooms, who: Who, model_id: Id, override: Override = False, confirm: Confirm = None
) -> dict[str, Any]:
    """Begin to start it, unless the dry run finds an error; the answer says the state that it has now.

    The files of an online model are fetched first: until they are here it is stopped and its reason says so.
    """
    model = found(rooms, model_id)
    ignore = IGNORABLE if override else frozenset()
    warnings = await _look_first(rooms, who, model, ignore, confirm)
    view = await rooms.instances.start(model.id, who, wait=False, ignore=ignore, awaits_files=True)
    return {"status": view.state.value, **_place(rooms, model, view), "warnings": warnings}


@routes.post("/admin/models/{model_id}/stop", **needs(Role.ADMIN))
async def stop_model(rooms: Rooms, who: Who, model_id: Id) -> dict[str, str]:
    """Stop it; answered when its engine is gone."""
    view = await rooms.instances.stop(found(rooms, model_id).id, who)
    return {"status": view.state.value}


@routes.post("/admin/models/{model_id}/apply", **needs(Role.ADMIN))
async def apply_changes(
    rooms: Rooms, who: Who, model_id: Id, override: Override = False, confirm: Confirm = None
) -> dict[str, Any]:
    """Stop it and start it as its record is now, also where it was stopped; `state` is the one it has now."""
    model = found(rooms, model_id)
    ignore = IGNORABLE if override else frozenset()
    warnings = await _look_first(rooms, who, model, ignore, confirm)
    if rooms.instances.view(model.id).state.is_active:
        view = await rooms.instances.restart(model.id, who, wait=False, ignore=ignore)
        place = {**_place(rooms, model, view), "port": None}  # of the engine that leaves
    else:
        view = await rooms.instances.start(model.id, who, wait=False, ignore=ignore, awaits_files=True)
        place = _place(rooms, model, view)
    return {"status": "applied", "state": view.state.value, **place, "warnings": warnings}


@routes.get("/admin/models/{model_id}/logs", **needs(Role.ADMIN))
async def read_logs(rooms: Rooms, model_id: Id, diagnose: bool = False) -> Any:
    """The last lines of its engine's log as one text; with `diagnose`, also what they mean."""
    model = found(rooms, model_id)
    lines = [line.rstrip("\n") async for line in rooms.instances.logs(model.id, tail=LOG_LINES)]
    text = "\n".join(lines)
    if not diagnose:
        return text
    view, engine = rooms.instances.view(model.id), rooms.engines.get(model.engine)
    failure = view.failure or {}
    diagnosis = diagnosis_out(
        engine,
        lines,
        has_failed=view.state is InstanceState.FAILED,
        exit_code=failure.get("exit_code"),
        oom_killed=bool(failure.get("oom_killed")),
    )
    state = {"logs": text, "diagnosis": diagnosis, "state": view.state.value, "state_reason": view.reason}
    return {**state, "summary": summary_out(engine, lines)}


@routes.get("/admin/models/{model_id}/readiness", **needs(Role.ADMIN))
async def show_readiness(rooms: Rooms, model_id: Id) -> dict[str, str | None]:
    """Whether it answers requests. Asking changes nothing: its keeper knows."""
    view = rooms.instances.view(found(rooms, model_id).id)
    if view.state is InstanceState.RUNNING:
        status = "ready"
    elif view.state in _LOADING:
        status = "loading"
    else:
        status = "error" if view.state is InstanceState.FAILED else "stopped"
    return {"status": status, "detail": view.reason or view.state.value}


@routes.post("/admin/models/{model_id}/test", **needs(Role.ADMIN))
async def test_model(rooms: Rooms, model_id: Id) -> dict[str, Any]:
    """Ask the running model something small, and show what it says."""
    try:
        model = found(rooms, model_id)
    except ModelNotFound as error:
        raise NoModelToTest(error.message, hint=error.hint, model=model_id) from None
    began, at = perf_counter(), datetime.now(UTC)
    path, body, timeout_s = _question(model)
    trial = await rooms.instances.try_out(model.id, path, body, timeout_s=timeout_s)
    if trial is not None and trial.error is not None and NO_TEMPLATE in trial.error:
        path = "/v1/completions"
        body = {**{name: value for name, value in body.items() if name != "messages"}, "prompt": HELLO}
        trial = await rooms.instances.try_out(model.id, path, body, timeout_s=timeout_s)
    if trial is None:
        state = rooms.instances.view(model.id).state.value
        raise Refused("model_not_running", f"{model.name} is {state}", hint="Start it first.")
    return {
        "success": trial.error is None,
        "test_type": "embeddings" if path.endswith("embeddings") else "chat",
        "request": body,
        "response": trial.answer,
        "error": trial.error[:MOST_OF_AN_ERROR] if trial.error else None,
        "latency_ms": round((perf_counter() - began) * 1000),
        "timestamp": at.timestamp(),
    }


def _question(model: Model) -> tuple[str, dict[str, Any], float]:
    if task_of(model).startswith(EMBED):
        return "/v1/embeddings", {"model": model.name, "input": "test"}, EMBED_TIMEOUT_S
    hello = [{"role": "user", "content": HELLO}]
    body = {"model": model.name, "messages": hello, "max_tokens": 50, "temperature": 0.7}
    return "/v1/chat/completions", body, CHAT_TIMEOUT_S


def _place(rooms: Services, model: Model, view: InstanceView) -> dict[str, Any]:
    place = place_of(rooms, model, view)
    return {"container": place["container_name"], "port": place["port"]}


async def _look_first(
    rooms: Services, who: Principal, model: Model, ignore: frozenset[str], confirm: bool | None
) -> list[dict[str, Any]]:
    """What the dry run warns of. The files of an online model begin to be fetched.

    Raises StartBlocked, CannotRunHere, Refused where a local file is gone, and Unconfirmed.
    """
    run = await rooms.instances.dry_run(model.id, ignore=ignore)
    findings = _findings(model, run)
    errors = [finding for finding in findings if finding.is_error]
    if errors:
        raise _blocked(model, errors)
    warnings = [finding for finding in findings if finding.severity is Severity.WARNING]
    if warnings and confirm is False:
        said = "; ".join(finding.message for finding in warnings)
        raise Unconfirmed(
            f"a start of {model.name} is to be confirmed: {said}",
            model=model.name,
            findings=[finding.to_json() for finding in warnings],
        )
    if findings != run.findings:
        await rooms.downloads.pull(model.source.label, principal=who, for_model=model.id)
    return [_warning(finding) for finding in findings]


def _blocked(model: Model, errors: list[Finding]) -> OstlerError:
    """The refusal of a start with Cortex's status: 400 where files are gone, 503 without image or daemon."""
    blocked = StartBlocked(model.name, errors)
    first = errors[0].code
    if first in MISSING:
        return Refused("local_path_not_found", blocked.message, hint=blocked.hint, **blocked.facts)
    return CannotRunHere(model.name, errors) if first in (NO_IMAGE, NO_RUNTIME) else blocked


def _findings(model: Model, run: DryRun) -> tuple[Finding, ...]:
    """What the dry run found; that the files of an online model are not here yet is no error."""
    if model.source.kind != "hub":
        return run.findings
    message = f"the files of {model.name} ({model.source.label}) are not here yet"
    fix = "A start fetches them, and goes on by itself when they are here."
    title = "Its files are fetched first"
    fetched = Finding("fetched_first", Severity.INFO, Category.CONFIG, title, message, fix=fix)
    return tuple(fetched if finding.code in MISSING else finding for finding in run.findings)


async def _dry_run(rooms: Services, model: Model) -> dict[str, Any]:
    run = await rooms.instances.dry_run(model)
    told = _told(rooms, model)
    estimate, files = await estimate_of(rooms, model, told) or (None, None)
    findings = _findings(model, run)
    view = dry_run_view(
        hide_args(list(run.argv)),
        findings,
        estimate,
        parameter_count=files.facts.parameters if files and files.facts else None,
        options=told,
        gets_room=run.fits is not False,
        fetches_first=findings != run.findings,
    )
    return {
        **view,
        "would_stop": list(run.would_stop),
        "chosen": [dict(line) for line in run.chosen],
        "image": (run.spec or {}).get("image"),
        "environment": hide_env(run.env),
    }


def _told(rooms: Services, model: Model) -> dict[str, Any]:
    """Every engine option that is set, also as an argument or a variable."""
    return rooms.engines.get(model.engine).options.told(model.options, model.extra_args, model.env)


def _warning(finding: Finding) -> dict[str, Any]:
    shown = finding.to_json()
    return {name: shown[name] for name in ("code", "severity", "category", "title", "message", "fix")}
