"""Many devices: training, sparse updates, ranks, top-k and sampling on 1 to 8 devices, one process per device count.

    python -m benchmarks.scaling --json FILE

On a CPU the devices are virtual and share its cores, so the benchmark shows what partitioning the work costs, not what
more devices would gain.
"""

import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import alkd_jax as alkd
from alkd_jax import objectives, scoring, selection, sharding, training
from alkd_jax.ops import embedding
from alkd_jax.training import examples
from alkd_jax.training import interval as programs
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.steppers.dense import Dense

from . import synthetic_sessions
from .command_line import run_command
from .harness import Bench, machine, middle_half, peak_mib, seconds, write_measurement

MESHES: Mapping[int, str] = {1: "model=1", 2: "model=2", 4: "data=2,model=2", 8: "data=2,model=4"}

_CODE = "from {package} import scaling; scaling.child({mesh!r}, {sizes!r}, {rounds})"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the measured programs.

    Attributes:
        items: V, size of the catalogue.
        dim: width D.
        sessions: number of training sessions.
        batch: sessions in a batch.
        steps: training steps in a sample.
        policy: N, sessions to draw from.
        drawn: number of sessions drawn.
    """

    items: int = 100_000
    dim: int = 64
    sessions: int = 4_096
    batch: int = 512
    steps: int = 2
    policy: int = 2**22
    drawn: int = 50_000


@dataclasses.dataclass(frozen=True)
class Counts(Bench):
    """Options of this benchmark.

    Attributes:
        devices: device counts to measure, out of 1, 2, 4 and 8; the first is the yardstick.
    """

    devices: tuple[int, ...] = tuple(MESHES)


SMOKE = Sizes(items=300, dim=4, sessions=128, batch=32, steps=2, policy=2_000, drawn=100)


def train(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """Dense training steps with in-batch BPR; the interval validates on only eight sessions."""
    model = alkd.models.create("fpmc", num_items=sizes.items, dim=sizes.dim)
    data = synthetic_sessions.random_sessions(sizes.sessions, sizes.items)
    params = jax.tree.map(lambda leaf: leaf[None], alkd.models.init_params(jax.random.key(0), model))
    layout = sharding.layout_of(params, sizes.items + 1, mesh, leading_axes=1)
    assert layout is not None
    stepper = Dense(model, optax.adam(1e-3), layout=dataclasses.replace(layout, leading_axes=0))
    interval = programs.Interval(stepper, sizes.batch, sizes.steps, 25, validation_batch=8, has_seed_axis=True)
    validation = jax.tree.map(lambda array: array[:8], data)
    training_data = TrainingData(examples.last_item_examples(data), data, validation, objectives.InBatchBPR(model))
    training_data, keys = sharding.device_put_global(
        (training_data, training.seed_keys(jax.random.key(1), 1)), layout.replicated
    )
    with sharding.use_mesh(mesh):
        state, num_steps = programs.init_state(interval, layout.device_put(params)), 0

    def run() -> Any:
        nonlocal state, num_steps
        with sharding.use_mesh(mesh):
            state, metrics = programs.take_steps(interval, state, keys, training_data, np.int32(num_steps))
            recall = programs.validate(interval, state, training_data.validation)
        num_steps += sizes.steps
        return metrics, recall

    return run


def update(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """Updates of a table by lazy Adam on the rows of a batch."""
    optimizer = embedding.adam(1e-3)
    rows = sizes.items + -sizes.items % mesh.shape["model"]
    table = jax.device_put(jnp.zeros((rows, sizes.dim)), NamedSharding(mesh, P("model")))
    ids = jax.random.randint(jax.random.key(0), (8 * sizes.batch,), 1, sizes.items)
    gradients = jax.random.normal(jax.random.key(1), (len(ids), sizes.dim))
    ids, gradients = jax.device_put((ids, gradients), NamedSharding(mesh, P("data")))
    step = jax.jit(functools.partial(embedding.update_sharded, optimizer, mesh), donate_argnums=(0, 1))
    state = table, optimizer.init(table)

    def run() -> Any:
        nonlocal state
        for _ in range(10):
            state = step(*state, ids, gradients)
        return state

    return run


def rank(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """Ranks of a batch's targets."""
    model = alkd.models.create("fpmc", num_items=sizes.items, dim=sizes.dim)
    params = alkd.models.init_params(jax.random.key(0), model)
    layout = sharding.layout_of(params, sizes.items + 1, mesh)
    assert layout is not None
    placed = layout.device_put(params)
    data = synthetic_sessions.random_sessions(sizes.batch, sizes.items)

    @jax.jit
    def ranks(params: Any, items: Any, mask: Any, target: Any) -> Any:
        params = layout.unpad_rows(params)
        table = model.apply(params, method="item_embeddings")
        return scoring.full_catalogue_rank(model.apply(params, items, mask), table, target, exclude=items)

    def run() -> Any:
        with sharding.use_mesh(mesh):
            return ranks(placed, data.items, data.mask, data.target)

    return run


def top_k(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """Top-100 lists of a batch."""
    rows = sizes.items + 1 + -(sizes.items + 1) % mesh.shape["model"]
    table = jax.device_put(jax.random.normal(jax.random.key(0), (rows, sizes.dim)), NamedSharding(mesh, P("model")))
    vectors = jax.random.normal(jax.random.key(1), (sizes.batch, sizes.dim))
    exclude = jnp.zeros((sizes.batch, 1), jnp.int32)
    arrays = jax.device_put((vectors, exclude), NamedSharding(mesh, P("data")))
    compiled = jax.jit(lambda u, e, y: scoring.top_k(u, y, 100, exclude=e, mesh=mesh))
    return lambda: compiled(*arrays, table)


def draw(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """A draw without replacement with probabilities proportional to rank^10."""
    policy = 10 * np.log((np.arange(sizes.policy, dtype=np.float64) + 1) / sizes.policy).astype(np.float32)
    key = jax.random.key(0)
    return lambda: selection.select(key, policy, num=sizes.drawn, mesh=mesh)


CASES: Mapping[str, Callable[[Mesh, Sizes], Callable[[], Any]]] = {
    "training": train,
    "sparse update": update,
    "ranks": rank,
    "top 100": top_k,
    "draw": draw,
}


def child(mesh: str, sizes: dict[str, int], rounds: int) -> None:
    """Measures every case on one mesh and prints the samples; runs in a process of its own."""
    samples_of = {}
    for case, make in CASES.items():
        work = make(sharding.make_mesh(mesh), Sizes(**sizes))
        before = peak_mib()
        first, _ = seconds(work)
        growth = peak_mib() - before
        samples = [seconds(work) for _ in range(rounds)]
        wall, cpu = zip(*samples, strict=True)
        samples_of[case] = {"first": first, "peak": growth, "wall": wall, "cpu": cpu}
    print(json.dumps(samples_of))


def measure(num_devices: int, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Runs :func:`child` with this number of devices and returns its samples."""
    environment = dict(os.environ)
    if jax.default_backend() == "cpu":
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={num_devices}"
    code = _CODE.format(package=__package__, mesh=MESHES[num_devices], sizes=dataclasses.asdict(sizes), rounds=rounds)
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if completed.returncode:
        raise RuntimeError(f"{num_devices} devices: {completed.stderr[-2000:]}")
    return json.loads(completed.stdout.splitlines()[-1])


def main(bench: Bench) -> None:
    """Measures every case on every available device count."""
    args = bench if isinstance(bench, Counts) else Counts(**dataclasses.asdict(bench))
    sizes, counts = (SMOKE, (1, 2)) if bench.smoke else (Sizes(), args.devices)
    if jax.default_backend() != "cpu":
        counts = tuple(count for count in counts if count <= jax.device_count())
    samples = {MESHES[count]: measure(count, sizes, bench.rounds) for count in counts}
    for case in CASES:
        of_case = {mesh: cases[case] for mesh, cases in samples.items()}
        reference = of_case[MESHES[counts[0]]]
        measurement: dict[str, Any] = {"name": "scaling", "what": case, **dataclasses.asdict(sizes), **machine()}
        measurement |= {"rounds": bench.rounds, "yardstick": MESHES[counts[0]]}
        for kind in ("wall", "cpu"):
            medians = {mesh: statistics.median(case_samples[kind]) for mesh, case_samples in of_case.items()}
            measurement[f"{kind}_s"] = medians
            measurement[f"{kind}_middle_s"] = {
                mesh: middle_half(case_samples[kind]) for mesh, case_samples in of_case.items()
            }
            ratios = {mesh: value / max(statistics.median(reference[kind]), 1e-9) for mesh, value in medians.items()}
            measurement[f"{kind}_ratio"] = ratios
        wall = measurement["wall_s"]
        measurement["compile_s"] = {
            mesh: max(0.0, case_samples["first"] - wall[mesh]) for mesh, case_samples in of_case.items()
        }
        measurement["peak_memory_mib"] = {mesh: case_samples["peak"] for mesh, case_samples in of_case.items()}
        write_measurement(measurement, bench)


if __name__ == "__main__":
    run_command(main, Counts, "scaling", __doc__)
