"""The selection game by itself: what the exact policy and the paper's closed form ask for, and what they guarantee.

    python -m experiments.game --sessions 7393 --exponent 10 --ratios 1 5 4 --out runs/game

Writes `game.json` and `game.png`, and prints a table. The sweep shows, for every mix of effective, similar and
incorrect labels, which part of the value of the game the closed form guarantees.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from alkd_jax import maxmin, selection
from alkd_jax.io import write_json

from .reporting.console import cli_errors


def solve_both(gains: selection.LogGains, num_effective: int, num_similar: int) -> dict[str, maxmin.Solution]:
    """The exact solution and the paper's closed form of one game."""
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


def about(solution: maxmin.Solution, log_scale: float) -> dict[str, float]:
    """What is printed of a solution: guarantee and proof as numbers times exp(log_scale), support, mean rank."""
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
    """The guaranteed share of the value on a grid over the mixes of labels; where the value is not positive, none."""
    gains = selection.gains(np.arange(1, num_sessions + 1), exponent=exponent)
    rows = []
    for effective in range(steps + 1):
        for similar in range(steps + 1 - effective):
            ratios = (effective, similar, steps - effective - similar)
            both = solve_both(gains, *selection.class_counts(num_sessions, ratios)[:2])
            exact, paper = both["exact"], both["closed form"]
            log_ratio = float(paper.log_scale) - float(exact.log_scale)
            value = float(exact.value)
            share = float(paper.lower) * np.exp(log_ratio) / value if value > 0 else np.nan
            rows.append({"effective": effective / steps, "similar": similar / steps, "share": share, "value": value})
    return rows


def draw(
    gains: selection.LogGains,
    both: dict[str, maxmin.Solution],
    chosen: np.ndarray,
    mixes: list[dict[str, float]],
) -> Figure:
    """Gains, policies with the drawn instances, and the sweep."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    num = len(gains.effective)
    place = np.arange(1, num + 1) / num
    for label, log_gain in (("effective", gains.effective), ("similar", gains.similar), ("loss", gains.incorrect)):
        left.plot(place, np.asarray(log_gain) / np.log(10), lw=1, label=label)
    left.set(xlabel="difficulty rank (0 hardest, 1 easiest)", ylabel="log10 of the gain, easiest = 0")
    left.legend(frameon=False)
    for name, solution in both.items():
        middle.plot(place, np.exp(np.asarray(solution.log_policy)) * num, lw=1.2, label=name)
    middle.plot(place[chosen], np.zeros(len(chosen)), "|", color="black", ms=8, label=f"{len(chosen)} drawn")
    middle.set(xlabel="difficulty rank (0 hardest, 1 easiest)", ylabel="probability · N")
    middle.legend(frameon=False)
    columns = (np.array([row[name] for row in mixes]) for name in ("effective", "similar", "share"))
    effective, similar, share = columns
    shown = right.scatter(effective, similar, c=100 * share, cmap="viridis", vmin=50, vmax=100, s=40)
    lost = np.isnan(share)
    right.plot(effective[lost], similar[lost], "x", color="grey", ms=4)
    right.set(xlabel="share of effective labels", ylabel="share of similar labels")
    right.set_title("closed form, % of the value (×: value not positive)", fontsize=9)
    figure.colorbar(shown, ax=right)
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
        """Solves, compares and draws one game.

        Args:
            sessions: N, number of instances.
            exponent: μ of the gains rank^−μ.
            ratios: effective, similar and incorrect labels, in any unit.
            asked: instances drawn from the exact policy.
            steps: of the grid over the mixes of labels; the sweep takes at most 2,000 instances.
            seed: of the draw.
            out: folder that gets game.json and game.png.
        """
        counts = selection.class_counts(sessions, ratios)
        gains = selection.gains(jnp.arange(1, sessions + 1), exponent=exponent)
        both = solve_both(gains, *counts[:2])
        chosen = np.asarray(selection.select(jax.random.key(seed), both["exact"].log_policy, num=asked))
        mixes = sweep(exponent, steps, min(sessions, 2_000))
        table = {name: about(solution, gains.log_scale) for name, solution in both.items()}
        print(f"{'':12}{'guarantee':>12}{'proof':>12}{'· e^':>9}{'support':>9}{'mean rank':>11}")
        for name, row in table.items():
            numbers = f"{row['lower']:12.6g}{row['upper']:12.6g}{row['log_scale']:9.0f}"
            print(f"{name:12}{numbers}{row['support']:9,}{row['mean_rank_share']:10.1%}")
        known = [mix for mix in mixes if np.isfinite(mix["share"])]
        if known:
            worst = min(known, key=lambda mix: mix["share"])
            print(
                f"Where the value is positive the closed form guarantees {worst['share']:.1%} of it or more, least at "
                f"{worst['effective']:.0%} effective and {worst['similar']:.0%} similar labels."
            )
        out.mkdir(parents=True, exist_ok=True)
        plain = [{key: None if np.isnan(value) else value for key, value in mix.items()} for mix in mixes]
        for row in table.values():
            row["theta"] = None if np.isnan(row["theta"]) else row["theta"]  # type: ignore[assignment]
            row["upper"] = None if np.isinf(row["upper"]) else row["upper"]  # type: ignore[assignment]
        write_json(out / "game.json", {"counts": counts, "solutions": table, "sweep": plain, "drawn": chosen.tolist()})
        draw(gains, both, chosen, mixes).savefig(out / "game.png", dpi=120)

    with cli_errors():
        tyro.cli(game, description=__doc__)


if __name__ == "__main__":
    main()
