"""How it stands with one model's instance: read by everybody, written by its keeper alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from ostler.core.states import DesiredState, InstanceState
from ostler.fit.need import Need
from ostler.instances.experience import Launch
from ostler.instances.house import House
from ostler.instances.leases import Endpoint
from ostler.instances.memory import Engine
from ostler.instances.orders import Attempt, GuestsThen, StopOrder
from ostler.instances.plan import Resident
from ostler.instances.restarts import Faults
from ostler.instances.store import Record
from ostler.instances.views import Failure, InstanceView, StartCause
from ostler.models.records import Model
from ostler.runtimes.base import Observed

SYSTEM_ACTOR = "ostler"
ROOM, FILES = "there is room", "they are"
"""What a model that should run may wait for, in the words of its reason."""


class Standing:
    """What is known of one model's instance.

    `record` is the newest launch, as stored. `failure` is why it is `failed`. `claims` counts the
    requests that wait for it. `ready_since` is monotonic. `drift`: what runs differs from the recipe.
    `need` is what its launch needs of each device, `launch` what its footprint is kept under.
    `waits_for`: it should run and was refused, and starts when this is so. `progress` says what is fetched
    for its start. `host` is whose engine it uses, `guests` are those who use its own (`sharing.py`), and
    `share_key` is the same for all launches that one engine can serve. `is_held`: no request may pass until
    it is known what a change of the recipe means.
    """

    def __init__(self, model_id: int, house: House) -> None:
        self.model_id = model_id
        self.record: Record | None = None
        self.cause = StartCause.PERSON
        self.actor = SYSTEM_ACTOR
        self.failure: Failure | None = None
        self.endpoint: Endpoint | None = None
        self.observed: Observed | None = None
        self.attempt: Attempt | None = None
        self.drift = False
        self.claims = 0
        self.faults = Faults()
        self.ready_since = 0.0
        self.need = Need()
        self.launch: Launch | None = None
        self.waits_for: str | None = None
        self.progress: str | None = None
        self.host: Standing | None = None
        self.guests: Sequence[Standing] = []
        self.share_key: str | None = None
        self.is_held = False
        self._house = house
        self._stop: StopOrder | None = None

    @property
    def house(self) -> House:
        """What it works with."""
        return self._house

    @property
    def state(self) -> InstanceState:
        """The state as it is shown.

        A start that waits for its place is `starting`; what takes no requests any more, as its end was asked
        for, is `stopping` also in the moment before that is written down.
        """
        if self.host is not None:
            return InstanceState.STOPPING if self._stop is not None else self.host.engine_state
        if self.record is not None and self.record.state.is_active:
            return InstanceState.STOPPING if self._stop is not None else self.record.state
        if self.attempt is not None and self.attempt.not_before <= self._now():
            return InstanceState.STARTING
        has_failed = self.failure is not None and self.waits_for != FILES
        return InstanceState.FAILED if has_failed else InstanceState.STOPPED

    @property
    def engine_state(self) -> InstanceState:
        """The state for its guests: while it only leaves itself, the engine goes on."""
        record, order = self.record, self._stop
        only_leaves = order is not None and order.guests is GuestsThen.GO_ON
        if only_leaves and record is not None and record.state.is_active:
            return record.state
        return self.state

    @property
    def engine_record(self) -> Record | None:
        """The newest launch of the engine that it uses."""
        return self.host.record if self.host is not None else self.record

    @property
    def has_engine(self) -> bool:
        """True while there is an engine that it uses, in whatever state."""
        record = self.engine_record
        return record is not None and record.state.is_active

    def takes_guests(self, key: str | None) -> bool:
        """True where its engine runs a launch of this key, or is about to, and will go on."""
        is_there = self.attempt is not None or self.has_engine
        return self.host is None and self.share_key == key and self._stop is None and is_there

    @property
    def is_ready(self) -> bool:
        """True while it takes requests."""
        return self.endpoint is not None and not self.endpoint.closed

    @property
    def is_leaving(self) -> bool:
        """True once its end was asked for."""
        return self._stop is not None or self.state is InstanceState.STOPPING

    @property
    def has_served(self) -> bool:
        """True once a request has ended."""
        return self.endpoint is not None and self.endpoint.last_used > self.ready_since

    @property
    def is_busy(self) -> bool:
        """True while it loads, serves, or somebody waits for it."""
        return not self.is_ready or self.claims > 0 or bool(self.endpoint and self.endpoint.in_flight)

    @property
    def is_in_use(self) -> bool:
        """True while it or one of its guests is busy."""
        return self.is_busy or any(guest.is_busy for guest in self.guests)

    @property
    def model(self) -> Model:
        """Its recipe as it is now. Raises ModelNotFound."""
        return self._house.models.get(self.model_id)

    def idle_s(self) -> float:
        """Seconds since the end of the last request, a guest's too; 0 while it serves."""
        return 0.0 if self.is_in_use else round(self._now() - self._last_used(), 3)

    def _last_used(self) -> float:
        """When the last request ended that its engine served; now, where it serves none yet."""
        sharers = (self, *self.guests)
        return max((one.endpoint.last_used for one in sharers if one.endpoint), default=self._now())

    def idle_timeout_s(self) -> float | None:
        """Seconds without a request after which it stops, None for never.

        Only one that was started on demand stops by itself; a pinned one only if it says so itself. 0 is at
        once, as a client may wish.
        """
        model = self._house.models.get(self.model_id)
        if self.cause is not StartCause.DEMAND or model.desired_state is DesiredState.RUNNING:
            return None
        own, settings = model.policy.idle_timeout_s, self._house.settings()
        if own is None and model.policy.pinned:
            return None
        wish = self.endpoint.keep_alive if self.endpoint else None
        if wish is not None and settings.max_keep_alive_s:
            wished_s = wish.within(own, settings.idle_timeout_s, settings.max_keep_alive_s)
            return None if math.isinf(wished_s) else wished_s
        return (settings.idle_timeout_s if own is None else own) or None

    def resident(self) -> Resident | None:
        """What the planner sees of it; None while it holds no place."""
        record = self.record
        if record is None or not record.state.is_active:
            return None
        policies = [one.model.policy for one in (self, *self.guests)]
        return Resident(
            model_id=self.model_id,
            model_name=self.model.name,
            is_leaving=self.is_leaving,
            is_busy=self.is_in_use,
            may_leave=all(not policy.pinned and policy.on_demand for policy in policies),
            idle_since=self._last_used(),
            priority=max(policy.priority for policy in policies),
            had_its_turn=self._had_its_turn(),
            idle_s=self.idle_s(),
            load_s=record.load_seconds or 0.0,
            group=self.model.policy.group,
        )

    def engine(self) -> Engine | None:
        """Its engine as it can be looked at; None where there is none."""
        record = self.record
        if record is None or not record.state.is_active or record.handle is None:
            return None
        runtime, handle = self._house.runtime_of(record)
        return Engine(record.id, runtime, handle)

    def _had_its_turn(self) -> bool:
        """Has it been ready for so long that it may be told to finish and leave?"""
        if not self.is_ready or self.record is None:
            return False
        turn_s = max(self._house.settings().swap_after_s, self.record.load_seconds or 0.0)
        return self._now() - self.ready_since >= turn_s

    def view(self) -> InstanceView:
        """What is shown of it."""
        return self._guests_view(self.host) if self.host is not None else self._own_view()

    def _guests_view(self, host: Standing) -> InstanceView:
        """Its host's engine, with what is its own."""
        model = self.model
        view = replace(
            host._own_view(),
            model_id=model.id,
            model_name=model.name,
            state=self.state,
            shares=host.model.name,
            shared_with=(),
            cause=self.cause,
            actor=self.actor,
            drift=self.drift,
            in_flight=self.endpoint.in_flight if self.endpoint else 0,
            memory_bytes=None,
            estimated_bytes=None,
            last_used_at=None,
            expires_at=None,
        )
        if self._stop is not None:
            view = replace(view, reason=self._stop.reason)
        return self._with_times(view) if self.is_ready else view

    def _own_view(self) -> InstanceView:
        model, record, state = self.model, self.record, self.state
        is_active = record is not None and record.state.is_active
        is_told_of = is_active or (self.failure is not None and not state.is_active)
        shown = record if is_told_of else None  # a new start is not where the last engine was
        view = InstanceView(
            id=shown.id if shown else None,
            model_id=model.id,
            model_name=model.name,
            node=model.node,
            runtime=shown.runtime if shown else model.runtime,
            engine=shown.spec.engine if shown else model.engine,
            state=state,
            reason=self._reason(state),
            hint=self.failure.hint if self.failure and state is InstanceState.FAILED else None,
            failure=self.failure.to_json() if self.failure and state is InstanceState.FAILED else None,
            url=shown.handle.url if shown and shown.handle and is_active else None,
            spec_digest=shown.spec_digest if shown else None,
            drift=self.drift and is_active,
            pid=self.observed.pid if self.observed and is_active else None,
            cause=self.cause if shown else None,
            actor=self.actor if shown else None,
            created_at=shown.created_at if shown else None,
            ready_at=shown.ready_at if shown else None,
            load_seconds=shown.load_seconds if shown else None,
            restarts=self.faults.count,
            is_restarting=state is InstanceState.FAILED and self.attempt is not None,
            context_length=self.endpoint.context_length if self.endpoint and is_active else None,
            devices=shown.spec.devices if shown else (),
            shared_with=tuple(sorted(guest.model.name for guest in self.guests)),
            in_flight=self.endpoint.in_flight if self.endpoint and is_active else 0,
            memory_bytes=self._measured_bytes() if is_active else None,
            estimated_bytes=sum(self.need.estimated.values()) or None if is_active else None,
        )
        return self._with_times(view) if self.is_ready else view

    def _measured_bytes(self) -> int | None:
        """What it holds on the host and the GPUs; None where the host's part is not known."""
        if self.record is None or self.observed is None or self.observed.memory_bytes is None:
            return None
        return self.observed.memory_bytes + self._house.memory.on_gpus(self.record.id)

    def _reason(self, state: InstanceState) -> str | None:
        if state.is_active and self.record is not None and self.record.state.is_active:
            trouble = self._house.trouble_of(self.record)
            if trouble is not None:
                return trouble
        elif state is InstanceState.STARTING:
            return self.progress or "waits for its place"
        if state is InstanceState.STOPPING and self._stop is not None:
            return self._stop.reason
        if state not in (InstanceState.FAILED, InstanceState.STOPPED) or self.failure is None:
            return None
        if self.attempt is not None:
            wait_s = max(0.0, self.attempt.not_before - self._now())
            return f"{self.failure.reason}; starts again in {wait_s:.0f} s"
        if self.waits_for is not None:
            return f"{self.failure.reason}; starts when {self.waits_for}"
        return self.failure.reason

    def _with_times(self, view: InstanceView) -> InstanceView:
        """Monotonic times as wall-clock times, for showing only."""
        assert self.endpoint is not None
        now, wall = self._now(), self._house.clock.now()
        idle_s = self.idle_timeout_s()
        left_s = None if idle_s is None or self.is_busy else self.endpoint.last_used + idle_s - now
        return replace(
            view,
            last_used_at=wall - timedelta(seconds=now - self.endpoint.last_used),
            expires_at=None if left_s is None else wall + timedelta(seconds=max(0.0, left_s)),
        )

    def _now(self) -> float:
        return self._house.clock.monotonic()

    def _must_record(self) -> Record:
        assert self.record is not None, "there is no launch"
        return self.record
