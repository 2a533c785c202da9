"""Training: our compiled interval against an eager PyTorch loop and RecBole, and five seeds against one.

    python -m benchmarks.training --json FILE

Three backbones, two catalogue sizes, widths 10 and 100; the same initial parameters, loss, Adam and batches of 1,024.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import training
from alkd_jax.objectives import InBatchBPR
from alkd_jax.ops import platforms
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.examples import last_item_examples
from alkd_jax.training.fit import for_platform
from alkd_jax.training.interval import Interval, copy_params, init_state, keep_better, take_steps, validate
from alkd_jax.training.seeds import split_seeds
from alkd_jax.training.steppers.dense import Dense

from . import peers_recbole, peers_torch, synthetic_sessions
from .command_line import run_command
from .harness import Bench, compare

ADAM = Adam(1e-3)
DENSE = ADAM.as_optax()


@dataclasses.dataclass(frozen=True)
class Cells(Bench):
    """Options of this benchmark.

    Attributes:
        only: cells to measure, as backbone,data,width, or seeds; by default all.
        steps: training steps in a sample.
        seeds: number of seeds whose training is compared with that of one.
    """

    only: tuple[str, ...] = ()
    steps: int = 20
    seeds: int = 5


def interval(
    model: alkd.models.Encoder, params: Any, train: alkd.Sessions, *, steps: int, batch_size: int, seeds: int = 1
) -> Callable[[], Any]:
    """Our interval of `steps` steps with a validation on only eight sessions, which costs next to nothing.

    Every validation counts as the best so far, so that the parameters are copied each time.
    """
    validation = jax.tree.map(lambda array: array[:8], train)
    data = jax.device_put(TrainingData(last_item_examples(train), train, validation, InBatchBPR(model)))
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * seeds), params)
    has_seed_axis = seeds > 1 and not platforms.trains_seeds_in_turn()
    program = Interval(Dense(model, DENSE), batch_size, steps, 25, 8, has_seed_axis=has_seed_axis)
    program = for_platform(program, ADAM, data, stacked)
    keys = split_seeds(program, training.seed_keys(jax.random.key(1), seeds))
    states, taken = [init_state(program, part) for part in split_seeds(program, stacked)], 0
    best, is_better = [copy_params(program, state) for state in states], np.ones(seeds if has_seed_axis else (), bool)

    def run() -> Any:
        nonlocal taken
        seen = []
        for number, key in enumerate(keys):
            states[number], metrics = take_steps(program, states[number], key, data, np.int32(taken))
            seen.append((metrics, validate(program, states[number], validation)))
            best[number] = keep_better(program, best[number], states[number], is_better)
        taken += steps
        return jax.device_get(seen)

    return run


def measure_cell(backbone: str, data: str, dim: int, bench: Bench, *, steps: int, batch_size: int) -> None:
    """Measures one cell: alkd_jax and the peers that are installed."""
    num_sessions, _, num_items = (synthetic_sessions.SIZES | synthetic_sessions.SMOKE)[data]
    train = synthetic_sessions.random_sessions(num_sessions, num_items, like=data)
    model = alkd.models.create(backbone, num_items=num_items, dim=dim)
    params = alkd.models.init_params(jax.random.key(0), model)
    run = interval(model, params, train, steps=steps, batch_size=batch_size)
    candidates: dict[str, Callable[[], Any]] = {"alkd_jax": run}
    if peers_torch.ABSENT is None:
        peer = peers_torch.Peer(backbone, params, train)
        candidates["torch"] = functools.partial(peer.train_steps, steps, batch_size)
    if peers_recbole.ABSENT is None and backbone in peers_recbole.MODELS:
        validation = jax.tree.map(lambda array: array[:8], train)
        recbole = peers_recbole.Peer(backbone, num_items, dim, train, validation, batch_size=batch_size)
        candidates["recbole"] = functools.partial(recbole.train_sessions, steps * batch_size)
    about: dict[str, Any] = {
        "backbone": backbone,
        "data": data,
        "items": num_items,
        "dim": dim,
        "batch": batch_size,
        "steps": steps,
    }
    flop = steps * synthetic_sessions.step_flop(backbone, dim, batch_size)
    peers = {name: peer.ABSENT or peer.version() for name, peer in (("torch", peers_torch), ("recbole", peers_recbole))}
    compare("training", candidates, bench, sessions_per_call=steps * batch_size, flop=flop, peers=peers, **about)


def measure_seeds(data: str, bench: Bench, *, steps: int, batch_size: int, seeds: int) -> None:
    """Measures one seed and several seeds, for the smallest student."""
    num_sessions, _, num_items = (synthetic_sessions.SIZES | synthetic_sessions.SMOKE)[data]
    train = synthetic_sessions.random_sessions(num_sessions, num_items, like=data)
    model = alkd.models.create("fpmc", num_items=num_items, dim=10)
    params = alkd.models.init_params(jax.random.key(0), model)
    candidates = {
        f"{number} seeds": interval(model, params, train, steps=steps, batch_size=batch_size, seeds=number)
        for number in (1, seeds)
    }
    about: dict[str, Any] = {
        "what": "seeds in one program",
        "backbone": "fpmc",
        "data": data,
        "dim": 10,
        "steps": steps,
    }
    compare("training", candidates, bench, **about)


def parts(bench: Bench) -> list[functools.partial[None]]:
    """The cells and the comparison of seeds that `only` selects, each as one measurement."""
    args = bench if isinstance(bench, Cells) else Cells(**dataclasses.asdict(bench))
    steps, batch_size, seeds = (2, 64, 2) if bench.smoke else (args.steps, 1024, args.seeds)
    sizes = synthetic_sessions.SMOKE if bench.smoke else synthetic_sessions.SIZES
    cells = synthetic_sessions.cells(smoke=bench.smoke)
    options = {"steps": steps, "batch_size": batch_size}
    measurements = [
        functools.partial(measure_cell, backbone, data, dim, bench, **options)
        for backbone, data, dim in cells
        if not args.only or f"{backbone},{data},{dim}" in args.only
    ]
    if not args.only or "seeds" in args.only:
        measurements.append(functools.partial(measure_seeds, next(iter(sizes)), bench, **options, seeds=seeds))
    return measurements


def main(bench: Bench) -> None:
    """Runs every selected measurement."""
    for part in parts(bench):
        part()


if __name__ == "__main__":
    run_command(main, Cells, "training", __doc__)
