import os
import signal
import threading

import pytest

from garrison.cli.outermost import outermost
from garrison.cli.signals import Wishes, stopped_as_by_ctrl_c

HEARD = {
    "one": ([5.0], 1),
    "timeout sends it twice": ([5.0, 5.01], 1),
    "a second wish": ([5.0, 6.5], 2),
    "two, sent twice each": ([5.0, 5.1, 7.0, 7.1], 2),
    "many in a row": ([5.0, 5.6, 6.2], 2),
}


@pytest.mark.parametrize(("times", "number"), HEARD.values(), ids=HEARD)
def test_signals_in_quick_succession_are_one_request(times, number):
    left = iter(times)
    wishes = Wishes(monotonic=lambda: next(left))
    assert sum(wishes.heard() for _ in times) == wishes.number == number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_is_stopped_in_order_with_the_code_of_the_signal(capsys, number):
    tidied = []

    def call():
        try:
            os.kill(os.getpid(), number)
            return 0
        finally:
            os.kill(os.getpid(), number)  # the same request, as `timeout` sends it
            tidied.append(True)

    assert outermost(call, json=False) == 128 + number
    assert tidied == [True]
    assert capsys.readouterr().err == f"stopped ({number.name})\n"
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("before", [signal.SIG_IGN, lambda *_: None], ids=["nohup", "a handler"])
def test_what_a_signal_does_already_stays(before):
    kept = signal.signal(signal.SIGHUP, before)
    try:
        with stopped_as_by_ctrl_c():
            assert signal.getsignal(signal.SIGHUP) is before
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, kept)


def test_another_thread_cannot_handle_signals():
    def enter():
        with stopped_as_by_ctrl_c():
            entered.set()

    entered = threading.Event()
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered.is_set()
