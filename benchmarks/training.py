"""Training: our compiled interval against a careful eager PyTorch loop and RecBole, and five seeds against one.

python -m benchmarks.training --json FILE

Three backbones, two catalogue sizes, widths 10 and 100; the same parameters, loss, Adam and batches of 1,024.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import alkd_jax as alkd
from alkd_jax import training
from alkd_jax.training import examples
from alkd_jax.training import seeds as groups
from alkd_jax.training.steppers import dense as programs
from alkd_jax.training.steppers.row_sparse_adam import Adam
from benchmarks import peers_recbole, peers_torch, worlds
from benchmarks.harness import Bench, compare

ADAM = Adam(1e-3)
DENSE = ADAM.dense()


@dataclasses.dataclass(frozen=True)
class Cells(Bench):
    """What is asked of this benchmark.

    Attributes:
        only: cells to measure, as backbone,data,width; all where none is named.
        steps: a sample is so many.
        seeds: trained in one program against one.
    """

    only: tuple[str, ...] = ()
    steps: int = 20
    seeds: int = 5


def interval(
    model: alkd.models.Encoder, params: Any, train: alkd.Sessions, *, steps: int, batch_size: int, seeds: int = 1
) -> Callable[[], Any]:
    """Our interval of so many steps; it validates on eight sessions, which is next to nothing."""
    few = jax.tree.map(lambda array: array[:8], train)
    program = programs.TrainStep(
        model=model,
        loss=training.in_batch_loss(model),
        optimizer=DENSE,
        adam=ADAM,
        batch_size=batch_size,
        steps=steps,
        patience=10**9,
        recall_at=25,
        validation_batch=8,
    )
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * seeds), params)
    material = jax.device_put(programs.TrainingData(examples.last_item_examples(train), train, few, None))
    own = groups.split(program, training.seed_keys(jax.random.key(1), seeds), material)
    states, taken = groups.start(program, stacked, stacked, own), 0

    def run() -> Any:
        nonlocal states, taken
        states, seen = groups.interval(program, states, own, np.int32(taken), np.ones(seeds, bool))
        taken += steps
        return seen

    return run


def measure_cell(backbone: str, data: str, dim: int, bench: Bench, *, steps: int, batch_size: int) -> None:
    """One cell: us, and the peers that are there."""
    num_sessions, _, num_items = (worlds.SIZES | worlds.SMOKE)[data]
    train = worlds.random_sessions(num_sessions, num_items, like=data)
    model = alkd.models.create(backbone, num_items=num_items, dim=dim)
    params = alkd.models.init_params(jax.random.key(0), model)
    run = interval(model, params, train, steps=steps, batch_size=batch_size)
    candidates: dict[str, Callable[[], Any]] = {"alkd_jax": run}
    if peers_torch.ABSENT is None:
        peer = peers_torch.Peer(backbone, params, train)
        candidates["torch"] = functools.partial(peer.train_steps, steps, batch_size)
    if peers_recbole.ABSENT is None and backbone in peers_recbole.MODELS:
        few = jax.tree.map(lambda array: array[:8], train)
        other = peers_recbole.Peer(backbone, num_items, dim, train, few, batch_size=batch_size)
        candidates["recbole"] = functools.partial(other.train_sessions, steps * batch_size)
    about: dict[str, Any] = {
        "backbone": backbone,
        "data": data,
        "items": num_items,
        "dim": dim,
        "batch": batch_size,
        "steps": steps,
    }
    flop = steps * worlds.step_flop(backbone, dim, batch_size)
    peers = {name: peer.ABSENT or peer.version() for name, peer in (("torch", peers_torch), ("recbole", peers_recbole))}
    compare("training", candidates, bench, sessions_a_call=steps * batch_size, flop=flop, peers=peers, **about)


def measure_seeds(data: str, bench: Bench, *, steps: int, batch_size: int, seeds: int) -> None:
    """One seed, and several in one program, for the smallest student."""
    num_sessions, _, num_items = (worlds.SIZES | worlds.SMOKE)[data]
    train = worlds.random_sessions(num_sessions, num_items, like=data)
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
    """Every cell that is asked for, and the seeds, each a measurement."""
    asked = bench if isinstance(bench, Cells) else Cells(**dataclasses.asdict(bench))
    steps, batch_size, seeds = (2, 64, 2) if bench.smoke else (asked.steps, 1024, asked.seeds)
    sizes, cells = worlds.SMOKE if bench.smoke else worlds.SIZES, worlds.cells(smoke=bench.smoke)
    how = {"steps": steps, "batch_size": batch_size}
    found = [
        functools.partial(measure_cell, backbone, data, dim, bench, **how)
        for backbone, data, dim in cells
        if not asked.only or f"{backbone},{data},{dim}" in asked.only
    ]
    if not asked.only or "seeds" in asked.only:
        found.append(functools.partial(measure_seeds, next(iter(sizes)), bench, **how, seeds=seeds))
    return found


def main(bench: Bench) -> None:
    """Measures what is asked for."""
    for part in parts(bench):
        part()


if __name__ == "__main__":
    main(tyro.cli(Cells, description=__doc__))
