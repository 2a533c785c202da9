"""The selection game: the exact solver against HiGHS, against a sort and against re-solving; its passes over the data.

python -m benchmarks.selection --json FILE
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from scipy.optimize import linprog

from alkd_jax import maxmin, selection
from alkd_jax.maxmin.instances import ScaledValue, evaluate_constraint, from_gains

from .command_line import run_command
from .harness import Bench, compare


def solve_with_highs(gain: np.ndarray, num_effective: int, num_similar: int) -> float:
    """The value of the paper's game by HiGHS: the smallest Γ that the adversary can force."""
    num = len(gain)
    scaled = gain / gain.min()
    sparse: Any = scipy.sparse
    occupancy = sparse.hstack([sparse.identity(num)] * 2 + [sparse.csr_matrix((num, 1))])
    payoff = sparse.hstack([sparse.diags(1.5 * scaled), sparse.diags(scaled), -np.ones((num, 1))])
    totals = np.zeros((2, 2 * num + 1))
    totals[0, :num] = totals[1, num:-1] = 1
    program: dict[str, Any] = {
        "c": np.append(np.zeros(2 * num), 1.0),
        "A_ub": sparse.vstack([payoff, occupancy]).tocsr(),
        "b_ub": np.append(scaled / 2, np.ones(num)),
        "A_eq": sparse.csr_matrix(totals),
        "b_eq": [num_effective, num_similar],
        "bounds": [(0, None)] * (2 * num) + [(None, None)],
    }
    result: Any = linprog(**program, method="highs")
    return float(result.fun) * float(gain.min())


def resolve_in_numpy(num: int, num_draws: int) -> list[int]:
    """Draws with the closed form of the remaining sessions solved again before every draw, in float64 on the host."""
    rng, remaining, drawn = np.random.default_rng(0), np.arange(num), []
    for _ in range(num_draws):
        num_left = len(remaining)
        gain = np.arange(1.0, num_left + 1) ** -10
        forfeit = np.where(np.arange(num_left) < num_left - num_left // 10, gain / 2, gain)
        weight = 1 / (forfeit + gain / 2)
        num_incorrect = num_left - num_left // 10 - num_left // 2
        best = int(((np.cumsum(forfeit * weight) - num_incorrect) / np.cumsum(weight)).argmax())
        index = rng.choice(max(best, 1), p=weight[: max(best, 1)] / weight[: max(best, 1)].sum())
        drawn.append(int(remaining[index]))
        remaining = np.delete(remaining, index)
    return drawn


def power_law(num: int, exponent: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The paper's gains as logarithms, on the host."""
    log_gain = (-exponent * np.log(np.arange(1, num + 1) / num)).astype(np.float32)
    return log_gain, log_gain + np.float32(np.log(0.5)), log_gain + np.float32(np.log(0.5))


def main(bench: Bench) -> None:
    """Measures the paper's setting and its draws, proportional gains against a sort, and general gains."""
    num = 300 if bench.smoke else 12_054
    num_effective, num_similar, _ = selection.class_counts(num)
    # HiGHS cannot distinguish rank^-10 from zero at this size; it gets the same program with an exponent of 1.
    mild, steep = power_law(num, 1.0), power_law(num, 10.0)
    game = maxmin.RankedGame(np.arange(1, num + 1), policy="closed_form", drop_last=True)
    key, num_draws = jax.random.key(0), 20 if bench.smoke else 500

    def solve(*gains: np.ndarray | jax.Array) -> maxmin.Solution:
        return maxmin.solve(*gains, num_effective=num_effective, num_similar=num_similar, log_gains=True)

    candidates: dict[str, Callable[[], Any]] = {
        "solve": lambda: solve(*steep),
        "solve, exponent 1": lambda: solve(*mild),
        "HiGHS, exponent 1": lambda: solve_with_highs(np.exp(mild[0]), num_effective, num_similar),
        "solve and draw": lambda: selection.select(key, solve(*steep).log_policy, num=num_draws),
        "re-solve in numpy": lambda: resolve_in_numpy(num, num_draws),
        "re-solve before each draw": lambda: selection.select(key, game, num=num_draws, resolve="each"),
    }
    compare("selection", candidates, bench, what="the paper's setting", sessions=num, draws=num_draws)

    num = 2_000 if bench.smoke else 10**7
    num_effective, num_similar, _ = selection.class_counts(num)
    shuffled = jnp.asarray(np.random.default_rng(0).permutation(power_law(num, 10.0)[0]))
    shuffled_half = shuffled + np.float32(np.log(0.5))
    proportional: dict[str, Callable[[], Any]] = {
        "sort": lambda: jnp.sort(shuffled),
        "solve": lambda: solve(shuffled, shuffled_half, shuffled_half),
    }
    compare("selection", proportional, bench, what="proportional gains", sessions=num)

    num = 2_000 if bench.smoke else 10**6
    rng = np.random.default_rng(0)
    effective = rng.gamma(0.7, size=num).astype(np.float32) + np.float32(1e-3)
    similar = effective * rng.uniform(0.05, 0.95, num).astype(np.float32)
    incorrect = effective * rng.gamma(1.0, size=num).astype(np.float32) + np.float32(1e-3)
    num_effective, num_similar, _ = selection.class_counts(num)
    general = (jnp.asarray(effective), jnp.asarray(similar), jnp.asarray(incorrect))

    def solve_general() -> maxmin.Solution:
        return maxmin.solve(*general, num_effective=num_effective, num_similar=num_similar)

    solution = solve_general()
    instances = from_gains(*general, log_gains=False)
    value = ScaledValue(jnp.float32(0.1), jnp.int32(0))
    evaluate_once = jax.jit(evaluate_constraint)
    candidates_general: dict[str, Callable[[], Any]] = {
        "one pass": lambda: evaluate_once(instances, jnp.float32(0.8), value, num_effective, num_similar),
        "solve": solve_general,
    }
    gap = float((solution.upper - solution.lower) / abs(solution.value))
    about: dict[str, Any] = {"what": "general gains", "sessions": num, "passes": int(solution.num_passes), "gap": gap}
    compare("selection", candidates_general, bench, **about)


if __name__ == "__main__":
    run_command(main, Bench, "selection", __doc__)
