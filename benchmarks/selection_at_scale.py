"""The selection stage at up to 10^8 sessions: difficulty in batches, ranks, the game, the draw; time and memory.

    python -m benchmarks.selection_at_scale --sessions 100000000 --json FILE

The sessions lie in memory-mapped files of a temporary folder (50 bytes each) and are read batch by batch. The benchmark
is one cold run; its times include compilation. The line holds the mean rank of the drawn sessions and the mean rank
that is expected of successive sampling.
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import maxmin, selection

from .command_line import run_command
from .harness import Bench, machine, peak_mib, seconds, write_measurement

_BLOCK = 2**20
"""Sessions generated at a time."""
_LENGTH = 10


@dataclasses.dataclass(frozen=True)
class Sizes(Bench):
    """Options of this benchmark.

    Attributes:
        sessions: N, number of sessions.
        items: V, size of the catalogue.
        dim: width D of the teacher.
        batch: sessions encoded at a time.
        share: share of the sessions that is drawn, in (0, 1].
        policy: "exact", or the paper's "closed_form".
    """

    sessions: int = 1_000_000
    items: int = 100_000
    dim: int = 16
    batch: int = 2**16
    share: float = 0.01
    policy: str = "exact"


def write_sessions(folder: pathlib.Path, sizes: Sizes) -> None:
    """Writes sessions of 4 to 10 items whose popularity is proportional to one over the rank."""
    with (folder / "items").open("wb") as items_file, (folder / "mask").open("wb") as mask_file:
        for block, first in enumerate(range(0, sizes.sessions, _BLOCK)):
            rng = np.random.default_rng((0, block))
            size = min(_BLOCK, sizes.sessions - first), _LENGTH
            mask = np.arange(_LENGTH) < rng.integers(4, _LENGTH + 1, size[0])[:, None]
            sampled = np.exp(rng.random(size, np.float32) * np.float32(np.log(sizes.items))).astype(np.int32)
            np.where(mask, np.clip(sampled, 1, sizes.items), alkd.PAD).astype(np.int32).tofile(items_file)
            mask.tofile(mask_file)


def measure_difficulty(folder: pathlib.Path, sizes: Sizes) -> np.ndarray:
    """The difficulty of the sessions in the files, by an untrained teacher."""
    shape = sizes.sessions, _LENGTH
    items, mask = (
        np.memmap(folder / "items", np.int32, "r", shape=shape),
        np.memmap(folder / "mask", bool, "r", shape=shape),
    )
    model = alkd.models.create("fpmc", num_items=sizes.items, dim=sizes.dim)
    params = alkd.models.init_params(jax.random.key(0), model)
    return selection.session_difficulty(model, params, items, mask, batch_size=sizes.batch)


def expected_mean_rank(by_rank: np.ndarray, num: int) -> float:
    """The expected mean rank of sessions drawn without replacement, divided by N, up to terms of order 1/N.

    Successive sampling orders the sessions by independent exponential waiting times of rates p; session i is among the
    first `num` with probability 1 − exp(−p_i t), where t solves Σ_i 1 − exp(−p_i t) = num. At most about 2^16 sessions,
    evenly spaced in rank, stand for all.

    Args:
        by_rank: ``[N]`` log p in the order of rank.
        num: number of sessions drawn.
    """
    log_policy, share = by_rank[:: max(1, len(by_rank) // 2**16)].astype(np.float64), num / len(by_rank)
    low, high = -100.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        inclusion = -np.expm1(-np.exp(log_policy + middle))
        low, high = (middle, high) if inclusion.mean() < share else (low, middle)
    return float((inclusion * (np.arange(len(inclusion)) + 0.5)).sum() / inclusion.sum() / len(inclusion))


def solve_game(rank: jax.Array, sizes: Sizes) -> maxmin.Solution:
    """Solves the game with the paper's gains, which are freed on return."""
    gains = selection.gains(rank)
    num_effective, num_similar, _ = selection.class_counts(sizes.sessions)
    method = maxmin.solve if sizes.policy == "exact" else maxmin.closed_form
    payoffs = gains.effective, gains.similar, gains.incorrect
    return method(*payoffs, num_effective=num_effective, num_similar=num_similar, log_gains=True)


def measure(sizes: Sizes, folder: pathlib.Path) -> dict[str, Any]:
    """Runs and measures the selection stage once."""
    line: dict[str, Any] = {"name": "selection_at_scale", **machine(), "rounds": 1, "yardstick": "difficulty"}
    line |= {name: value for name, value in dataclasses.asdict(sizes).items() if name not in Bench.__annotations__}
    line |= {kind: {} for kind in ("wall_s", "cpu_s", "wall_middle_s", "compile_s", "peak_memory_mib")}

    def part(label: str, work: Callable[[], Any]) -> Any:
        results: list[Any] = []

        def run() -> list[Any]:
            results.append(work())
            return results

        wall, cpu = seconds(run)
        line["wall_s"][label], line["cpu_s"][label], line["compile_s"][label] = wall, cpu, 0.0
        line["wall_middle_s"][label], line["peak_memory_mib"][label] = [wall, wall], peak_mib()
        print(f"{label}: {wall:.1f} s, {cpu:.1f} CPU s, peak so far {peak_mib():.0f} MiB", flush=True)
        return results.pop()

    start = time.perf_counter()
    write_sessions(folder, sizes)
    line["made_s"] = time.perf_counter() - start
    # A list, from which the array is removed when it is used, so that no reference keeps it in memory.
    difficulty = [part("difficulty", lambda: measure_difficulty(folder, sizes))]
    rank = part("rank", lambda: selection.difficulty_rank(difficulty.pop()))
    solution = part("game", lambda: solve_game(rank, sizes))
    line |= {name: float(getattr(solution, name)) for name in ("lower", "value", "upper")}
    line |= {"support_size": int(solution.support_size), "passes": int(solution.num_passes)}
    policy, num = solution.log_policy, max(1, int(sizes.share * sizes.sessions))
    del solution
    selected = part("draw", lambda: selection.select(jax.random.key(1), policy, num=num))
    by_rank = np.empty(sizes.sessions, np.float32)
    by_rank[np.asarray(rank) - 1] = np.asarray(policy)
    line |= {"drawn": num, "distinct": len(np.unique(np.asarray(selected)))}
    line["mean_rank"] = float(np.asarray(rank)[np.asarray(selected)].mean(dtype=np.float64) / sizes.sessions)
    return line | {"expected_mean_rank": expected_mean_rank(by_rank, num)}


def main(bench: Bench) -> None:
    """Runs the selection stage once."""
    sizes = bench if isinstance(bench, Sizes) else Sizes(**dataclasses.asdict(bench))
    if sizes.smoke:
        sizes = dataclasses.replace(sizes, sessions=5_000, items=300, dim=4, batch=512)
    with tempfile.TemporaryDirectory() as folder:
        write_measurement(measure(sizes, pathlib.Path(folder)), sizes)


if __name__ == "__main__":
    run_command(main, Sizes, "selection_at_scale", __doc__)
