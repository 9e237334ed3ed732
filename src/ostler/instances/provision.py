"""A start on its way to a place: what will run is made ready, then it waits for room."""

from __future__ import annotations

from functools import partial

from ostler.instances import admission
from ostler.instances.admission import Placed
from ostler.instances.orders import Attempt
from ostler.instances.sharing import Sharer
from ostler.instances.standing import Standing
from ostler.instances.store import Note


async def provide_and_place(standing: Sharer, attempt: Attempt) -> Placed | None:
    """What will run, with all that it needs on this machine and a place in memory.

    None where an engine that does the same runs already: it is a guest there now.

    What is fetched (a container image) is fetched before the place is taken, so that nobody leaves for
    one that cannot start yet. Raises what preparing, fetching and admission raise.
    """
    house = standing.house
    # what is wrong is said before it waits
    prepared = await house.preparer.prepare(standing.model, attempt.overrides)
    if standing.join_or_claim(prepared):
        return None
    try:
        await prepared.runtime.provide(prepared.spec, partial(_tell, standing, attempt))
    finally:
        standing.progress = None
    return await admission.place(house, standing.model_id, attempt, prepared)


async def _tell(standing: Standing, attempt: Attempt, words: str) -> None:
    is_first = standing.progress is None
    standing.progress = words
    attempt.placed.set()  # models that start after it need not wait for what is fetched
    if is_first:
        model = standing.model
        await standing.house.store.tell(
            "instance.fetching", model.id, model.name, Note(attempt.actor, words, {"runtime": model.runtime})
        )
