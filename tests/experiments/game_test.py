"""The command that shows one game: its table, its files, and the sweep, against the solvers themselves."""

import re
import sys

import numpy as np
import pytest

from alkd_jax import maxmin, selection
from alkd_jax.io import read_json
from experiments import game


@pytest.fixture
def play(tmp_path, monkeypatch, capsys):
    """Runs the command; the lines of its table, what it printed, and `game.json`."""

    def call(text):
        monkeypatch.setattr(sys, "argv", ["game", *text.split(), "--out", str(tmp_path / "out")])
        game.main()
        output = capsys.readouterr().out
        rows = {}
        for line in output.splitlines():
            if found := re.match(r"(exact|closed form)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)%$", line):
                lower, upper, scale, support, mean = (float(text.replace(",", "")) for text in found.groups()[1:])
                rows[found[1]] = {"lower": lower, "upper": upper, "scale": scale, "support": support, "mean": mean}
        return rows, output, read_json(tmp_path / "out" / "game.json")

    return call


def solved(num, exponent, ratios):
    """Policy and worst case of both methods, from gains that are no logarithms."""
    gain = np.arange(1.0, num + 1) ** -exponent
    num_effective, num_similar, _ = selection.class_counts(num, ratios)
    both = {}
    for name, method in (("exact", maxmin.solve), ("closed form", maxmin.closed_form)):
        solution = method(gain, gain / 2, gain / 2, num_effective=num_effective, num_similar=num_similar)
        both[name] = float(solution.lower), np.exp(np.asarray(solution.log_policy, np.float64))
    return both


def test_the_table_and_the_file_hold_what_the_solvers_say(play, tmp_path):
    rows, _, kept = play("--sessions 60 --exponent 1 --ratios 1 5 4 --asked 12 --steps 2")
    assert kept["counts"] == [6, 30, 24]
    for name, (lower, policy) in solved(60, 1.0, (1, 5, 4)).items():
        row, about = rows[name], kept["solutions"][name]
        assert about["lower"] * np.exp(about["log_scale"]) == pytest.approx(lower, rel=1e-5)
        assert row["lower"] == pytest.approx(about["lower"], rel=1e-5)
        assert about["support"] == row["support"] == (policy > 0).sum()
        mean_rank = policy @ np.arange(1, 61) / 60
        assert about["mean_rank_share"] == pytest.approx(mean_rank, rel=1e-5)
        assert row["mean"] == pytest.approx(100 * mean_rank, abs=0.06)
    assert kept["solutions"]["exact"]["upper"] == pytest.approx(kept["solutions"]["exact"]["lower"], rel=1e-4)
    assert kept["solutions"]["closed form"]["upper"] is None
    assert (tmp_path / "out" / "game.png").read_bytes().startswith(b"\x89PNG")


def test_the_instances_drawn_are_those_the_policy_draws(play):
    import jax

    _, _, kept = play("--sessions 60 --exponent 1 --asked 12 --steps 1 --seed 3")
    policy = solved(60, 1.0, (1, 5, 4))["exact"][1]
    with np.errstate(divide="ignore"):
        expected = selection.select(jax.random.key(3), np.log(policy), num=12)
    assert kept["drawn"] == expected.tolist()


def test_the_sweep_covers_the_simplex_and_shows_where_the_closed_form_loses(play):
    _, output, kept = play("--sessions 60 --exponent 1 --asked 5 --steps 5")
    mixes = {(row["effective"], row["similar"]): row for row in kept["sweep"]}
    assert len(mixes) == 21
    assert all(effective + similar <= 1 + 1e-9 for effective, similar in mixes)
    for (effective, similar), row in mixes.items():
        both = solved(60, 1.0, (round(5 * effective), round(5 * similar), 5 - round(5 * (effective + similar))))
        exact, paper = both["exact"][0], both["closed form"][0]
        if row["value"] > 0:
            assert row["share"] == pytest.approx(paper / exact, abs=1e-4)
            assert row["share"] <= 1 + 1e-4
        else:
            assert row["share"] is None
            assert exact <= 1e-6
    known = [row for row in kept["sweep"] if row["share"] is not None]
    least = min(known, key=lambda row: row["share"])
    assert least["share"] < 0.9
    assert f"guarantees at least {least['share']:.1%} of it" in output
    assert f"{least['effective']:.0%} effective and {least['similar']:.0%} similar" in output


def test_what_is_no_game_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["game", "--sessions", "20", "--asked", "30", "--out", out])
    with pytest.raises(SystemExit) as left:
        game.main()
    captured = capsys.readouterr()
    assert left.value.code
    assert "--asked is 30; expected from 1 to" in captured.out + captured.err
    assert not (tmp_path / "out").exists()
