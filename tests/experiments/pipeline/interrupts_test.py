"""Ctrl-C and SIGTERM end a command with its clean-up done, and wait where a state is worth saving."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from experiments.pipeline import interrupts
from tests.helpers import paths


def run(body):
    """Runs a block as a command does, in a process of its own, in which `end(number)` sends a signal to the process."""
    source = f"""
import asyncio, os, signal
from experiments.pipeline import interrupts
from experiments.pipeline.exits import one_line_errors
def end(number): os.kill(os.getpid(), number)
{body}
"""
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, cwd=paths.ROOT)


def test_sigterm_ends_a_command_with_its_clean_up_which_a_second_one_does_not_disturb():
    done = run("""
with one_line_errors(continues=True):
    try:
        end(signal.SIGTERM)
        print("not reached")
    finally:
        end(signal.SIGTERM)
        print("cleaned up")
""")
    assert (done.returncode, done.stdout) == (143, "cleaned up\n")
    assert done.stderr == "ended by SIGTERM; run the same command again to continue\n"


def test_sigterm_counts_where_ctrl_c_is_ignored_as_in_the_background_of_a_script():
    done = run("""
signal.signal(signal.SIGINT, signal.SIG_IGN)
with one_line_errors(), interrupts.postponed() as is_waiting:
    end(signal.SIGINT)
    print(is_waiting())
    end(signal.SIGTERM)
    print(is_waiting())
""")
    assert (done.returncode, done.stdout) == (143, "False\nTrue\n")


def test_an_event_loop_is_cancelled_and_not_torn():
    # Where these tests run in the background of a script, Ctrl-C is ignored.
    done = run("""
signal.signal(signal.SIGINT, signal.default_int_handler)
async def work():
    try:
        end(signal.SIGTERM)
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled")
        raise
with one_line_errors():
    asyncio.run(work())
""")
    assert (done.returncode, done.stdout) == (143, "cancelled\n")


@pytest.fixture
def received():
    """The signals that handlers of the process, which are none of ours, have received."""
    numbers = []
    former = {n: signal.signal(n, lambda number, _: numbers.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    yield numbers
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_postponed_signals_reach_the_former_handlers_once_the_block_ends(received, number):
    with interrupts.postponed() as is_waiting:
        assert not is_waiting()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert is_waiting()
        assert received == []
    assert received == [number]
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [number, signal.SIGTERM], "the former handlers are back"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_there_is_something_to_wait_for_a_signal_does_not_wait(received, number):
    with pytest.raises(KeyboardInterrupt), interrupts.postponed():
        os.kill(os.getpid(), number)
    assert received == [number]


def test_a_second_ctrl_c_does_not_wait(received):
    with interrupts.postponed() as is_waiting:
        is_waiting()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert received == [signal.SIGINT]


def test_other_threads_have_no_handlers_and_run_all_the_same(received):
    seen = []

    def work():
        with interrupts.sigterm_as_ctrl_c() as has_arrived, interrupts.postponed() as is_waiting:
            seen.append((has_arrived(), is_waiting()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert seen == [(False, False)]
