"""The life of one model's instance, step by step: begin, load, look after, fail, end.

One task per active model takes these steps, comparing what was asked with what is. A transition is
committed with its event before the act that it announces, so a crash never leaves a lie.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from ostler.core.errors import Busy, OstlerError
from ostler.core.states import DesiredState, InstanceState
from ostler.instances import admission, failures, orders
from ostler.instances.errors import NoRoom, StartFailed, WillNotFit
from ostler.instances.house import House
from ostler.instances.leases import Endpoint
from ostler.instances.orders import Attempt, GuestsThen, StopOrder
from ostler.instances.provision import provide_and_place
from ostler.instances.restarts import backoff_s
from ostler.instances.sharing import Sharer
from ostler.instances.standing import FILES, ROOM, SYSTEM_ACTOR
from ostler.instances.store import Note
from ostler.instances.views import Failure, StartCause
from ostler.instances.waiting import Turn, Watch, Watched, wait_until_ready
from ostler.models.index import ModelNotFound
from ostler.models.sources import ModelFileGone
from ostler.runtimes.base import RuntimeAway

log = logging.getLogger(__name__)

PORT_TRIES = 3
REFUSAL_SILENCE_S = 60.0
_WHY = {
    StartCause.PERSON: "asked for by a person",
    StartCause.DEMAND: "asked for by a request",
    StartCause.AUTO: "started with the server",
}


class Life(Sharer):
    """The steps. What may be asked of it is in `Keeper`."""

    def __init__(self, model_id: int, house: House) -> None:
        super().__init__(model_id, house)
        self._task: asyncio.Task[None] | None = None
        self._refused = ("", 0.0)

    def _go_on(self) -> None:
        self._bell.ring()
        if self._task is None:
            self._task = asyncio.create_task(self._live(), name=f"keeper of model {self.model_id}")

    def _begin_stop(self, order: StopOrder) -> asyncio.Future[None]:
        """From this moment on it takes no new requests, and its task ends it."""
        if self._stop is not None:
            self._stop.now = self._stop.now or order.now
            self._stop.desired = order.desired or self._stop.desired
            self._stop.cuts_requests = self._stop.cuts_requests or order.cuts_requests
            self._stop.guests = max(self._stop.guests, order.guests)
        else:
            self._stop = order
            self._withdraw()
        if order.guests is not GuestsThen.GO_ON:
            self._withdraw_guests()
        self._go_on()
        return self._stop.done

    async def _live(self) -> None:
        try:
            while True:
                state = self.record.state if self.record else InstanceState.STOPPED
                if self._stop is not None:
                    await self._end_or_leave(self._stop)
                elif self.host is not None:
                    await self._be_guest()
                elif state is InstanceState.LOADING:
                    await self._load()
                elif state is InstanceState.RUNNING:
                    await self._look_after()
                elif self.attempt is not None:
                    await self._begin(self.attempt)
                else:
                    return
        except Exception as error:  # a bug or a broken database: said aloud, never a silent end
            log.exception("the keeper of model %s failed", self.model_id)
            self._break_down(error)
        finally:
            self._task = None

    async def _begin(self, attempt: Attempt) -> None:
        """From an attempt to an engine that loads."""
        house = self._house
        while (wait_s := attempt.not_before - self._now()) > 0:
            await self._bell.wait((), wait_s)
            if self._stop is not None:
                return
        try:
            await self._sweep()
            placed = await self._bell.unless(self._is_asked, provide_and_place(self, attempt))
        except RuntimeAway as error:
            await self._put_off(attempt, error)
            return
        except OstlerError as error:
            await self._refuse(attempt, error)
            return
        attempt.placed.set()
        self.waits_for = None
        try:
            if placed is None or self._stop is not None:
                return
            prepared, self.need, self.launch = placed.prepared, placed.need, placed.launch
            self.cause, self.actor, self.failure, self.drift = attempt.cause, attempt.actor, None, False
            why = "after a fault" if attempt.is_restart else _WHY[attempt.cause]
            note = Note(attempt.actor, why, {"restarts": self.faults.count, "digest": prepared.spec.digest()})
            restarts = self.faults.count
            try:
                self.record = await house.store.begin(prepared.spec, attempt.cause, note, restarts=restarts)
            except ModelNotFound as error:
                self._settle_attempt(error)
                return
            secrets = dict.fromkeys(prepared.spec.secret_env, house.secret.engine_key(self.record.id))
            try:
                handle = await prepared.runtime.launch(
                    prepared.spec, instance_id=self.record.id, secrets=secrets
                )
            except OstlerError as error:
                await self._fail(failures.explain_error(error))
                return
            note = Note(attempt.actor, "the engine was created", {})
            await self._move(InstanceState.LOADING, note, handle=handle)
        finally:
            self._give_place_back()

    def _stand_again_in_line(self) -> None:
        """What the start asks for has changed while it waits, if it does."""
        if self.attempt is not None and self.attempt.ways:
            self._house.scheduler.change(admission.candidate(self.model, self.attempt.ways, self.attempt))

    async def _put_off(self, attempt: Attempt, error: RuntimeAway) -> None:
        """Who waits is told at once; what the server itself starts is tried until the runtime is back."""
        await self._refuse(attempt, error)
        if attempt.is_restart and self._stop is None:
            self.failure = failures.explain_error(error)
            self.attempt = attempt.again(self._now() + error.retry_after_s)

    async def _load(self) -> None:
        """From an engine that loads to one that is ready, or failed."""
        record, watched, began = self._must_record(), self._watched(), self._now()
        limit_s = self.model.policy.start_timeout_s or self._house.settings().start_timeout_s
        turn, seen = await wait_until_ready(watched, self._bell, self._is_asked, limit_s)
        if turn is Turn.ASKED:
            return
        if turn is Turn.READY:
            load_s = round(self._now() - began, 3)
            note = Note(
                record.actor, "the engine said ready", {"load_seconds": load_s, "pid": seen and seen.pid}
            )
            ready_at = self._house.clock.now()
            await self._move(InstanceState.RUNNING, note, ready_at=ready_at, load_seconds=load_s)
            self.observed = seen
            self._open()
            self._house.experience.note_ready(record.id, self.launch, self.need, load_s)
            return
        failure = await failures.explain(watched, turn, seen, when="while loading", limit=limit_s)
        await self._fail(failure, port_taken=seen is not None and seen.port_taken)

    def _open(self) -> None:
        """Requests may come."""
        record, house = self._must_record(), self._house
        _, handle = house.runtime_of(record)
        self.failure = None
        self.endpoint = Endpoint(
            record.id,
            handle.url,
            house.secret.engine_key(record.id),
            engine=record.spec.engine,
            served_name=house.engine_of(record).served_name(record.spec),
            time=house.clock,
            limit=self.model.policy.max_concurrency,
            on_release=self._released,
            on_broken=self._suspect,
        )
        self.ready_since = self.endpoint.last_used
        house.routes.publish(self.model_id, self.endpoint)
        self._settle_attempt()
        self._open_guests()
        house.scheduler.poke()

    async def _look_after(self) -> None:
        """Watch a running engine until something has to be done, and do it."""
        watched = self._watched()
        self._watch = watch = Watch(watched, self._bell, self._idle_at, self._is_serving, self._saw)
        try:
            await self._bell.unless(self._is_asked, self._learn_context(watched))
            turn, seen = await watch.until_needed(self._is_asked)
        finally:
            self._watch = None
        if turn is Turn.IDLE:
            idle_at = self._idle_at()
            if idle_at is not None and self._now() >= idle_at:  # no request came in the last moment
                idle_s = self.idle_timeout_s() or 0.0
                order = StopOrder(f"no request for {idle_s:g} s", SYSTEM_ACTOR, kind="instance.idle")
                order.data = {"idle_s": idle_s}
                self._begin_stop(order)
        elif turn is not Turn.ASKED:
            self._withdraw()
            self._withdraw_guests()
            probes = watch.failed_probes
            await self._fail(await failures.explain(watched, turn, seen, when="while serving", limit=probes))

    async def _learn_context(self, watched: Watched) -> None:
        endpoint, probe_s = self.endpoint, self._house.settings().probe_timeout_s
        if endpoint is not None and endpoint.context_length is None:
            endpoint.context_length = await watched.probe.context(
                watched.engine, endpoint.base_url, endpoint.api_key, timeout_s=probe_s
            )
            self._tell_guests_the_context(endpoint)

    async def _fail(self, failure: Failure, *, port_taken: bool = False) -> None:
        """The engine is of no use any more: sweep it, say so, and restart it or give up."""
        record, house, attempt = self._must_record(), self._house, self.attempt
        was_running = record.state is InstanceState.RUNNING
        served = self._in_flight()
        self._withdraw()
        self._withdraw_guests()
        await house.experience.forget(record.id)
        await self._sweep()
        data: dict[str, Any] = {
            "exit_code": failure.exit_code,
            "oom_killed": failure.oom_killed,
            "in_flight": served,
        }
        if failure.diagnosis:
            data["diagnosis"] = failure.diagnosis
        self.failure, self.observed = failure, None
        await self._move(InstanceState.FAILED, Note(SYSTEM_ACTOR, failure.reason, data), failure=failure)
        self._give_place_back()
        if self._stop is not None:
            return
        settings, policy = house.settings(), self.model.policy
        if attempt is not None and port_taken and attempt.tries < PORT_TRIES:
            attempt.tries += 1
            return
        healthy_s = self._now() - self.ready_since if was_running else None
        faults = self.faults.note(healthy_s=healthy_s, reset_s=settings.restart_reset_s)
        limit = settings.restart_limit if policy.restart_limit is None else policy.restart_limit
        may_restart = was_running or attempt is None or attempt.is_restart
        if may_restart and faults <= limit:
            grown_s = backoff_s(faults, settings.restart_backoff_s)
            wait_s = grown_s if policy.restart_delay_s is None else policy.restart_delay_s
            await self._plan_restart(wait_s, faults, limit)
            return
        self.faults.block_demand(self._now(), settings.restart_backoff_s)
        given_up = StartFailed(record.spec.model_name, failure)
        self._settle_attempt(given_up)
        self._lose_guests(given_up, failure)

    async def _plan_restart(self, wait_s: float, faults: int, limit: int) -> None:
        if self.attempt is None:
            self.attempt = Attempt(self.cause, SYSTEM_ACTOR)
        if self.attempt.cause is not StartCause.PERSON:
            self.attempt.cause = self.cause
        self.attempt.is_restart, self.attempt.tries = True, 0
        self.attempt.not_before = self._now() + wait_s
        reason = f"restart {faults} of {limit} in {wait_s:g} s"
        await self._tell("instance.restarting", reason, {"wait_s": wait_s, "restarts": faults})

    async def _refuse(self, attempt: Attempt, error: OstlerError) -> None:
        """A start that came to nothing before there was an engine.

        One that a person asked for is over. One that should run waits for room, and shows why.
        """
        said, at = self._refused
        if said != error.message or self._now() - at > REFUSAL_SILENCE_S:
            self._refused = (error.message, self._now())
            facts = {key: value for key, value in error.facts.items() if key != "model"}
            await self._tell("instance.refused", error.message, {"code": error.code, **facts}, attempt.actor)
        is_fileless = isinstance(error, ModelFileGone)
        keeps_wish = is_fileless and attempt.awaits_files
        while attempt.is_new_wish and not keeps_wish:  # another wish may join while this one is taken back
            attempt.is_new_wish = False
            await self._house.models.set_desired(self.model_id, DesiredState.STOPPED, ignored=frozenset())
        is_auto = attempt.is_restart and self.model.policy.auto_start
        should_run = is_auto or self.model.desired_state is DesiredState.RUNNING
        waits_for = FILES if is_fileless else ROOM if isinstance(error, WillNotFit | NoRoom) else None
        self.waits_for = waits_for if should_run else None
        if self.waits_for is not None or not isinstance(error, Busy):
            self.failure = failures.explain_error(error)
        self._settle_attempt(error)
        self._lose_guests(error, self.failure)

    def _break_down(self, error: Exception) -> None:
        """Our own code failed: what is true now is not known, and that is what is said."""
        self._withdraw()
        if self.record is not None:
            self.record = replace(self.record, state=InstanceState.FAILED)
            self._house.experience.lose(self.record.id)
        self.failure = Failure(
            f"Ostler itself failed: {error!r}", hint="See the server's log; then start it."
        )
        self._settle_attempt(error)
        self._lose_guests(error, self.failure)
        stop, self._stop = self._stop, None
        if stop is not None:
            orders.settle(stop.done, error)
        self._house.scheduler.release(self.model_id)
