"""A training run on a large catalogue: time, examples per second and peak memory by the number of items.

    python -m benchmarks.large --items 100000 1000000 10000000 --json FILE

FPMC with sampled negatives and row-wise Adagrad (row-sparse updates), validated on the full catalogue. The sizes run in
ascending order in one process, so that the process's peak memory so far is that of the current size.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import objectives, samplers, training

from .command_line import run_command
from .harness import Bench, machine, peak_mib, seconds, write_measurement


@dataclasses.dataclass(frozen=True)
class Cells(Bench):
    """Options of this benchmark.

    Attributes:
        items: V, one run for each.
        dim: width D.
        sessions: number of training sessions.
        steps: training steps of 1,024 sessions each, with 64 negatives, in two intervals.
        dtype: in which the tables are stored.
    """

    items: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    dim: int = 64
    sessions: int = 200_000
    steps: int = 200
    dtype: str = "float32"


def sessions(num: int, num_items: int, *, seed: int) -> alkd.Sessions:
    """Learnable sessions: items that are adjacent in the catalogue, more often in its popular regions."""
    rng = np.random.default_rng(seed)
    start = np.clip(num_items ** rng.random(num), 1, num_items).astype(np.int64)
    walk = (start[:, None] + np.cumsum(rng.integers(1, 4, (num, 11)), axis=1)) % num_items + 1
    mask = np.arange(10) < rng.integers(4, 11, num)[:, None]
    items = np.where(mask, walk[:, :10], alkd.PAD).astype(np.int32)
    target = walk[np.arange(num), mask.sum(1)].astype(np.int32)
    return alkd.Sessions(items, mask, target, np.arange(num, dtype=np.int32))


def measure(num_items: int, bench: Cells) -> None:
    """Measures one catalogue size."""
    train, validation = sessions(bench.sessions, num_items, seed=0), sessions(64, num_items, seed=1)
    model = alkd.models.create("fpmc", num_items=num_items, dim=bench.dim)
    results: list[Any] = []

    def run() -> Any:
        fitted = training.fit_large(
            jax.random.key(0),
            model,
            train,
            validation,
            loss=objectives.SampledLoss(model, samplers.uniform(num_items), "softmax", num_negatives=64),
            row_optimizer=alkd.ops.embedding.adagrad(0.2, rowwise=True, initial_accumulator_value=0.0, eps=1e-20),
            table_dtype=bench.dtype,
            steps_per_validation=max(1, bench.steps // 2),
            max_steps=bench.steps,
            keep_best=False,
        )
        results.append(fitted.history)
        results.append(fitted.sessions_per_second)
        return fitted.params

    wall, cpu = seconds(run)
    history, speed = results
    line: dict[str, Any] = {"name": "large", "items": num_items, "dim": bench.dim, "dtype": bench.dtype}
    line |= machine() | {"rounds": 1, "yardstick": "fit_large", "steps": bench.steps}
    line |= {"loss": history.loss[0, 1:].tolist(), "recall@25": history.recall[0, 1:].tolist(), "sessions_per_s": speed}
    line |= {"wall_s": {"fit_large": wall}, "cpu_s": {"fit_large": cpu}, "wall_middle_s": {"fit_large": [wall, wall]}}
    # This is one cold run; its time includes compilation.
    line |= {"compile_s": {"fit_large": 0.0}, "peak_memory_mib": {"fit_large": peak_mib()}}
    write_measurement(line, bench)


def main(bench: Bench) -> None:
    """Measures every catalogue size."""
    args = bench if isinstance(bench, Cells) else Cells(**dataclasses.asdict(bench))
    if bench.smoke:
        args = dataclasses.replace(args, items=(500,), dim=4, sessions=1100, steps=2)
    for items in sorted(args.items):
        measure(items, args)


if __name__ == "__main__":
    run_command(main, Cells, "large", __doc__)
