"""Many devices: training, sparse updates, ranks, lists and draws on 1 to 8 of them, each number in its own process.

python -m benchmarks.scaling --json FILE

On a CPU the devices are virtual and share its cores: what is seen there is what cutting the work costs, not what more
devices would gain.
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
import tyro
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import alkd_jax as alkd
from alkd_jax import scoring, selection, sharding, training
from alkd_jax.ops import embedding
from alkd_jax.training import examples
from alkd_jax.training.steppers import dense as programs
from benchmarks import worlds
from benchmarks.harness import Bench, machine, middle, peak_mib, seconds, tell

MESHES: Mapping[int, str] = {1: "model=1", 2: "model=2", 4: "data=2,model=2", 8: "data=2,model=4"}

_CODE = "from benchmarks import scaling; scaling.child({mesh!r}, {sizes!r}, {rounds})"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is computed.

    Attributes:
        items: V.
        dim: D.
        sessions: to learn from.
        batch: sessions at a time.
        steps: of training, a sample.
        policy: N, sessions to draw from.
        drawn: how many.
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
    """What is asked of this benchmark.

    Attributes:
        devices: numbers of them to measure, of 1, 2, 4 and 8; the first is the yardstick.
    """

    devices: tuple[int, ...] = tuple(MESHES)


SMOKE = Sizes(items=300, dim=4, sessions=128, batch=32, steps=2, policy=2_000, drawn=100)


def train(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """Steps of dense training by in-batch BPR; the interval validates on eight sessions, which is next to nothing."""
    model = alkd.models.create("fpmc", num_items=sizes.items, dim=sizes.dim)
    data = worlds.random_sessions(sizes.sessions, sizes.items)
    params = jax.tree.map(lambda leaf: leaf[None], alkd.models.init_params(jax.random.key(0), model))
    layout = sharding.layout_of(params, sizes.items + 1, mesh, lead=1)
    assert layout is not None
    program = programs.TrainStep(
        model=model,
        loss=training.in_batch_loss(model),
        optimizer=optax.adam(1e-3),
        batch_size=sizes.batch,
        steps=sizes.steps,
        patience=10**9,
        recall_at=25,
        validation_batch=8,
        layout=dataclasses.replace(layout, lead=0),
    )
    few = jax.tree.map(lambda array: array[:8], data)
    material = programs.TrainingData(examples.last_item_examples(data), data, few, None)
    material, keys = sharding.device_put_global((material, training.seed_keys(jax.random.key(1), 1)), layout.whole)
    placed, taken = layout.place(params), 0
    with sharding.use_mesh(mesh):
        state = programs.start(program, jax.tree.map(jnp.copy, placed), placed, material.validation)

    def run() -> Any:
        nonlocal state, taken
        with sharding.use_mesh(mesh):
            state, seen = programs.interval(program, state, keys, material, np.int32(taken))
        taken += sizes.steps
        return seen

    return run


def update(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """Steps of lazy Adam on the rows of a batch."""
    optimizer = embedding.adam(1e-3)
    rows = sizes.items + -sizes.items % mesh.shape["model"]
    table = jax.device_put(jnp.zeros((rows, sizes.dim)), NamedSharding(mesh, P("model")))
    ids = jax.random.randint(jax.random.key(0), (8 * sizes.batch,), 1, sizes.items)
    gradients = jax.random.normal(jax.random.key(1), (len(ids), sizes.dim))
    ids, gradients = jax.device_put((ids, gradients), NamedSharding(mesh, P("data")))
    step = jax.jit(functools.partial(embedding.update_parts, optimizer, mesh), donate_argnums=(0, 1))
    held = table, optimizer.init(table)

    def run() -> Any:
        nonlocal held
        for _ in range(10):
            held = step(*held, ids, gradients)
        return held

    return run


def rank(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """Ranks of a batch's targets."""
    model = alkd.models.create("fpmc", num_items=sizes.items, dim=sizes.dim)
    params = alkd.models.init_params(jax.random.key(0), model)
    layout = sharding.layout_of(params, sizes.items + 1, mesh)
    assert layout is not None
    placed, cut = layout.place(params), layout.unpad_rows
    data = worlds.random_sessions(sizes.batch, sizes.items)

    @jax.jit
    def ranks(params: Any, items: Any, mask: Any, target: Any) -> Any:
        params = cut(params)
        table = model.apply(params, method="item_embeddings")
        return scoring.full_catalogue_rank(model.apply(params, items, mask), table, target, exclude=items)

    def run() -> Any:
        with sharding.use_mesh(mesh):
            return ranks(placed, data.items, data.mask, data.target)

    return run


def listed(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """The top 100 of a batch."""
    rows = sizes.items + 1 + -(sizes.items + 1) % mesh.shape["model"]
    table = jax.device_put(jax.random.normal(jax.random.key(0), (rows, sizes.dim)), NamedSharding(mesh, P("model")))
    vectors = jax.random.normal(jax.random.key(1), (sizes.batch, sizes.dim))
    exclude = jnp.zeros((sizes.batch, 1), jnp.int32)
    arrays = jax.device_put((vectors, exclude), NamedSharding(mesh, P("data")))
    top = jax.jit(lambda u, e, y: scoring.top_k(u, y, 100, exclude=e, mesh=mesh))
    return lambda: top(*arrays, table)


def drawn(mesh: Mesh, sizes: Sizes) -> Callable[[], Any]:
    """A draw without replacement by rank^10."""
    policy = 10 * np.log((np.arange(sizes.policy, dtype=np.float64) + 1) / sizes.policy).astype(np.float32)
    key = jax.random.key(0)
    return lambda: selection.select(key, policy, num=sizes.drawn, mesh=mesh)


CASES: Mapping[str, Callable[[Mesh, Sizes], Callable[[], Any]]] = {
    "training": train,
    "sparse update": update,
    "ranks": rank,
    "top 100": listed,
    "draw": drawn,
}


def child(mesh: str, sizes: dict[str, int], rounds: int) -> None:
    """Measures every case on one mesh, in a process of its own, and prints what it saw."""
    found = {}
    for case, make in CASES.items():
        work = make(sharding.make_mesh(mesh), Sizes(**sizes))
        before = peak_mib()
        first, _ = seconds(work)
        grown = peak_mib() - before
        samples = [seconds(work) for _ in range(rounds)]
        found[case] = {"first": first, "peak": grown, "wall": [w for w, _ in samples], "cpu": [c for _, c in samples]}
    print(json.dumps(found))


def measure(num_devices: int, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """What :func:`child` saw with so many devices."""
    environment = dict(os.environ)
    if jax.default_backend() == "cpu":
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={num_devices}"
    code = _CODE.format(mesh=MESHES[num_devices], sizes=dataclasses.asdict(sizes), rounds=rounds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{num_devices} devices: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(bench: Bench) -> None:
    """Measures every case on every number of devices there can be."""
    asked = bench if isinstance(bench, Counts) else Counts(**dataclasses.asdict(bench))
    sizes, counts = (SMOKE, (1, 2)) if bench.smoke else (Sizes(), asked.devices)
    if jax.default_backend() != "cpu":
        counts = tuple(count for count in counts if count <= jax.device_count())
    found = {MESHES[count]: measure(count, sizes, bench.rounds) for count in counts}
    for case in CASES:
        of_case = {mesh: seen[case] for mesh, seen in found.items()}
        one = of_case[MESHES[counts[0]]]
        measurement: dict[str, Any] = {"name": "scaling", "what": case, **dataclasses.asdict(sizes), **machine()}
        measurement |= {"rounds": bench.rounds, "yardstick": MESHES[counts[0]]}
        for kind in ("wall", "cpu"):
            medians = {mesh: statistics.median(seen[kind]) for mesh, seen in of_case.items()}
            measurement[f"{kind}_s"] = medians
            measurement[f"{kind}_middle_s"] = {mesh: middle(seen[kind]) for mesh, seen in of_case.items()}
            ratios = {mesh: value / max(statistics.median(one[kind]), 1e-9) for mesh, value in medians.items()}
            measurement[f"{kind}_ratio"] = ratios
        wall = measurement["wall_s"]
        measurement["compile_s"] = {mesh: max(0.0, seen["first"] - wall[mesh]) for mesh, seen in of_case.items()}
        measurement["peak_memory_mib"] = {mesh: seen["peak"] for mesh, seen in of_case.items()}
        tell(measurement, bench)


if __name__ == "__main__":
    main(tyro.cli(Counts, description=__doc__))
