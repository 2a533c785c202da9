"""Progress of long work: lines without a terminal, rows on one, and the time left."""

import io
import threading

import pytest
from rich.console import Console

from alkd_jax import progress_bars
from alkd_jax.progress_bars import Task, in_words, progress_bar


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3569, "59 min"), (3599, "1 h 0 min"), (5000, "1 h 23 min")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


def test_the_time_left_follows_from_the_speed_after_the_first_report():
    task = Task("training", total=100, began=0.0)
    assert task.line(90.0) == "training: 2 min so far"
    task.done, task.first = 20, (100.0, 20)
    assert task.line(100.0) == "training: 20 of 100  2 min so far", "nothing is known of the speed yet"
    task.done, task.status = 40, "loss 0.5"
    assert task.seconds_left(110.0) == pytest.approx(30.0)
    assert task.line(110.0) == "training: 40 of 100  loss 0.5  30 s left"
    task.may_end_early = True
    assert task.line(110.0).endswith("at most 30 s left")
    task.done = 120
    assert task.seconds_left(200.0) == 0.0


@pytest.fixture
def shown():
    """A console, and what it has shown."""
    stream = io.StringIO()
    return Console(file=stream, width=100, force_terminal=False), stream


def test_lines_come_at_intervals_and_only_from_the_innermost_work(shown, monkeypatch):
    console, stream = shown
    with progress_bar("early", console=console) as bar:
        bar.update(1)
    assert stream.getvalue() == "", "the first line comes after the interval"
    monkeypatch.setattr(progress_bars, "SECONDS_BETWEEN_LINES", -1)
    with progress_bar("whole", console=console) as whole, progress_bar("part", total=4, console=console) as part:
        whole.print_if_due()
        part.update(1, status="[red]a\nb")
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("part: 1 of 4  [red]a\\nb  0 s so far")


def test_work_that_reports_nothing_has_lines_too(monkeypatch):
    printed = threading.Event()

    class Stream(io.StringIO):
        def write(self, text):
            printed.set()
            return super().write(text)

    monkeypatch.setattr(progress_bars, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(progress_bars, "_SECONDS_BETWEEN_LOOKS", 0.001)
    stream = Stream()
    with progress_bar("difficulty", console=Console(file=stream, width=100, force_terminal=False)):
        assert printed.wait(60)
    assert stream.getvalue().startswith("difficulty: 0 s so far")


def test_a_part_is_shown_below_the_whole_and_both_go_away():
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True)
    with progress_bar("whole", console=console), progress_bar("part", total=3, console=console) as part:
        part.update(2)
        progress_bars._shown.refresh()
        assert [task.description for task in progress_bars._shown.tasks] == ["whole", "part"]
    assert "2/3" in stream.getvalue()
    assert progress_bars._shown is None
    assert not progress_bars._bars
