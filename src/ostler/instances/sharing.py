"""Several models on one running engine.

A model whose launch is the same as that of an engine that runs, but for the name, is a *guest* there: it has
an endpoint, a count of requests and an idle time of its own, and no engine. The one who holds the engine's
record is its *host*. When a host goes and guests stay, one of them takes the engine over, with its record;
an engine ends with the last of them, or for all of them where that is what was ordered (`GuestsThen`).
docs/design/014-shared-instances.md says why.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.errors import OstlerError
from ostler.core.launch import LaunchSpec
from ostler.core.states import DesiredState, InstanceState
from ostler.engines.base import Engine
from ostler.instances.ending import Ending
from ostler.instances.house import House
from ostler.instances.leases import Endpoint
from ostler.instances.orders import Attempt, GuestsThen, StopOrder, settle
from ostler.instances.preparing import Prepared
from ostler.instances.standing import SYSTEM_ACTOR, Standing
from ostler.instances.store import Also, Note, Record
from ostler.instances.views import Failure, StartCause
from ostler.models.records import Model


class Sharer(Ending):
    """What a guest does, and what its host does for it."""

    host: Sharer | None
    guests: list[Sharer]

    def __init__(self, model_id: int, house: House) -> None:
        super().__init__(model_id, house)
        self.guests = []
        self._lost: Exception | None = None

    # Coming

    def join_or_claim(self, prepared: Prepared) -> bool:
        """True where it is a guest of a running engine now; else it is the one who will run this launch."""
        key = share_key(prepared) if self.model.policy.share else None
        owner = self._house.owners.get(key) if key is not None else None
        if owner is not None and owner is not self and owner.takes_guests(key):
            self.share_key = key
            self._send_on(list(self.guests))
            self.host = owner
            owner.guests.append(self)
            self._bell.ring()
            return True
        self.share_key = key
        if key is not None:
            self._house.owners[key] = self
        self._send_on([guest for guest in self.guests if guest.share_key != key])
        return False

    def offer(self, prepared: Prepared) -> None:
        """Its engine, which an earlier server started, runs this launch: others may share it."""
        if self.host is None and self.share_key is None and self.model.policy.share:
            self.share_key = key = share_key(prepared)
            if key is not None:
                self._house.owners.setdefault(key, self)

    def _open_beside(self, theirs: Endpoint) -> None:
        """Requests for it may go where those for another model go."""
        self.failure = None
        if self.attempt is not None:
            self.cause, self.actor = self.attempt.cause, self.attempt.actor
        self.endpoint = Endpoint(
            theirs.instance_id,
            theirs.base_url,
            theirs.api_key,
            engine=theirs.engine,
            served_name=theirs.served_name,
            time=self._house.clock,
            limit=self.model.policy.max_concurrency,
            on_release=self._released,
            on_broken=self._suspect,
        )
        self.endpoint.context_length = theirs.context_length
        self.ready_since = self.endpoint.last_used
        self._house.routes.publish(self.model_id, self.endpoint)
        self._settle_attempt()

    def _released(self) -> None:
        super()._released()
        if self.host is not None:
            self.host._bell.ring()

    def _suspect(self) -> None:
        if self.host is not None:
            self.host._suspect()
        else:
            super()._suspect()

    # Being there

    async def _be_guest(self) -> None:
        """Look after nothing but the own requests, until something is asked or the engine is not there."""
        while self._stop is None and (host := self.host) is not None:
            if not self.is_ready and host.is_ready and not self.is_held:
                await self._tell_that_it_runs(host)
                is_free = self._stop is None and not self.is_held
                if self.host is host and is_free and host.is_ready and host.endpoint is not None:
                    self._open_beside(host.endpoint)
                continue
            if self.attempt is not None:
                host._hurry(self.attempt)
            idle_at = self._idle_at()
            if idle_at is not None and self._now() >= idle_at:
                idle_s = self.idle_timeout_s() or 0.0
                order = StopOrder(f"no request for {idle_s:g} s", SYSTEM_ACTOR, kind="instance.idle")
                order.data = {"idle_s": idle_s}
                self._begin_stop(order)
                return
            await self._bell.wait((), None if idle_at is None else idle_at - self._now())
        if self.host is None and self._stop is None and self._lost is not None:
            error, self._lost = self._lost, None
            await self._after_loss(error)

    async def _tell_that_it_runs(self, host: Standing) -> None:
        record = host.record
        data = {"shares": host.model.name, "instance_id": record.id if record else None}
        reason = f"it shares the running engine of {host.model.name}"
        await self._tell("instance.running", reason, data, self.actor)

    async def _after_loss(self, error: Exception) -> None:
        """Its engine has failed for good: who waits for it is told."""
        if self.attempt is not None and isinstance(error, OstlerError):
            await self._refuse(self.attempt, error)
        else:
            self._settle_attempt(error)

    # Going

    async def _end_or_leave(self, order: StopOrder) -> None:
        """End the engine, or leave it to those who share it."""
        if self.host is None and self.guests:
            await self._hand_over(order)
        if self.host is not None:
            await self._end_as_guest(order)
            return
        await self._end(order)
        if order.guests is not GuestsThen.WAIT or self.attempt is None:
            self._part_from_guests()

    async def _end_as_guest(self, order: StopOrder) -> None:
        """Let the own requests end, and leave. The engine goes on for the others."""
        began, host = self._now(), self.host
        self._withdraw()
        kind = order.kind if order.kind != "instance.stopping" else "instance.leaving"
        in_flight = self.endpoint.in_flight if self.endpoint else 0
        name = host.model.name if host else ""
        await self._tell(
            kind, order.reason, {"in_flight": in_flight, "shared": name, **order.data}, order.actor
        )
        await self._drain(order)
        if order.desired is not None:
            await self._house.models.set_desired(self.model_id, order.desired, ignored=order.ignored)
        if self.host is not None:
            self.host.forget_guest(self)
        self.host, self.share_key, self.drift, self._lost = None, None, False, None
        data = {"seconds": round(self._now() - began, 3), "left_for": order.reason, "shared": name}
        await self._tell("instance.stopped", order.reason, data, order.actor)
        self.failure, self.endpoint, self._stop, self.waits_for = None, None, None, None
        settle(order.done)

    async def _hand_over(self, order: StopOrder) -> bool:
        """Give the engine and its record to a guest who stays; True where there was one.

        Then it is itself a guest, who lets its own requests end and leaves.
        """
        record = self.record
        if record is None or record.handle is None or order.guests is not GuestsThen.GO_ON:
            return False
        if record.state not in (InstanceState.LOADING, InstanceState.RUNNING):
            return False
        store, given = self._house.store, False
        while (heir := self._heir()) is not None:
            why = f"{heir.model.name} goes on with the engine of {self.model.name}"
            note = Note(order.actor, why, {}, "instance.handed_over")
            moved = await store.hand_over(record, heir.model, heir.cause, heir.actor, note)
            given = True
            if heir.host is self and not heir.is_leaving:
                heir._take_over(self, moved)
                self._house.scheduler.release(self.model_id)
                return True
        if given:  # all of them left meanwhile
            note = Note(order.actor, "nobody else wants it any more", {}, "instance.handed_over")
            self.record = await store.hand_over(record, self.model, self.cause, self.actor, note)
        return False

    def _heir(self) -> Sharer | None:
        """Who takes the engine over: one that is kept before one on demand, then the one used last."""
        return max(
            (guest for guest in self.guests if not guest.is_leaving),
            key=lambda guest: (guest.cause is not StartCause.DEMAND, guest._last_used()),
            default=None,
        )

    def _take_over(self, former: Sharer, record: Record) -> None:
        """The engine of this record is its own from now on. Nothing waits in here, so nobody sees halves."""
        self.record, self.observed = record, former.observed
        self.need, self.launch, self.faults.count = former.need, former.launch, former.faults.count
        if not self.is_ready and record.state is InstanceState.RUNNING and former.endpoint is not None:
            self._open_beside(former.endpoint)
        self.host, self.guests = None, [*(g for g in former.guests if g is not self), former]
        for guest in self.guests:
            guest.host = self
        former.guests, former.record, former.observed = [], None, None
        if self.share_key is not None:
            self._house.owners[self.share_key] = self
        self._bell.ring()

    def forget_guest(self, guest: Sharer) -> None:
        """It has left."""
        if guest in self.guests:
            self.guests.remove(guest)
        self._bell.ring()

    # What a host does for its guests

    def _open_guests(self) -> None:
        for guest in self.guests:
            guest._bell.ring()

    def _withdraw_guests(self) -> None:
        for guest in self.guests:
            guest._withdraw()
            guest._bell.ring()

    def _lose_guests(self, error: Exception, failure: Failure | None) -> None:
        """The engine will not come back: so much is true of its guests as well."""
        for guest in self.guests:
            guest._withdraw()
            guest.host, guest._lost = None, error
            guest.failure = failure
            guest.faults.blocked_until = self.faults.blocked_until
            guest._bell.ring()
        self.guests = []

    def _part_from_guests(self) -> None:
        """The engine has ended for everybody; who still wants one starts anew."""
        self._send_on(list(self.guests))

    def _send_on(self, guests: Iterable[Sharer]) -> None:
        """These may not stay: who is wanted finds another engine, or begins one."""
        for guest in guests:
            self.guests.remove(guest)
            guest._withdraw()
            guest.host = None
            is_wanted = guest.model.desired_state is DesiredState.RUNNING
            if guest._stop is None and guest.attempt is None and is_wanted:
                guest.attempt = Attempt(guest.cause, SYSTEM_ACTOR, is_restart=True)
            guest._bell.ring()

    def _store_desired(self, order: StopOrder) -> Also | None:
        """What is wanted of it from now on, and of those for whom the engine ends too."""
        desired, ignored = order.desired, order.ignored
        if desired is None or order.guests is not GuestsThen.LEAVE:
            return super()._store_desired(order)
        ids = [self.model_id, *(guest.model_id for guest in self.guests)]

        async def store(session: AsyncSession) -> None:
            for model_id in ids:
                await self._house.models.set_desired(model_id, desired, session, ignored=ignored)

        return store

    def _tell_guests_the_context(self, endpoint: Endpoint) -> None:
        for guest in self.guests:
            if guest.endpoint is not None:
                guest.endpoint.context_length = endpoint.context_length

    def _hurry(self, other: Attempt) -> None:
        """A guest waits for this engine: the start takes the stronger wish of both."""
        own = self.attempt
        if own is None:
            return
        own.may_evict |= other.may_evict
        own.is_batch &= other.is_batch
        if other.cause is StartCause.PERSON and own.not_before:
            own.not_before = 0.0
            self._bell.ring()
        self._stand_again_in_line()

    # The steps of `Life`

    @abstractmethod
    def _begin_stop(self, order: StopOrder) -> asyncio.Future[None]: ...

    @abstractmethod
    def _stand_again_in_line(self) -> None: ...

    @abstractmethod
    async def _refuse(self, attempt: Attempt, error: OstlerError) -> None: ...


def share_key(prepared: Prepared) -> str | None:
    """What is the same for two launches that one engine can serve; None where each needs its own."""
    return _key_of(prepared.engine, prepared.spec)


def host_for(house: House, model: Model, spec: Mapping[str, Any] | None) -> Sharer | None:
    """Whose engine a start of this spec (in JSON) would share; None where it would have its own."""
    if spec is None or not model.policy.share:
        return None
    launch = LaunchSpec.from_json(spec)
    key = _key_of(house.preparer.engine(launch.engine), launch)
    owner = house.owners.get(key) if key is not None else None
    is_other = owner is not None and owner.model_id != model.id and owner.takes_guests(key)
    return owner if is_other else None


def _key_of(engine: Engine, spec: LaunchSpec) -> str | None:
    """Only processes share: a container bears the id of its model."""
    common = engine.shared_form(spec) if spec.runtime == "process" else None
    return common.digest() if common is not None else None
