"""The whole selection hop: difficulty in batches, ranks, the game, the draw; time and memory of each, by sessions.

python -m benchmarks.hop --sessions 100000000 --json FILE

Sessions lie in files of a temporary folder (50 bytes each), memory-mapped, and are read as they are rated. One
cold run: what is compiled is within its times. The line tells the draw's mean rank beside the one that successive
sampling has.
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro

import alkd_jax as alkd
from alkd_jax import maxmin, selection
from benchmarks.harness import Bench, machine, peak_mib, seconds, tell

_BLOCK = 2**20
"""Sessions that are made at a time."""
_LENGTH = 10


@dataclasses.dataclass(frozen=True)
class Sizes(Bench):
    """What is asked of this benchmark.

    Attributes:
        sessions: N.
        items: V.
        dim: D of the teacher.
        batch: sessions encoded at a time.
        share: of the sessions that is drawn.
        policy: "exact", or the paper's "closed_form".
    """

    sessions: int = 1_000_000
    items: int = 100_000
    dim: int = 16
    batch: int = 2**16
    share: float = 0.01
    policy: str = "exact"


def write_sessions(folder: pathlib.Path, sizes: Sizes) -> None:
    """Sessions of 4 to 10 items whose popularity falls off as one over the rank."""
    with (folder / "items").open("wb") as items_file, (folder / "mask").open("wb") as mask_file:
        for number, first in enumerate(range(0, sizes.sessions, _BLOCK)):
            rng = np.random.default_rng((0, number))
            size = min(_BLOCK, sizes.sessions - first), _LENGTH
            real = np.arange(_LENGTH) < rng.integers(4, _LENGTH + 1, size[0])[:, None]
            drawn = np.exp(rng.random(size, np.float32) * np.float32(np.log(sizes.items))).astype(np.int32)
            np.where(real, np.clip(drawn, 1, sizes.items), alkd.PAD).astype(np.int32).tofile(items_file)
            real.tofile(mask_file)


def rate(folder: pathlib.Path, sizes: Sizes) -> np.ndarray:
    """The difficulty of the sessions in the files, by a teacher as it is drawn."""
    shape = sizes.sessions, _LENGTH
    items, mask = (
        np.memmap(folder / "items", np.int32, "r", shape=shape),
        np.memmap(folder / "mask", bool, "r", shape=shape),
    )
    model = alkd.models.create("fpmc", num_items=sizes.items, dim=sizes.dim)
    params = alkd.models.init_params(jax.random.key(0), model)
    return selection.session_difficulty(model, params, items, mask, batch_size=sizes.batch)


def expected_mean_rank(by_rank: np.ndarray, num: int) -> float:
    """The mean rank of a draw without replacement over N, to the order of 1/N; by how long each session would wait.

    Args:
        by_rank: ``[N]`` log p in the order of rank; so many that a thousand of them are enough to tell.
        num: drawn.
    """
    log_policy, share = by_rank[:: max(1, len(by_rank) // 2**16)].astype(np.float64), num / len(by_rank)
    low, high = -100.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        drawn = -np.expm1(-np.exp(log_policy + middle))
        low, high = (middle, high) if drawn.mean() < share else (low, middle)
    return float((drawn * (np.arange(len(drawn)) + 0.5)).sum() / drawn.sum() / len(drawn))


def play(rank: jax.Array, sizes: Sizes) -> maxmin.Solution:
    """The policy of the paper's gains; these are gone when it is there."""
    gains = selection.gains(rank)
    num_effective, num_similar, _ = selection.class_counts(sizes.sessions)
    method = maxmin.solve if sizes.policy == "exact" else maxmin.closed_form
    stakes = gains.effective, gains.similar, gains.incorrect
    return method(*stakes, num_effective=num_effective, num_similar=num_similar, log_gains=True)


def measure(sizes: Sizes, folder: pathlib.Path) -> dict[str, Any]:
    """One run of the hop."""
    line: dict[str, Any] = {"name": "hop", **machine(), "rounds": 1, "yardstick": "difficulty"}
    line |= {name: value for name, value in dataclasses.asdict(sizes).items() if name not in Bench.__annotations__}
    line |= {kind: {} for kind in ("wall_s", "cpu_s", "wall_middle_s", "compile_s", "peak_memory_mib")}

    def part(label: str, work: Callable[[], Any]) -> Any:
        kept: list[Any] = []

        def keep() -> list[Any]:
            kept.append(work())
            return kept

        wall, cpu = seconds(keep)
        line["wall_s"][label], line["cpu_s"][label], line["compile_s"][label] = wall, cpu, 0.0
        line["wall_middle_s"][label], line["peak_memory_mib"][label] = [wall, wall], peak_mib()
        print(f"{label}: {wall:.1f} s, {cpu:.1f} CPU s, peak so far {peak_mib():.0f} MiB", flush=True)
        return kept.pop()

    began = time.perf_counter()
    write_sessions(folder, sizes)
    line["made_s"] = time.perf_counter() - began
    # Taken out of the list, so that nothing keeps it when it has served.
    rated = [part("difficulty", lambda: rate(folder, sizes))]
    rank = part("rank", lambda: selection.difficulty_rank(rated.pop()))
    solution = part("game", lambda: play(rank, sizes))
    line |= {name: float(getattr(solution, name)) for name in ("lower", "value", "upper")}
    line |= {"support_size": int(solution.support_size), "passes": int(solution.num_passes)}
    policy, num = solution.log_policy, max(1, int(sizes.share * sizes.sessions))
    del solution
    chosen = part("draw", lambda: selection.select(jax.random.key(1), policy, num=num))
    by_rank = np.empty(sizes.sessions, np.float32)
    by_rank[np.asarray(rank) - 1] = np.asarray(policy)
    line |= {"drawn": num, "distinct": len(np.unique(np.asarray(chosen)))}
    line["mean_rank"] = float(np.asarray(rank)[np.asarray(chosen)].mean(dtype=np.float64) / sizes.sessions)
    return line | {"expected_mean_rank": expected_mean_rank(by_rank, num)}


def main(bench: Bench) -> None:
    """Runs the hop once."""
    sizes = bench if isinstance(bench, Sizes) else Sizes(**dataclasses.asdict(bench))
    if sizes.smoke:
        sizes = dataclasses.replace(sizes, sessions=5_000, items=300, dim=4, batch=512)
    with tempfile.TemporaryDirectory() as folder:
        tell(measure(sizes, pathlib.Path(folder)), sizes)


if __name__ == "__main__":
    main(tyro.cli(Sizes, description=__doc__))
