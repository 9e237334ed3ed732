"""The ledger: whose memory is whose, and what is left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.fit.device import Device, pooled
from ostler.fit.ledger import Claim, Ledger, open_ledger

GPU = Device("cuda:0", "a GPU", "cuda", total_bytes=100, free_bytes=100)
CPU = Device("cpu", "a host", "cpu", total_bytes=1000, free_bytes=700)


def test_the_parts_add_up_to_the_whole() -> None:
    running = Claim({"cuda:0": 30}, {"cuda:0": 25}, {"cuda:0": 25})
    loading = Claim({"cuda:0": 20})
    gpu = replace(GPU, free_bytes=60)  # 25 of ours, 15 of others
    account = open_ledger([gpu], [running], [running, loading], {"": 5}).accounts["cuda:0"]
    assert account.reserve_bytes == 5
    assert account.foreign_bytes == 15
    assert account.measured_bytes == 25
    assert account.promised_bytes == 25, "5 not touched yet, and 20 that load"
    assert account.available_bytes == 30
    assert account.total_bytes == 5 + 15 + 25 + 25 + 30


def test_more_measured_than_estimated_counts_as_measured() -> None:
    claim = Claim({"cuda:0": 10}, {"cuda:0": 40}, {"cuda:0": 40})
    account = open_ledger([replace(GPU, free_bytes=60)], [claim], [claim], {}).accounts["cuda:0"]
    assert (account.measured_bytes, account.promised_bytes, account.foreign_bytes) == (40, 0, 0)
    assert claim.held == {"cuda:0": 40}


def test_mapped_weights_count_as_held_although_the_system_calls_them_free() -> None:
    claim = Claim({"cpu": 500}, {"cpu": 450}, {"cpu": 50})  # 400 of it are page cache
    account = open_ledger([CPU], [claim], [claim], {}).accounts["cpu"]
    assert account.foreign_bytes == 250, "300 are in use, 50 of them ours"
    assert account.available_bytes == 1000 - 250 - 500


def test_one_that_has_ended_leaves_nothing_behind() -> None:
    gone = Claim({"cuda:0": 40}, {"cuda:0": 40}, {"cuda:0": 40})
    account = open_ledger([replace(GPU, free_bytes=60)], [gone], [], {}).accounts["cuda:0"]
    assert (account.foreign_bytes, account.available_bytes) == (0, 100)


def test_what_a_device_lacks_is_said_by_device() -> None:
    ledger = open_ledger([GPU, CPU], [], [], {"cuda:0": 10})
    assert ledger.short({"cuda:0": 90, "cpu": 700}) == {}
    assert ledger.short({"cuda:0": 91, "cpu": 800}) == {"cuda:0": 1, "cpu": 100}
    assert ledger.never({"cuda:0": 91, "cpu": 800}) == {"cuda:0": 1}, "others may end"
    assert ledger.never({"cuda:7": 1}) == {"cuda:7": 1}, "a device that is not there"
    assert ledger.without_others().short({"cpu": 1000}) == {}


@given(st.dictionaries(st.sampled_from(["cuda:0", "cpu"]), st.integers(0, 2000)))
def test_what_is_taken_and_given_back_changes_nothing(need: dict[str, int]) -> None:
    ledger = open_ledger([GPU, CPU], [], [Claim({"cpu": 5})], {"": 1})
    assert ledger.take(need).give_back(need) == ledger
    if not ledger.short(need):
        assert all(account.balance_bytes >= 0 for account in ledger.take(need).accounts.values())


@pytest.mark.parametrize("need", [{}, {"cuda:0": 0}, {"nowhere": 0}])
def test_no_need_fits_everywhere(need: dict[str, int]) -> None:
    assert Ledger().short(need) == Ledger().never(need) == {}


METAL = Device("metal:0", "a chip", "metal", total_bytes=750, free_bytes=700, pool="cpu")


def test_a_gpu_of_unified_memory_counts_on_the_host_s_bytes_and_on_its_own_limit() -> None:
    devices = [METAL, CPU]
    need = pooled({"metal:0": 400, "cpu": 50}, devices)
    assert need == {"metal:0": 400, "cpu": 450}
    ledger = open_ledger(devices, [], [Claim(need)], {"": 10})
    assert ledger.accounts["metal:0"].available_bytes == 350, "of its limit; the reserve is the pool's"
    shown = ledger.account_of(METAL)
    assert (shown.available_bytes, shown.foreign_bytes) == (240, 110), "but no more is left in the pool"
    assert ledger.accounts["cpu"].available_bytes == 1000 - 10 - 300 - 450, "others hold 300"
    assert ledger.short(pooled({"metal:0": 300}, devices)) == {"cpu": 60}
    assert ledger.never(pooled({"metal:0": 751}, devices)) == {"metal:0": 1}
    assert ledger.never(pooled({"metal:0": 600, "cpu": 400}, devices)) == {"cpu": 10}


def test_what_a_process_is_seen_to_hold_on_the_host_is_not_added_to_its_need_on_the_gpu() -> None:
    claim = Claim(pooled({"metal:0": 400, "cpu": 50}, [METAL, CPU]), {"cpu": 430}, {"cpu": 430})
    assert claim.held["cpu"] == 450


POOLED = st.fixed_dictionaries({"metal:0": st.integers(0, 800), "cpu": st.integers(0, 1000)})


@given(st.lists(st.tuples(POOLED, st.booleans()), max_size=20), st.integers(0, 1000), st.integers(0, 100))
def test_a_pool_is_never_overcommitted(
    starts: list[tuple[dict[str, int], bool]], free: int, reserve: int
) -> None:
    devices = [METAL, replace(CPU, free_bytes=free)]
    ledger = open_ledger(devices, [], [], {"": reserve})
    running: list[dict[str, int]] = []
    for need, ends_one in starts:
        if ends_one and running:
            ledger = ledger.give_back(pooled(running.pop(0), devices))
        if not ledger.short(pooled(need, devices)):
            ledger = ledger.take(pooled(need, devices))
            running.append(need)
        on_gpu = sum(one["metal:0"] for one in running)
        assert on_gpu <= METAL.total_bytes
        assert not running or on_gpu + sum(one["cpu"] for one in running) <= max(0, free - reserve)
        assert ledger == open_ledger(
            devices, [], [Claim(pooled(one, devices)) for one in running], {"": reserve}
        )


def test_where_only_the_engine_tells_sizes_our_own_models_are_not_called_others() -> None:
    told = Device("xpu:0", "Arc", "xpu", 100, 40, told_by="engine")
    account = open_ledger([told], [], [Claim({"xpu:0": 50})], {}).accounts["xpu:0"]
    assert (account.foreign_bytes, account.available_bytes) == (10, 40)
