"""A start on its way to a place: what will run is made ready, then it waits for room."""

from __future__ import annotations

from functools import partial

from ostler.instances import admission
from ostler.instances.orders import Attempt
from ostler.instances.preparing import Prepared
from ostler.instances.standing import Standing
from ostler.instances.store import Note


async def provide_and_admit(standing: Standing, attempt: Attempt) -> Prepared:
    """The launch spec, with all that it needs on this machine and a place in memory.

    What is fetched (a container image) is fetched before the place is taken, so that nobody leaves for
    one that cannot start yet. Raises what preparing, fetching and admission raise.
    """
    house, model = standing.house, standing.model
    prepared = await house.preparer.prepare(model, attempt.overrides)
    try:
        await prepared.runtime.provide(prepared.spec, partial(_tell, standing, attempt))
    finally:
        standing.progress = None
    standing.launch = await house.experience.launch(model, attempt.overrides)
    standing.need = await admission.need_now(house, model, attempt.overrides)
    wanted = admission.candidate(
        model, standing.need, may_evict=attempt.may_evict, ignore_fit=standing.ignore_fit
    )
    await admission.admit(house, model, wanted, attempt)
    return prepared


async def _tell(standing: Standing, attempt: Attempt, words: str) -> None:
    is_first = standing.progress is None
    standing.progress = words
    attempt.placed.set()  # models that start after it need not wait for what is fetched
    if is_first:
        model = standing.model
        await standing.house.store.tell(
            "instance.fetching", model.id, model.name, Note(attempt.actor, words, {"runtime": model.runtime})
        )
