"""Starting: one start for all, and the truth about those that fail."""

from __future__ import annotations

from ostler.core.principals import LOCAL_ADMIN
from ostler.core.states import DesiredState
from tests.instances.conftest import Fake


async def test_a_started_model_runs_and_says_so(house: Fake) -> None:
    model = await house.add("a")
    view = await house.instances.start("a", LOCAL_ADMIN)
    assert view.state == "running"
    assert view.load_seconds is not None and view.pid and view.memory_bytes
    assert house.models.get("a").desired_state is DesiredState.RUNNING
    kinds = [e.kind for e in (await house.events.find(kind="instance.", newest_first=False))[0]]
    assert kinds == ["instance.starting", "instance.loading", "instance.running"]
    lease = house.instances.try_lease(model.id)
    assert lease is not None and lease.base_url == view.url
    assert lease.api_key == house.runtime.world.engine("a").secrets["LLAMA_API_KEY"]
    lease.release()
