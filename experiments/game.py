"""The selection game: policies and worst cases of the exact solution and of the paper's closed form.

    python -m experiments.game --sessions 7393 --exponent 10 --ratios 1 5 4 --out runs/game

Writes `game.json` and `game.png`, and prints a table. The sweep shows, for each mix of effective, similar and incorrect
labels, the worst case of the closed form as a share of the value of the game.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from alkd_jax import maxmin, selection
from alkd_jax.checks import check_between, check_count
from alkd_jax.io import finite_or_none, write_json

from .pipeline.command_line import parse
from .pipeline.console import cli_errors, stage_bar


def solve_both(gains: selection.LogGains, num_effective: int, num_similar: int) -> dict[str, maxmin.Solution]:
    """Returns the exact solution and the paper's closed form of one game."""
    return {
        name: method(
            gains.effective,
            gains.similar,
            gains.incorrect,
            num_effective=num_effective,
            num_similar=num_similar,
            log_gains=True,
        )
        for name, method in (("exact", maxmin.solve), ("closed form", maxmin.closed_form))
    }


def summarize(solution: maxmin.Solution, log_scale: float) -> dict[str, float]:
    """Returns value, bounds, support and mean rank of a solution; value and bounds are in the unit exp(log_scale)."""
    policy = np.exp(np.asarray(solution.log_policy, np.float64))
    return {
        "value": float(solution.value),
        "lower": float(solution.lower),
        "upper": float(solution.upper),
        "log_scale": float(solution.log_scale) + log_scale,
        "support": int(solution.support_size),
        "theta": float(solution.theta),
        "mean_rank_share": float((policy * np.arange(1, len(policy) + 1)).sum() / len(policy)),
    }


def sweep(exponent: float, steps: int, num_sessions: int) -> list[dict[str, float]]:
    """Returns the closed form's worst case as a share of the value, for each mix; NaN unless the value is positive."""
    gains = selection.gains(np.arange(1, num_sessions + 1), exponent=exponent)
    mixes = [(effective, similar) for effective in range(steps + 1) for similar in range(steps + 1 - effective)]
    rows = []
    with stage_bar("mixes of labels", total=len(mixes)) as bar:
        for number, (effective, similar) in enumerate(mixes):
            bar.update(number)
            ratios = (effective, similar, steps - effective - similar)
            solutions = solve_both(gains, *selection.class_counts(num_sessions, ratios)[:2])
            exact, paper = solutions["exact"], solutions["closed form"]
            log_ratio = float(paper.log_scale) - float(exact.log_scale)
            value = float(exact.value)
            share = float(paper.lower) * np.exp(log_ratio) / value if value > 0 else np.nan
            rows.append({"effective": effective / steps, "similar": similar / steps, "share": share, "value": value})
    return rows


def plot(
    gains: selection.LogGains,
    solutions: dict[str, maxmin.Solution],
    selected: np.ndarray,
    mixes: list[dict[str, float]],
) -> Figure:
    """Plots the gains, the policies with the selected instances, and the sweep."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    gains_axes, policy_axes, sweep_axes = figure.subplots(1, 3)
    num = len(gains.effective)
    rank_share = np.arange(1, num + 1) / num
    for label, log_gain in (("effective", gains.effective), ("similar", gains.similar), ("loss", gains.incorrect)):
        gains_axes.plot(rank_share, np.asarray(log_gain) / np.log(10), lw=1, label=label)
    gains_axes.set(xlabel="difficulty rank (0 hardest, 1 easiest)", ylabel="log10 of the gain, easiest = 0")
    gains_axes.legend(frameon=False)
    for name, solution in solutions.items():
        policy_axes.plot(rank_share, np.exp(np.asarray(solution.log_policy)) * num, lw=1.2, label=name)
    label = f"{len(selected)} selected"
    policy_axes.plot(rank_share[selected], np.zeros(len(selected)), "|", color="black", ms=8, label=label)
    policy_axes.set(xlabel="difficulty rank (0 hardest, 1 easiest)", ylabel="probability · N")
    policy_axes.legend(frameon=False)
    effective, similar, share = (np.array([row[name] for row in mixes]) for name in ("effective", "similar", "share"))
    points = sweep_axes.scatter(effective, similar, c=100 * share, cmap="viridis", vmin=50, vmax=100, s=40)
    not_positive = np.isnan(share)
    sweep_axes.plot(effective[not_positive], similar[not_positive], "x", color="grey", ms=4)
    sweep_axes.set(xlabel="share of effective labels", ylabel="share of similar labels")
    sweep_axes.set_title("closed form, % of the value (×: value not positive)", fontsize=9)
    figure.colorbar(points, ax=sweep_axes)
    return figure


def main() -> None:
    """Entry point."""

    def game(
        sessions: int = 7_393,
        exponent: float = 10.0,
        ratios: tuple[float, float, float] = (1, 5, 4),
        asked: int = 500,
        steps: int = 10,
        seed: int = 0,
        out: pathlib.Path = pathlib.Path("runs/game"),
    ) -> None:
        """Solves and plots one game.

        Args:
            sessions: N, number of instances.
            exponent: μ of the gains rank^−μ.
            ratios: effective : similar : incorrect labels, in any unit.
            asked: number of instances sampled from the exact policy.
            steps: steps of the grid over the mixes of labels; the sweep uses at most 2,000 instances.
            seed: seed of the sample.
            out: folder for game.json and game.png.
        """
        check_count(1, **{"--sessions": sessions, "--asked": asked, "--steps": steps})
        check_count(0, **{"--seed": seed})
        counts = selection.class_counts(sessions, ratios)
        gains = selection.gains(jnp.arange(1, sessions + 1), exponent=exponent)
        solutions = solve_both(gains, *counts[:2])
        check_between(1, int(solutions["exact"].support_size), **{"--asked": asked})
        selected = np.asarray(selection.select(jax.random.key(seed), solutions["exact"].log_policy, num=asked))
        mixes = sweep(exponent, steps, min(sessions, 2_000))
        table = {name: summarize(solution, gains.log_scale) for name, solution in solutions.items()}
        print(f"{'':12}{'worst case':>12}{'bound':>12}{'· e^':>9}{'support':>9}{'mean rank':>11}")
        for name, row in table.items():
            numbers = f"{row['lower']:12.6g}{row['upper']:12.6g}{row['log_scale']:9.0f}"
            print(f"{name:12}{numbers}{row['support']:9,}{row['mean_rank_share']:10.1%}")
        finite_mixes = [mix for mix in mixes if np.isfinite(mix["share"])]
        if finite_mixes:
            worst = min(finite_mixes, key=lambda mix: mix["share"])
            print(
                "Where the value is positive, the closed form guarantees "
                f"at least {worst['share']:.1%} of it; the least is at "
                f"{worst['effective']:.0%} effective and {worst['similar']:.0%} similar labels."
            )
        out.mkdir(parents=True, exist_ok=True)
        results = {"counts": counts, "solutions": table, "sweep": mixes, "drawn": selected.tolist()}
        write_json(out / "game.json", finite_or_none(results))
        plot(gains, solutions, selected, mixes).savefig(out / "game.png", dpi=120)

    with cli_errors():
        parse(game, "game", __doc__)


if __name__ == "__main__":
    main()
