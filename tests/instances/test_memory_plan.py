"""Who leaves for whom when memory is what is scarce: the pure plan, by example and by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostler.fit.devices import Device
from ostler.fit.ledger import Claim, Ledger, open_ledger
from ostler.instances.leaving import MOST_TRIED, cheapest
from ostler.instances.plan import Candidate, Places, Plan, Resident, Seat, Verdict, plan_room


def device(total: int, free: int | None = None, id: str = "cuda:0") -> Device:
    return Device(id, "a GPU", "cuda", total, total if free is None else free, is_real=False)


def wants(need: dict[str, int] | int, **more: object) -> Candidate:
    by_device = {"cuda:0": need} if isinstance(need, int) else need
    return replace(Candidate(99, "new", need=by_device), **more)  # type: ignore[arg-type]


def holds(model_id: int, held: dict[str, int] | int, **more: object) -> Resident:
    by_device = {"cuda:0": held} if isinstance(held, int) else held
    resident = Resident(model_id, f"m{model_id}", False, False, True, 0.0, claim=Claim(by_device))
    return replace(resident, **more)  # type: ignore[arg-type]


def plan(
    candidate: Candidate, residents: Sequence[Resident], devices: Sequence[Device] = (device(100),)
) -> Plan:
    ledger = open_ledger(devices, [], [r.claim for r in residents], {})
    return plan_room(candidate, residents, Places(), ledger)


def test_it_goes_where_there_is_memory() -> None:
    assert plan(wants(40), [holds(1, 60)]).verdict is Verdict.GO


def test_a_need_that_is_not_known_or_does_not_matter_is_admitted_by_count_alone() -> None:
    unknown = replace(wants(0), need=None)
    assert plan(unknown, [holds(1, 100)]).verdict is Verdict.GO


def test_only_who_frees_memory_on_the_right_device_leaves() -> None:
    devices = [device(100), device(100, id="cuda:1")]
    residents = [holds(1, {"cuda:1": 90}, idle_s=9999.0), holds(2, 90, idle_s=1.0)]
    assert plan(wants(50), residents, devices).evict == (2,)
    assert plan(wants({"cuda:1": 50}), residents, devices).evict == (1,)
    assert set(plan(wants({"cuda:0": 50, "cuda:1": 50}), residents, devices).evict) == {1, 2}


def test_one_large_model_leaves_in_place_of_two_that_were_idle_longer_when_that_is_cheaper() -> None:
    residents = [holds(1, 30, load_s=10.0), holds(2, 30, load_s=10.0), holds(3, 40, load_s=5.0)]
    assert plan(wants(40), residents).evict == (3,)


def test_a_model_that_loads_fast_leaves_before_one_that_loads_slowly() -> None:
    slow, fast = holds(1, 50, load_s=120.0, idle_s=60.0), holds(2, 50, load_s=2.0, idle_s=30.0)
    assert plan(wants(50), [slow, fast]).evict == (2,)
    ages = replace(slow, idle_s=100 * 3600.0)
    assert plan(wants(50), [ages, fast]).evict == (1,), "unless nobody has wanted it for very long"


def test_a_lower_priority_leaves_first_whatever_it_costs() -> None:
    residents = [holds(1, 50, priority=1), holds(2, 25, load_s=900.0), holds(3, 25, load_s=900.0)]
    assert set(plan(wants(50), residents).evict) == {2, 3}


def test_busy_ones_are_waited_for_until_they_have_had_their_turn() -> None:
    busy = holds(1, 80, is_busy=True)
    waits = plan(wants(50), [busy])
    assert (waits.verdict, waits.evict, waits.finish) == (Verdict.WAIT, (), ())
    assert "m1 80 B (busy)" in waits.reason
    finishes = plan(wants(50), [replace(busy, had_its_turn=True)])
    assert (finishes.verdict, finishes.evict, finishes.finish) == (Verdict.WAIT, (), (1,))


def test_an_idle_one_that_is_not_enough_stays_while_the_other_serves() -> None:
    residents = [holds(1, 50), holds(2, 50, is_busy=True)]
    assert plan(wants(90), residents).evict == ()


def seats(*needs: dict[str, int]) -> tuple[Seat, ...]:
    return tuple(Seat(tuple(need), need) for need in needs)


def test_of_several_seats_the_one_is_taken_for_which_nobody_has_to_leave() -> None:
    devices = [device(100), device(100, id="cuda:1")]
    wanted = wants({}, seats=seats({"cuda:0": 50}, {"cuda:1": 50}))
    assert plan(wanted, [], devices).seat.devices == ("cuda:0",)
    assert plan(wanted, [holds(1, 20)], devices).seat.devices == ("cuda:1",), "there is more room"
    made = plan(wanted, [holds(1, 60), holds(2, {"cuda:1": 90})], [device(120), devices[1]])
    assert (made.verdict, made.seat.devices) == (Verdict.GO, ("cuda:0",))


def test_of_several_seats_the_cheapest_model_leaves_and_a_leave_that_has_begun_is_waited_for() -> None:
    devices = [device(100), device(100, id="cuda:1")]
    wanted = wants({}, seats=seats({"cuda:0": 50}, {"cuda:1": 50}))
    dear, cheap = holds(1, 90, load_s=100.0), holds(2, {"cuda:1": 90}, load_s=2.0)
    assert plan(wanted, [dear, cheap], devices).evict == (2,)
    busy = replace(cheap, is_busy=True)
    assert plan(wanted, [dear, busy], devices).evict == (1,), "one that is idle before one that serves"
    leaving = replace(dear, is_leaving=True)
    made = plan(wanted, [leaving, cheap], devices)
    assert (made.evict, made.seat.devices) == ((), ("cuda:0",))


def test_a_seat_that_is_liked_less_is_taken_where_the_other_is_refused() -> None:
    devices = [device(100), device(100, id="cuda:1")]
    one = Seat(("cuda:0",), {"cuda:0": 50})
    both = Seat((), {"cuda:0": 30, "cuda:1": 30}, rank=9)
    pinned = holds(1, 60, may_leave=False)
    assert plan(wants({}, seats=(one, both)), [], devices).seat == one
    assert plan(wants({}, seats=(one, both)), [pinned], devices).seat == both


def test_a_refusal_says_how_much_is_needed_and_who_holds_it() -> None:
    refused = plan(wants(60), [holds(1, 50, may_leave=False)], [device(100, free=90)])
    assert refused.verdict is Verdict.REFUSE
    assert refused.reason == (
        "it needs 60 B on cuda:0, where 40 B of 100 B are free"
        " (held: m1 50 B (may not leave), other programs 10 B); none of them may leave"
    )
    (short,) = refused.facts["devices"]
    assert (short["need_bytes"], short["available_bytes"], short["total_bytes"]) == (60, 40, 100)
    assert not refused.others_hold_it, "50 of ours would still be in the way"


def test_memory_of_other_programs_may_come_back() -> None:
    refused = plan(wants(60), [], [device(100, free=30)])
    assert refused.verdict is Verdict.REFUSE and refused.others_hold_it
    assert "other programs 70 B" in refused.reason


def test_programs_that_the_driver_names_are_named() -> None:
    others = {"cuda:0": {"python3 (pid 7)": 50}}
    ledger = open_ledger([device(100, free=30)], [], [], {}, others)
    refused = plan_room(wants(60), [], Places(), ledger)
    assert "held: python3 (pid 7) 50 B, other programs 20 B" in refused.reason


def test_what_is_larger_than_the_whole_device_never_goes() -> None:
    ledger = open_ledger([device(100)], [], [], {"": 10})
    never = plan_room(wants(91), [], Places(), ledger)
    assert never.verdict is Verdict.NEVER
    assert never.reason == "it needs 91 B on cuda:0, which has 100 B in all, 10 B of them kept back"
    assert "which is not there" in plan(wants({"cuda:9": 1}), []).reason


def test_a_start_that_may_not_evict_is_refused_by_memory_too() -> None:
    assert plan(wants(60, may_evict=False), [holds(1, 50)]).verdict is Verdict.REFUSE


def test_one_that_is_leaving_gives_its_memory_back() -> None:
    waits = plan(wants(60), [holds(1, 50, is_leaving=True), holds(2, 30)])
    assert (waits.verdict, waits.evict) == (Verdict.WAIT, ())


DEVICES = ("cuda:0", "cuda:1", "cpu")
AMOUNTS = st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 60), max_size=3)


@st.composite
def some_residents(draw: st.DrawFn, most: int = 7) -> list[Resident]:
    return [
        holds(
            number,
            draw(AMOUNTS),
            is_leaving=draw(st.booleans()) and draw(st.booleans()),
            is_busy=draw(st.booleans()),
            may_leave=draw(st.integers(0, 3)) > 0,
            had_its_turn=draw(st.booleans()),
            priority=draw(st.integers(0, 2)),
            idle_s=draw(st.floats(0, 1000)),
            load_s=draw(st.floats(0, 100)),
        )
        for number in range(draw(st.integers(0, most)))
    ]


@settings(max_examples=400, deadline=None)
@given(
    some_residents(),
    st.lists(AMOUNTS, min_size=1, max_size=3),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, 120),
)
def test_a_plan_never_overcommits_and_never_stops_more_than_needed(
    residents: list[Resident], needs: list[dict[str, int]], max_running: int, may_evict: bool, free: int
) -> None:
    devices = [device(120, free, id) for id in DEVICES]
    ledger = open_ledger(devices, [], [r.claim for r in residents], {})
    several = tuple(Seat((f"seat {n}",), need) for n, need in enumerate(needs))
    made = plan_room(wants({}, may_evict=may_evict, seats=several), residents, Places(max_running), ledger)
    need = made.seat.need or {}
    alone = [plan_room(wants(n, may_evict=may_evict), residents, Places(max_running), ledger) for n in needs]
    for verdict in (Verdict.GO, Verdict.WAIT, Verdict.REFUSE):
        if any(one.verdict is verdict for one in alone):
            assert made.verdict is verdict, "the best of the seats is taken"
            break
    by_id = {r.model_id: r for r in residents}
    stopped = [by_id[id] for id in (*made.evict, *made.finish)]
    staying = [r for r in residents if not r.is_leaving]

    def is_enough(gone: Sequence[Resident]) -> bool:
        left = [r for r in residents if r not in gone]
        has_place = not max_running or len(left) < max_running
        after = open_ledger(devices, [], [r.claim for r in left], {})
        return has_place and not after.short(need)

    if made.verdict is Verdict.GO:
        assert is_enough([])
    if stopped:
        assert made.verdict is Verdict.WAIT and may_evict
        assert all(r.may_leave and r in staying for r in stopped)
        assert not any(by_id[id].is_busy for id in made.evict)
        assert all(by_id[id].had_its_turn for id in made.finish)
        leaving = [r for r in residents if r.is_leaving]
        assert is_enough([*leaving, *stopped])
        for one in stopped:
            assert not is_enough([*leaving, *(r for r in stopped if r is not one)]), "one was superfluous"
    if made.verdict is Verdict.NEVER:
        assert any(n > 120 for n in need.values())
    if made.verdict is Verdict.REFUSE and may_evict:
        assert not is_enough([r for r in residents if r.may_leave or r.is_leaving])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=MOST_TRIED + 1, max_size=30), st.integers(1, 60))
def test_of_many_models_none_leaves_that_could_stay(sizes: list[int], need: int) -> None:
    movable = [holds(n, size, idle_s=float(n)) for n, size in enumerate(sizes)]

    def is_enough(some: Sequence[Resident]) -> bool:
        return sum(r.claim.held["cuda:0"] for r in some) >= min(need, sum(sizes))

    chosen = cheapest(movable, is_enough)
    assert is_enough(chosen)
    assert not any(is_enough(rest) for rest in combinations(chosen, len(chosen) - 1))


@dataclass
class World:
    """Models on devices, step by step. Every model that is ready serves without a pause: the worst case."""

    ledger: Ledger
    turn_steps: int
    running: dict[int, Resident] = field(default_factory=dict)
    age: dict[int, int] = field(default_factory=dict)

    def step(self) -> None:
        for id, resident in list(self.running.items()):
            if resident.is_leaving:
                del self.running[id]
                continue
            self.age[id] += 1
            self.running[id] = replace(resident, had_its_turn=self.age[id] > self.turn_steps)

    def ask(self, candidate: Candidate) -> Plan:
        entered = self.ledger
        for resident in self.running.values():
            entered = entered.take(resident.claim.held)
        assert all(account.balance_bytes >= 0 for account in entered.accounts.values()), "over-committed"
        made = plan_room(candidate, list(self.running.values()), Places(), entered)
        for id in (*made.evict, *made.finish):
            assert self.running[id].may_leave
            self.running[id] = replace(self.running[id], is_leaving=True)
        if made.verdict is Verdict.GO:
            id = candidate.model_id
            claim = Claim(dict(made.seat.need or {}))
            self.running[id] = Resident(id, f"m{id}", False, True, id % 5 != 4, 0.0, claim=claim)
            self.age[id] = 0
        return made


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(AMOUNTS, min_size=1, max_size=3), min_size=1, max_size=8),
    st.lists(st.integers(0, 7), max_size=30),
    st.integers(0, 4),
    st.integers(30, 150),
)
def test_whoever_waits_gets_its_turn_or_is_refused_though_all_others_serve_without_a_pause(
    needs: list[list[dict[str, int]]], asked: list[int], turn_steps: int, total: int
) -> None:
    world = World(open_ledger([device(total, id=id) for id in DEVICES], [], [], {}), turn_steps)
    for number in asked:
        id = number % len(needs)
        if id in world.running:
            continue
        candidate = Candidate(id, f"m{id}", seats=seats(*needs[id]))
        for _ in range(turn_steps + 4):
            if world.ask(candidate).verdict is not Verdict.WAIT:
                break
            world.step()
        else:
            pytest.fail(f"model {id} starved")
