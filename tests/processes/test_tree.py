from hypothesis import given
from hypothesis import strategies as st

from garrison.base.identity import ProcessId
from garrison.processes.process import Process
from garrison.processes.tree import line_of, post_order, rootmost


def table(*rows: tuple[int, int, int]) -> dict[int, Process]:
    """(pid, parent, start)"""
    return {pid: Process(ProcessId(pid, start), parent, 0) for pid, parent, start in rows}


def test_children_before_parents_and_siblings_left_alone() -> None:
    snapshot = table((1, 0, 0), (10, 1, 1), (11, 10, 2), (12, 10, 2), (13, 11, 3), (20, 1, 1), (21, 20, 2))
    assert [one.pid for one in post_order([ProcessId(10, 1)], snapshot)] == [13, 11, 12, 10]


def test_a_root_whose_pid_changed_hands_has_no_tree() -> None:
    assert post_order([ProcessId(10, 1)], table((10, 1, 5), (11, 10, 6))) == ()


def test_a_child_older_than_its_parent_is_none_of_its() -> None:
    snapshot = table((10, 1, 5), (11, 10, 4), (12, 10, 5))
    assert [one.pid for one in post_order([ProcessId(10, 5)], snapshot)] == [12, 10]


def test_overlapping_roots_give_each_process_once() -> None:
    snapshot = table((10, 1, 1), (11, 10, 2))
    assert [one.pid for one in post_order([ProcessId(11, 2), ProcessId(10, 1)], snapshot)] == [11, 10]


def test_rootmost_of_those_that_share_a_socket() -> None:
    snapshot = table((1, 0, 0), (10, 1, 1), (11, 10, 2), (12, 11, 3), (20, 1, 1))
    assert rootmost([10, 12], snapshot) == (10,)
    assert rootmost([12, 20], snapshot) == (12, 20)
    assert rootmost([99], snapshot) == (99,)


def test_line_of_a_process_ends_where_the_table_does() -> None:
    assert line_of(12, table((10, 0, 0), (11, 10, 1), (12, 11, 2))) == (12, 11, 10)
    assert line_of(5, {}) == ()


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5)), max_size=40))
def test_any_table_terminates_and_orders(rows: list[tuple[int, int, int]]) -> None:
    """Also one torn between two reads, with cycles in it."""
    snapshot = table(*rows)
    ordered = post_order([process.id for process in snapshot.values()], snapshot)
    assert sorted(one.pid for one in ordered) == sorted(snapshot)
    for pid in snapshot:
        line_of(pid, snapshot)
    rootmost(snapshot, snapshot)
