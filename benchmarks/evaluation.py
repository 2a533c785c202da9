"""Evaluation throughput: the exact rank of the target by counting against a full sort of the catalogue.

python -m benchmarks.evaluation --json FILE
"""

import jax
import jax.numpy as jnp
import tyro

import alkd_jax as alkd
from alkd_jax import scoring
from benchmarks.harness import Bench, compare
from benchmarks.training import random_sessions


@jax.jit
def ranks_by_sorting(all_scores: jax.Array, target: jax.Array, exclude: jax.Array) -> jax.Array:
    """The textbook way: mask what was seen, sort everything, look the target up."""
    rows = jnp.arange(all_scores.shape[0])[:, None]
    allowed = all_scores.at[rows, exclude].set(-jnp.inf).at[:, alkd.PAD].set(-jnp.inf)
    return jnp.argmax(jnp.argsort(-allowed, axis=1) == target[:, None], axis=1) + 1


ranks_by_counting = jax.jit(scoring.target_rank)


def main(bench: Bench) -> None:
    """Measures 512 sessions over catalogues of the released sizes."""
    for num_items in (200,) if bench.toy else (8_475, 26_138):
        sessions = random_sessions(32 if bench.toy else 512, num_items)
        model = alkd.models.create("fpmc", num_items=num_items, dim=10)
        params = alkd.models.init_params(jax.random.key(0), model)
        items, mask, target = (jnp.asarray(a) for a in (sessions.items, sessions.mask, sessions.target))
        vectors, table = model.apply(params, items, mask), model.apply(params, method="item_embeddings")
        all_scores = scoring.scores(vectors, table)
        candidates = {
            "sort": lambda s=all_scores, t=target, e=items: ranks_by_sorting(s, t, e),
            "count": lambda s=all_scores, t=target, e=items: ranks_by_counting(s, t, exclude=e),
            "top 50": lambda v=vectors, y=table, e=items: scoring.top_k(v, y, 50, exclude=e),
        }
        compare("evaluation", candidates, bench, items=num_items, sessions=len(sessions))


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))
