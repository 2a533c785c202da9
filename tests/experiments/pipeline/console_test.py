"""What is printed: names out of files are no markup, no control sequences and no lines of their own."""

import io

import numpy as np
import pytest
from rich.table import Table

from alkd_jax import progress_bars, training
from experiments.pipeline import console

HOSTILE = [
    "[/y]",
    "[red]a[/red]",
    "\x1b]0;title\x07",
    "\x1b[2J",
    "a\nerror: b",
    "a\rb",
    "\u202eb",
    "\ud83d",
    ":smile:",
    "\x9b31m",
]


@pytest.fixture(params=[False, True], ids=["file", "terminal"])
def output(request, monkeypatch):
    """What a terminal, or a file, receives."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    plain = console._PlainConsole(
        file=stream, emoji=False, markup=False, highlight=False, width=120, force_terminal=request.param, no_color=True
    )
    monkeypatch.setattr(console, "console", plain)

    def written():
        stream.flush()
        return stream.buffer.getvalue().decode()

    return written


@pytest.mark.parametrize("name", HOSTILE)
def test_a_line_is_one_line_and_shows_the_name(output, name):
    console.print_line(f"<{name}>")
    assert output() == f"<{console.printable(name)}>\n"
    assert output().rstrip("\n").isprintable()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_table_shows_names_as_they_are(output, name):
    table = Table("method", title=console.printable(name))
    table.add_row(name)
    console.console.print(table)
    assert "\x1b]" not in output()
    assert "\x07" not in output()
    assert "\x9b" not in output()
    assert output().count(console.printable(name)) >= 1 or "\n" in name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_status_and_a_bar_take_no_markup(output, name):
    with console.stage_bar(f"reading {name}"), pytest.raises(KeyError) as stop:
        raise KeyError(name)
    assert stop.value.args == (name,)
    with console.training_bar(name):
        pass
    for sequence in ("\x1b]", "\x1b[2J\x1b", "\x07", "\x9b"):
        assert sequence not in output()


def test_a_block_keeps_its_lines(output):
    console.print_lines("a\n\x1b b\nc" + "x" * 300)
    assert output() == "a\n\\x1b b\nc" + "x" * 300 + "\n"


def test_a_speed_that_is_not_known_is_not_shown(output, monkeypatch):
    monkeypatch.setattr(progress_bars, "SECONDS_BETWEEN_LINES", -1)
    with console.training_bar("t") as show:
        show(
            training.Progress(
                step=1,
                max_steps=2,
                losses=np.full(1, 0.5),
                recalls=np.full(1, 0.1),
                speed=np.nan,
                active=1,
                recall_at=25,
            )
        )
    line = output()
    assert "nan" not in line
    assert "recall@25 0.1000" in line
