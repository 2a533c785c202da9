"""Evaluation: ranks counted chunk by chunk, against the full score matrix, PyTorch (top-k and counting) and RecBole.

    python -m benchmarks.evaluation --json FILE

A sample encodes and ranks a test split of the released size.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import alkd_jax as alkd
from alkd_jax import evaluation, scoring

from . import peers_recbole, peers_torch, synthetic_sessions
from .command_line import run_command
from .harness import Bench, compare

BATCH = 512


@functools.partial(jax.jit, static_argnums=0)
def full_matrix_rank(model: alkd.models.Encoder, params: Any, items: Any, mask: Any, target: Any) -> jax.Array:
    """Ranks by counting in the full score matrix."""
    table = model.apply(params, method="item_embeddings")
    return scoring.target_rank(scoring.scores(model.apply(params, items, mask), table), target, exclude=items)


def in_batches(rank: Callable[..., jax.Array], params: Any, sessions: alkd.Sessions) -> list[jax.Array]:
    """Ranks full batches; the last, smaller batch is left out, which favors these candidates."""
    arrays = [jnp.asarray(array) for array in (sessions.items, sessions.mask, sessions.target)]
    size = min(BATCH, len(sessions))
    starts = range(0, len(sessions) - size + 1, size)
    return [rank(params, *(array[start : start + size] for array in arrays)) for start in starts]


def measure_cell(backbone: str, data: str, dim: int, bench: Bench) -> None:
    """Measures one cell: alkd_jax, its slower alternative, and the peers that are installed."""
    num_train, num_test, num_items = (synthetic_sessions.SIZES | synthetic_sessions.SMOKE)[data]
    train = synthetic_sessions.random_sessions(num_train, num_items, like=data)
    test = synthetic_sessions.random_sessions(num_test, num_items, seed=1, like=data)
    model = alkd.models.create(backbone, num_items=num_items, dim=dim)
    params = alkd.models.init_params(jax.random.key(0), model)
    candidates: dict[str, Callable[[], Any]] = {
        "alkd_jax": lambda: evaluation.evaluate(model, params, test, lists=False, batch_size=BATCH).ranks,
        "whole matrix": lambda: in_batches(functools.partial(full_matrix_rank, model), params, test),
    }
    if peers_torch.ABSENT is None:
        peer = peers_torch.Peer(backbone, params, train)
        candidates["torch top-k"] = lambda: peer.recall(test, 25, batch_size=BATCH)
        candidates["torch count"] = lambda: peer.recall(test, 25, how="count", batch_size=BATCH)
    if peers_recbole.ABSENT is None and backbone in peers_recbole.MODELS:
        recbole = peers_recbole.Peer(backbone, num_items, dim, train, test, test_batch=BATCH)
        candidates["recbole"] = recbole.recall
    about = {"backbone": backbone, "data": data, "items": num_items, "dim": dim, "batch": BATCH}
    flop = num_test * synthetic_sessions.rank_flop(backbone, dim, num_items)
    peers = {name: peer.ABSENT or peer.version() for name, peer in (("torch", peers_torch), ("recbole", peers_recbole))}
    compare("evaluation", candidates, bench, sessions_per_call=num_test, flop=flop, peers=peers, **about)


def parts(bench: Bench) -> list[functools.partial[None]]:
    """Every cell as one measurement."""
    return [functools.partial(measure_cell, *cell, bench) for cell in synthetic_sessions.cells(smoke=bench.smoke)]


def main(bench: Bench) -> None:
    """Measures every cell."""
    for part in parts(bench):
        part()


if __name__ == "__main__":
    run_command(main, Bench, "evaluation", __doc__)
