"""Training on more sessions than a process holds: memory over time and speed of each of several processes.

    python -m benchmarks.sessions_in_parts --folder DIR --sessions 100000000 --distributed HOST:PORT,2,0 --json FILE

The command is started once for each process. The first call writes the sessions as columns into the folder; the
processes map them into memory, put the rows of their devices there, and train FPMC with sampled negatives and row-wise
Adagrad. Each process writes a line with its resident memory by the second, split by what the kernel can take back
(pages of the mapped files) and what it cannot.
"""

import dataclasses
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

import alkd_jax as alkd
from alkd_jax import objectives, samplers, sharding, training

from .command_line import run_command
from .harness import Bench, machine, peak_mib, write_measurement
from .large import sessions

_BLOCK = 1_000_000


@dataclasses.dataclass(frozen=True)
class InParts(Bench):
    """Options of this benchmark.

    Attributes:
        folder: of the columns, which all processes share; they are written where there are none. By default a
            temporary one, for a single process.
        sessions: N.
        items: V.
        dim: width D.
        steps: training steps of 1,024 sessions each, with 64 negatives, in two intervals.
        mesh: devices, as data=N,model=M; by default all along the data axis.
        distributed: the processes, as of `experiments.reproduce`.
    """

    folder: pathlib.Path | None = None
    sessions: int = 100_000_000
    items: int = 10_000_000
    dim: int = 16
    steps: int = 200
    mesh: str | None = None
    distributed: str | None = None


def blocks(num: int, num_items: int) -> Iterator[alkd.Sessions]:
    """Yields learnable sessions in blocks."""
    for start in range(0, num, _BLOCK):
        yield sessions(min(_BLOCK, num - start), num_items, seed=start)


def memory_mib() -> dict[str, float]:
    """Returns the resident memory of this process: in all, and that of mapped files, which the kernel can take back."""
    lines = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[f"Rss{name}"].split()[0]) / 1024 for name in ("Anon", "File")}


class MemoryCurve:
    """Samples the memory of this process every half second, with what it is doing."""

    def __init__(self) -> None:
        self.points: list[dict[str, Any]] = []
        self.doing = "begin"
        self._began, self._ended = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(0.5):
            self.points.append({"s": round(time.monotonic() - self._began, 1), "doing": self.doing} | memory_mib())

    def peaks(self) -> dict[str, dict[str, float]]:
        """Ends the curve, and returns the peak of each kind of memory in each part of the work."""
        self._ended.set()
        self._thread.join()
        parts = dict.fromkeys(point["doing"] for point in self.points)
        return {
            part: {kind: max(p[kind] for p in self.points if p["doing"] == part) for kind in ("Anon", "File")}
            for part in parts
        }


def main(bench: Bench) -> None:
    """Trains, in one of the processes."""
    args = bench if isinstance(bench, InParts) else InParts(**dataclasses.asdict(bench))
    if args.smoke:
        args = dataclasses.replace(args, sessions=3000, items=500, dim=4, steps=2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or pathlib.Path(temporary)
        line = train_in_parts(args, folder)
    own = args.json
    if own is not None and jax.process_index() > 0:
        own = own.with_name(f"{own.stem}.{jax.process_index()}{own.suffix}")
    shown = [f"{name}: {value}" for name, value in line.items() if name != "curve"]
    write_measurement(line, dataclasses.replace(args, json=own), shown)


def train_in_parts(bench: InParts, folder: pathlib.Path) -> dict[str, Any]:
    """Trains on the sessions of a folder, and returns what was measured in this process."""
    curve = MemoryCurve()
    model = alkd.models.create("fpmc", num_items=bench.items, dim=bench.dim)
    if jax.process_index() == 0 and not (folder / "items.npy").exists():
        curve.doing = "write columns"
        source = blocks(bench.sessions, bench.items)
        alkd.data.save_columns(folder, source, num=bench.sessions, length=10)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the columns are written")
    curve.doing = "read own rows"
    mesh = sharding.make_mesh(bench.mesh or f"data={jax.device_count()}")
    train, examples = training.shard_sessions(alkd.data.map_columns(folder), mesh)
    jax.block_until_ready((train, examples))
    curve.doing = "train"
    began = time.perf_counter()
    fitted = training.fit_large(
        jax.random.key(0),
        model,
        train,
        sessions(256, bench.items, seed=2**31),
        examples=examples,
        loss=objectives.SampledLoss(model, samplers.uniform(bench.items), "softmax", num_negatives=64),
        row_optimizer=alkd.ops.embedding.adagrad(0.2, rowwise=True, initial_accumulator_value=0.0, eps=1e-20),
        steps_per_validation=max(1, bench.steps // 2),
        max_steps=bench.steps,
        keep_best=False,
        mesh=mesh,
    )
    wall = time.perf_counter() - began
    line: dict[str, Any] = {"name": "sessions_in_parts", "process": jax.process_index(), "of": jax.process_count()}
    line |= machine() | {"sessions": bench.sessions, "items": bench.items, "dim": bench.dim, "steps": bench.steps}
    line |= {"loss": fitted.history.loss[0, 1:].tolist(), "sessions_per_s": fitted.sessions_per_second}
    # One cold run; its time includes compilation.
    line |= {"rounds": 1, "yardstick": "fit_large", "wall_s": {"fit_large": wall}, "compile_s": {"fit_large": 0.0}}
    line |= {"wall_middle_s": {"fit_large": [wall, wall]}, "peak_memory_mib": {"fit_large": peak_mib()}}
    return line | {"peaks_mib": curve.peaks(), "curve": curve.points}


if __name__ == "__main__":
    run_command(main, InParts, "sessions_in_parts", __doc__)
