"""Who leaves for whom where a GPU and the host share one memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ostler.fit.device import Device, pooled
from ostler.fit.ledger import Claim, open_ledger
from ostler.instances.plan import Candidate, Places, Resident, Verdict, plan_room

METAL = Device("metal:0", "a chip", "metal", 90, 90, is_real=False, pool="cpu")
HOST = Device("cpu", "a host", "cpu", 120, 120, is_real=False)
DEVICES = (METAL, HOST)
NEEDS = st.fixed_dictionaries({"metal:0": st.integers(0, 100), "cpu": st.integers(0, 130)})


def resident(model_id: int, need: dict[str, int], *, is_busy: bool = False) -> Resident:
    claim = Claim(pooled(need, DEVICES))
    return Resident(model_id, f"m{model_id}", False, is_busy, True, 0.0, claim=claim)


def test_a_model_on_the_gpu_leaves_for_one_on_the_host_as_both_take_the_same_bytes() -> None:
    on_gpu = resident(1, {"metal:0": 80, "cpu": 5})
    ledger = open_ledger(DEVICES, [], [on_gpu.claim], {})
    wanted = Candidate(9, "new", need=pooled({"cpu": 60}, DEVICES))
    assert plan_room(wanted, [on_gpu], Places(), ledger).evict == (1,)
    assert plan_room(Candidate(9, "new", need={"cpu": 35}), [on_gpu], Places(), ledger).verdict is Verdict.GO


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NEEDS, st.booleans()), max_size=7), st.lists(NEEDS, max_size=12))
def test_no_plan_ever_overcommits_the_pool(
    first: list[tuple[dict[str, int], bool]], asked: list[dict[str, int]]
) -> None:
    raw: dict[int, dict[str, int]] = {}
    running: dict[int, Resident] = {}
    wishes = [*first, *((need, False) for need in asked)]
    for number, (need, is_busy) in enumerate(wishes):
        candidate = Candidate(number, f"m{number}", need=pooled(need, DEVICES))
        while True:
            ledger = open_ledger(DEVICES, [], [r.claim for r in running.values()], {})
            plan = plan_room(candidate, list(running.values()), Places(), ledger)
            if not plan.evict:
                break
            for gone in plan.evict:
                assert not running[gone].is_busy
                del running[gone], raw[gone]
        if plan.verdict is Verdict.NEVER:
            assert need["metal:0"] > 90 or need["metal:0"] + need["cpu"] > 120
        if plan.verdict is Verdict.GO:
            running[number], raw[number] = resident(number, need, is_busy=is_busy), need
        assert sum(one["metal:0"] for one in raw.values()) <= METAL.total_bytes
        assert sum(sum(one.values()) for one in raw.values()) <= HOST.total_bytes
