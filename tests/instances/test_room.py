"""The decision about room, on any machine that Hypothesis thinks of."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.instances.room.choose import choose
from garrison.instances.room.ledger import foreign_bytes, free_bytes, not_back
from garrison.instances.room.second_try import make_all_room
from garrison.instances.room.values import HOST, Device, Evict, Limits, Need, Never, Place, Resident, Wait

GPUS = ("GPU-a", "GPU-b", "GPU-c")
SIZES = st.integers(0, 12)


@st.composite
def machines(draw: st.DrawFn) -> list[Device]:
    keys = [HOST, *draw(st.lists(st.sampled_from(GPUS), unique=True))]
    return [
        Device(key, total := draw(st.integers(1, 12)), draw(st.integers(0, total)), draw(st.integers(0, 2)))
        for key in keys
    ]


@st.composite
def situations(draw: st.DrawFn) -> tuple[Need, list[Resident], list[Device], Limits]:
    devices = draw(machines())
    keys = [one.key for one in devices]
    residents = [
        Resident(
            name=f"r{number}",
            held=draw(st.dictionaries(st.sampled_from(keys), SIZES, max_size=2)),
            busy=draw(st.booleans()),
            pinned=draw(st.booleans()),
            group=draw(st.sampled_from([None, "g"])),
            priority=draw(st.integers(0, 1)),
            idle=draw(st.floats(0, 100)),
            resident=draw(st.floats(0, 100)),
            cost=draw(st.floats(0, 100)),
            moving=draw(st.sampled_from([False, False, True])),
        )
        for number in range(draw(st.integers(0, 5)))
    ]
    need = Need(
        "n",
        draw(st.one_of(st.none(), SIZES)),
        draw(st.integers(0, 2)),
        tuple(draw(st.lists(st.sampled_from(GPUS), max_size=2, unique=True))),
        draw(st.sampled_from([None, "g"])),
        draw(st.floats(0, 100)),
        share=draw(st.sampled_from([None, None, 0.5, 1.0])),
        percent=draw(st.booleans()),
        host=draw(st.sampled_from([0, 0, 2])),
        missing=draw(st.sampled_from([(), (), (), ("GPU 7",)])),
    )
    limits = Limits(
        draw(st.one_of(st.none(), st.integers(0, 4))),
        draw(st.sampled_from([{}, {"g": 1}, {"g": 0}])),
        10.0,
        30.0,
        draw(st.sampled_from([True, True, True, False])),
    )
    return need, residents, devices, limits


def room_after(gone: Sequence[str], residents: Sequence[Resident], devices: Sequence[Device]) -> list[Device]:
    """The devices once `gone` have given back what they held."""
    back = {key: sum(one.held.get(key, 0) for one in residents if one.name in gone) for key in (HOST, *GPUS)}
    return [replace(one, free=min(one.total, one.free + back[one.key])) for one in devices]


def check_fits(
    need: Need, keys: Sequence[str], left: Sequence[Resident], devices: Sequence[Device], limits: Limits
) -> None:
    """Nothing is given away twice, and no limit is passed."""
    assert len(keys) == max(1, need.count)
    assert len(set(keys)) == len(keys)
    if need.count:
        assert HOST not in keys
        assert not need.devices or set(keys) <= set(need.devices)
        assert not need.missing
    for one in devices:
        beside = one.key == HOST and need.count > 0
        if (one.key in keys or beside) and (takes := need.on(one)):
            held = sum(other.held.get(one.key, 0) for other in left)
            assert held + takes + one.foreign <= one.total
            assert takes <= one.free
    assert limits.most is None or len(left) + 1 <= limits.most
    if need.group is not None and need.group in limits.groups:
        assert sum(one.group == need.group for one in left) + 1 <= limits.groups[need.group]


@given(situations())
def test_nothing_is_over_committed_and_nobody_pinned_or_busy_is_evicted(
    situation: tuple[Need, list[Resident], list[Device], Limits],
) -> None:
    need, residents, devices, limits = situation
    found = choose(need, residents, devices, limits)
    assert found.why
    match found:
        case Place():
            check_fits(need, found.devices, residents, devices, limits)
        case Evict():
            gone = [one for one in residents if one.name in found.victims]
            assert len(gone) == len(found.victims) > 0
            assert limits.evict
            assert not any(one.pinned for one in gone)
            assert {one.name for one in gone if one.busy} == set(found.drain)
            assert all(one.resident >= limits.residency for one in gone)
            assert not any(one.moving for one in gone)
            if need.waited < limits.patience:
                assert not found.drain
            left = [one for one in residents if one.name not in found.victims]
            check_fits(need, found.devices, left, room_after(found.victims, residents, devices), limits)
            for spared in found.victims:  # none is there for nothing
                fewer = [name for name in found.victims if name != spared]
                left = [one for one in residents if one.name not in fewer]
                with pytest.raises(AssertionError):
                    check_fits(need, found.devices, left, room_after(fewer, residents, devices), limits)
        case Wait():
            assert found.seconds is None or found.seconds >= 0
        case Never():
            pass


@given(situations())
def test_whoever_waits_long_enough_is_let_in_or_told_why_not(
    situation: tuple[Need, list[Resident], list[Device], Limits],
) -> None:
    """With nobody pinned and no other program on the machine, a wait ends in a place, an eviction or never."""
    need, residents, devices, limits = situation
    need = replace(need, waited=limits.patience)
    limits = replace(limits, evict=True)
    residents = [replace(one, pinned=False, moving=False, resident=limits.residency) for one in residents]
    held = {each.key: sum(one.held.get(each.key, 0) for one in residents) for each in devices}
    devices = [replace(one, total=one.total + held[one.key], free=one.total, foreign=0) for one in devices]
    assert not isinstance(choose(need, residents, devices, limits), Wait)


def test_the_driver_is_not_believed_when_it_lags() -> None:
    gpu = Device("GPU-a", 80, 80)
    started_just_now = Resident("a", {"GPU-a": 60})
    assert free_bytes(gpu, [started_just_now]) == 20
    assert free_bytes(replace(gpu, free=10), []) == 10, "a program that is not ours, or memory that is not back yet"


def test_who_goes_first() -> None:
    limits = Limits(2)
    busy_later = Resident("dear", idle=100, resident=500, cost=200)
    cheap = Resident("cheap", idle=90, resident=500, cost=2)
    found = choose(Need("n"), [busy_later, cheap], [], limits)
    assert isinstance(found, Evict)
    assert found.victims == ("cheap",), "idle time over what it costs to bring it back"
    found = choose(Need("n"), [busy_later, replace(cheap, priority=1)], [], limits)
    assert isinstance(found, Evict)
    assert found.victims == ("dear",), "priority comes first"


def test_a_group_makes_room_in_itself() -> None:
    limits = Limits(None, {"g": 1})
    residents = [Resident("other", idle=900, resident=900), Resident("same", group="g", idle=20, resident=20)]
    found = choose(Need("n", group="g"), residents, [], limits)
    assert isinstance(found, Evict)
    assert found.victims == ("same",)


def test_loads_on_two_gpus_do_not_evict_each_other() -> None:
    devices = [Device("GPU-a", 80, 80), Device("GPU-b", 80, 80)]
    found = choose(Need("n", 60, 1), [Resident("a", {"GPU-a": 60}, busy=True)], devices, Limits())
    assert isinstance(found, Place)
    assert found.devices == ("GPU-b",)


@pytest.mark.parametrize(
    ("need", "why"),
    [
        (Need("n", 99, 1), "it takes 0.0 GiB on each GPU"),
        (Need("n", 9 * 2**30, 0), "it takes 9.0 GiB of system memory; there are 8.0 GiB for instances"),
        (Need("n", 1, 1, host=9 * 2**30), "it takes 9.0 GiB of system memory beside its GPUs"),
        (
            Need("n", 1, 1, missing=("GPU 7",)),
            "it may use GPU 7, which is not there; there is GPU-a with 0.0 GiB, GPU-b",
        ),
        (Need("n", 1, 3), "it uses 3 GPUs at once; 2 are there"),
        (Need("n", 1, 1, ("GPU-x",)), "it uses 1 GPUs of GPU-x at once; 0 are there"),
    ],
)
def test_what_can_never_fit_says_so(need: Need, why: str) -> None:
    host = Device(HOST, 8 * 2**30, 2**30)
    found = choose(need, [], [host, Device("GPU-a", 80, 80), Device("GPU-b", 80, 80)], Limits())
    assert isinstance(found, Never)
    assert found.why.startswith(why)


@given(situations())
def test_all_room_is_made_of_nobody_pinned_or_busy_and_ends(
    situation: tuple[Need, list[Resident], list[Device], Limits],
) -> None:
    need, residents, devices, limits = situation
    found = make_all_room(need, residents, devices, limits)
    if isinstance(found, Evict) and not found.drain:
        gone = [one for one in residents if one.name in found.victims]
        assert not any(one.pinned or one.busy or one.moving for one in gone)
        left = [one for one in residents if one not in gone]
        check_fits(need, found.devices, left, room_after(found.victims, residents, devices), limits)


@given(situations())
def test_evicting_as_decided_ends_in_a_place(situation: tuple[Need, list[Resident], list[Device], Limits]) -> None:
    """What was promised for the time after an eviction holds then, so nobody is evicted twice for one start."""
    need, residents, devices, limits = situation
    found = choose(need, residents, devices, limits)
    if isinstance(found, Evict):
        left = [one for one in residents if one.name not in found.victims]
        assert isinstance(choose(need, left, room_after(found.victims, residents, devices), limits), Place)


def test_of_two_gpus_the_one_whose_instance_is_missed_least_is_cleared() -> None:
    devices = [Device("GPU-a", 80, 80), Device("GPU-b", 80, 80)]
    recent = Resident("recent", {"GPU-a": 60}, idle=20, resident=900, cost=30)
    stale = Resident("stale", {"GPU-b": 60}, idle=800, resident=900, cost=30)
    found = choose(Need("n", 60, 1), [recent, stale], devices, Limits())
    assert isinstance(found, Evict)
    assert found.victims == ("stale",)


def test_a_weight_keeps_what_is_dear() -> None:
    old = Resident("old", idle=100, resident=500, cost=10 * 5.0)
    new = Resident("new", idle=50, resident=500, cost=10)
    found = choose(Need("n"), [old, new], [], Limits(2))
    assert isinstance(found, Evict)
    assert found.victims == ("new",)


def test_without_eviction_it_waits_and_says_why() -> None:
    idle = Resident("idle", {HOST: 60}, idle=900, resident=900)
    found = choose(Need("n", 60), [idle], [Device(HOST, 80, 80)], Limits(evict=False))
    assert isinstance(found, Wait)
    assert "enable_lru_eviction" in found.why
    found = choose(Need("n", waited=900), [idle], [], Limits(1, evict=False))
    assert isinstance(found, Wait)


def test_other_programs_count_while_an_instance_takes_its_memory() -> None:
    """The driver does not know yet what is being taken, and the ledger does not know what others have."""
    gpu = Device("GPU-a", 80, 50)
    assert foreign_bytes(gpu, []) == 30
    starting = Resident("a", {"GPU-a": 40}, busy=True, moving=True)
    assert foreign_bytes(gpu, [starting]) is None
    assert free_bytes(replace(gpu, foreign=30), [starting]) == 10
    assert free_bytes(replace(gpu, free=10, foreign=30), [replace(starting, moving=False)]) == 10
    assert foreign_bytes(replace(gpu, free=10), [replace(starting, moving=False)]) == 30


def test_memory_is_back_when_three_quarters_are_and_only_on_gpus() -> None:
    before = [Device("GPU-a", 80, 20), Device(HOST, 80, 20)]
    held = {"GPU-a": 40, HOST: 40}
    assert not_back(held, before, before) == {"GPU-a": 40}
    assert not_back(held, before, [Device("GPU-a", 80, 49)]) == {"GPU-a": 11}
    assert not_back(held, before, [Device("GPU-a", 80, 50)]) == {}
    assert not_back(held, before, []) == {}, "a device that is gone gives nothing back"


def test_a_share_of_the_card_is_bytes() -> None:
    small, large = Device("GPU-a", 1000, 1000), Device("GPU-b", 3001, 3001)
    assert Need("n", count=1, share=0.5).on(small) == 500
    assert Need("n", count=1, share=0.5).on(large) == 1501
    assert Need("n", 555, 1, share=0.5).on(small) == 555, "more was measured than it was told"
    assert Need("n", 555, 1, percent=True).on(small) == 560
    assert Need("n", 555, 1, percent=True).on(large) == 571
    assert Need("n", 1001, 1, percent=True).on(small) == 1001
    assert Need("n", 5, 1, host=7).on(Device(HOST, 10, 10)) == 7


def test_what_is_being_started_is_nobodys_victim_however_long_one_waits() -> None:
    starting = Resident("starting", idle=900, resident=900, busy=True, moving=True)
    assert isinstance(choose(Need("n", waited=900), [starting], [], Limits(1)), Wait)
    assert isinstance(choose(Need("n", waited=900), [replace(starting, moving=False)], [], Limits(1)), Evict)
    fresh = replace(starting, moving=False, resident=2)
    found = choose(Need("n", waited=900), [fresh], [], Limits(1))
    assert found == Wait("starting became ready only just now", 8.0), "residency holds for those who wait long, too"
