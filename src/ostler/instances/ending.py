"""How an instance ends: requests are let out, the engine goes, and it is said when it is gone."""

from __future__ import annotations

import logging

from ostler.core.errors import OstlerError
from ostler.core.states import InstanceState
from ostler.instances import failures, orders
from ostler.instances.footing import Footing
from ostler.instances.orders import StopOrder
from ostler.instances.store import Note
from ostler.instances.views import Failure
from ostler.runtimes.base import RuntimeAway, StopFailed

log = logging.getLogger(__name__)

LEFTOVER_GRACE_S = 2.0
LOOK_AGAIN_S = 60.0


class Ending(Footing):
    """The steps of an end."""

    async def _end(self, order: StopOrder) -> None:
        """Drain, stop, and say that it is gone."""
        house, began, failure = self._house, self._now(), None
        record = self.record
        self._withdraw()
        if record is not None and record.state.is_active:
            in_flight = self._in_flight()
            data = {"in_flight": in_flight, "now": order.now, **order.data}
            note = Note(order.actor, order.reason, data, order.kind)
            await self._move(InstanceState.STOPPING, note, also=self._store_desired(order))
            cut = await self._drain(order)
            await house.experience.note_leaving(record.id, has_served=self.has_served)
            failure = await self._end_engine(order)
            seconds = round(self._now() - began, 3)
            data = {"seconds": seconds, "cut_requests": cut, "left_for": order.reason}
            if failure is None:
                await self._move(InstanceState.STOPPED, Note(order.actor, order.reason, data), failure=None)
            else:
                note = Note(order.actor, failure.reason, data)
                await self._move(InstanceState.FAILED, note, failure=failure)
        elif record is not None and record.state is InstanceState.FAILED:
            failure = await self._end_engine(order)  # an end that failed before is not taken for one
            if failure is None:
                await self._move(InstanceState.STOPPED, Note(order.actor, order.reason, {"was": "failed"}))
        self.failure, self.endpoint, self.observed = failure, None, None
        self._stop, self.waits_for = None, None
        house.scheduler.release(self.model_id)
        stop_error = StopFailed(failure.reason, hint=failure.hint) if failure else None
        orders.settle(order.done, stop_error)

    async def _end_engine(self, order: StopOrder) -> Failure | None:
        """Have it ended; None when it is gone.

        While the runtime does not answer it stays `stopping`, and whoever waits for it is told.
        """
        house, record = self._house, self._must_record()
        while record.handle is not None:
            try:
                runtime, handle = house.runtime_of(record)
                await runtime.stop(handle, grace_s=house.settings().stop_grace_s)
                break
            except RuntimeAway as error:
                orders.settle(order.done, error)
                self._settle_attempt(error)
                await self._bell.wait((), error.retry_after_s)
            except OstlerError as error:
                return failures.explain_error(error)
        return None

    async def _drain(self, order: StopOrder) -> int:
        """Wait for the requests in flight, as long as may be; gives how many are cut off."""
        limit = self._now() + self._house.settings().drain_timeout_s
        while self._in_flight() and not order.now:
            left = limit - self._now() if order.cuts_requests else LOOK_AGAIN_S
            if left <= 0:
                break
            await self._bell.wait((), left)
        return self._in_flight()

    async def _sweep(self) -> None:
        """Make sure that nothing of the last launch is left. Raises StopFailed."""
        record = self.record
        if record is None or record.handle is None:
            return
        runtime, handle = self._house.runtime_of(record)
        if record.state is InstanceState.STOPPED:
            return
        try:
            await runtime.stop(handle, grace_s=LEFTOVER_GRACE_S)
        except (StopFailed, RuntimeAway) as error:
            if not record.state.is_active:
                raise
            log.warning("%s", error.message)
