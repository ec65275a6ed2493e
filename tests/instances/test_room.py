"""The decision about room, on any machine that Hypothesis thinks of."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.instances.room.choose import choose
from garrison.instances.room.ledger import free_bytes
from garrison.instances.room.values import HOST, Device, Evict, Limits, Need, Never, Place, Resident, Wait

GPUS = ("GPU-a", "GPU-b", "GPU-c")
SIZES = st.integers(0, 12)


@st.composite
def machines(draw: st.DrawFn) -> list[Device]:
    keys = [HOST, *draw(st.lists(st.sampled_from(GPUS), unique=True))]
    return [Device(key, total := draw(st.integers(1, 12)), draw(st.integers(0, total))) for key in keys]


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
    )
    limits = Limits(
        draw(st.one_of(st.none(), st.integers(0, 4))), draw(st.sampled_from([{}, {"g": 1}, {"g": 0}])), 10.0, 30.0
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
    for one in devices:
        if one.key in keys and need.bytes is not None:
            held = sum(other.held.get(one.key, 0) for other in left)
            assert held + need.bytes <= one.total
            assert need.bytes <= one.free
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
            assert not any(one.pinned for one in gone)
            assert {one.name for one in gone if one.busy} == set(found.drain)
            if need.waited < limits.patience:
                assert not found.drain
                assert all(one.resident >= limits.residency for one in gone)
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
    residents = [replace(one, pinned=False) for one in residents]
    held = {each.key: sum(one.held.get(each.key, 0) for one in residents) for each in devices}
    devices = [replace(one, total=one.total + held[one.key], free=one.total) for one in devices]
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
        (Need("n", 1, 3), "it uses 3 GPUs at once; 2 are there"),
        (Need("n", 1, 1, ("GPU-x",)), "it uses 1 GPUs of GPU-x at once; 0 are there"),
    ],
)
def test_what_can_never_fit_says_so(need: Need, why: str) -> None:
    found = choose(need, [], [Device("GPU-a", 80, 80), Device("GPU-b", 80, 80)], Limits())
    assert isinstance(found, Never)
    assert found.why.startswith(why)
