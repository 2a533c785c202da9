"""Per-session ranks of a model on a split, and the metrics they give."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from alkd_jax import scoring, sharding
from alkd_jax.evaluation import metrics
from alkd_jax.models import Encoder, Params, encode, released_form
from alkd_jax.types import PAD, Sessions

_RELEASED_PAD = 1
"""Our number of the release's item 0, which its code also uses for padding."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Ranks and what follows from them.

    Attributes:
        ranks: ``[N]`` int32, position of the target from 1 among all items not in the session.
        metrics: ``{"recall@5": …, "ndcg@5": …, …, "mrr": …}``; under the released protocol also "ndcg_released@k".
    """

    ranks: np.ndarray
    metrics: dict[str, float]


def evaluate(
    model: Encoder,
    params: Params,
    sessions: Sessions,
    *,
    ks: Sequence[int] = (5, 10),
    protocol: str = "clean",
    ties: str = "average",
    batch_size: int = 512,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Evaluation:
    """Ranks the target of every session among the whole catalogue.

    Args:
        model: a backbone.
        params: its parameters, without a seed axis.
        sessions: what to evaluate on.
        ks: cut-offs.
        protocol: "clean", or "released" for the authors' rules: their item 0 is padding in the input, and is not
            recommended to a session with a free slot; NDCG in the iteration order of a Python set comes as
            "ndcg_released@k" beside the correct one.
        ties: see :func:`alkd_jax.scoring.target_rank`.
        batch_size: sessions scored at a time; one compilation however many are left for the last batch.
        chunk_size: items scored at a time, see :func:`alkd_jax.scoring.catalogue_rank`.
        mesh: devices to rank on, see :func:`alkd_jax.sharding.make`; by default the first.

    Raises:
        ValueError: there are no sessions, an id or a size is out of range, or the protocol is unknown.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    if protocol not in ("clean", "released"):
        raise ValueError(f"protocol is {protocol!r}; expected 'clean' or 'released'")
    _check(model, sessions)
    padding_is_item = protocol == "released"
    model = released_form(model) if padding_is_item else model
    layout = sharding.layout_of(params, model.num_items + 1, mesh)
    params = params if layout is None else layout.place(params)
    options = {"ties": ties, "padding_is_item": padding_is_item, "chunk_size": chunk_size}
    batches = _batches(sessions, batch_size)
    with sharding.use_mesh(mesh):
        ranks = np.concatenate(
            [np.asarray(_ranks(model, layout, params, *batch, **options))[:valid] for batch, valid in batches]
        )
    averages = metrics.from_ranks(ranks, ks)
    if padding_is_item:
        with sharding.use_mesh(mesh):
            lists = np.concatenate(
                [np.asarray(_lists(model, layout, params, *batch[:2], k=max(ks)))[:valid] for batch, valid in batches]
            )
        for k in ks:
            averages[f"ndcg_released@{k}"] = hash_order_ndcg(lists[:, :k] - 1, np.asarray(sessions.target) - 1)
    return Evaluation(ranks, averages)


def evaluate_seeds(model: Encoder, params: Params, sessions: Sessions, **options: object) -> list[Evaluation]:
    """Evaluates every seed of a parameter tree with a leading seed axis; options as in :func:`evaluate`."""
    num_seeds = jax.tree.leaves(params)[0].shape[0]
    return [
        evaluate(model, jax.tree.map(lambda leaf, s=seed: leaf[s], params), sessions, **options)  # type: ignore[arg-type]
        for seed in range(num_seeds)
    ]


def released_view(sessions: Sessions) -> Sessions:
    """The sessions as the released code sees them: its item 0 (our 1) in an input counts as padding."""
    mask = np.asarray(sessions.mask) & (np.asarray(sessions.items) != _RELEASED_PAD)
    return sessions.replace(items=np.where(mask, sessions.items, PAD).astype(np.int32), mask=mask)  # type: ignore[attr-defined]


def hash_order_ndcg(lists: Int[np.ndarray, "N K"], target: Int[np.ndarray, " N"]) -> float:
    """NDCG with the position taken from the iteration order of ``set(list)``, as the released code does.

    Not a measure of ranking: kept to compare with the published numbers. Depends on how CPython lays out a set of
    integers.

    Args:
        lists: the top K, best first, in the release's numbering from 0.
        target: likewise.
    """
    total = 0.0
    for top, wanted in zip(lists.tolist(), target.tolist(), strict=True):
        order = list(set(top))
        if wanted in order:
            total += 1.0 / np.log2(order.index(wanted) + 2.0)
    return float(total / len(target))


def _check(model: Encoder, sessions: Sessions) -> None:
    if len(sessions) == 0:
        raise ValueError("there are no sessions to evaluate on; expected at least one")
    for name, array, least in (("items", sessions.items, 0), ("targets", sessions.target, 1)):
        low, high = int(np.min(array)), int(np.max(array))
        if low < least or high > model.num_items:
            raise ValueError(f"{name} span {low}..{high}; expected {least}..{model.num_items}")


def _batches(sessions: Sessions, batch_size: int) -> list[tuple[tuple[np.ndarray, ...], int]]:
    """Cuts sessions into equal batches, the last one filled up with its first row, with the number of real rows."""
    arrays = [np.asarray(a) for a in (sessions.items, sessions.mask, sessions.target)]
    size = sharding.even_batch(len(sessions), batch_size)
    pieces = []
    for start in range(0, len(sessions), size):
        rows = np.arange(start, start + size)
        valid = min(size, len(sessions) - start)
        rows[valid:] = start
        pieces.append((tuple(a[rows] for a in arrays), valid))
    return pieces


def _released_input(items: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> tuple[Array, Array, Array]:
    """Items and mask as the released code sees them, and what it leaves out of the ranking."""
    real = mask & (items != _RELEASED_PAD)
    extra = jnp.where(real.all(1), PAD, _RELEASED_PAD)
    return jnp.where(real, items, PAD), real, jnp.concatenate([items, extra[:, None]], axis=1)


@functools.partial(jax.jit, static_argnames=("model", "layout", "ties", "padding_is_item", "chunk_size"))
def _ranks(
    model: Encoder,
    layout: sharding.Layout | None,
    params: Params,
    items: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    target: Int[Array, " B"],
    *,
    ties: str,
    padding_is_item: bool,
    chunk_size: int | None,
) -> Int[Array, " B"]:
    params = params if layout is None else layout.unpad_rows(params)
    exclude = items
    if padding_is_item:
        items, mask, exclude = _released_input(items, mask)
    vectors, table = encode(model, params, items, mask), model.apply(params, method="item_embeddings")
    ranks = scoring.full_catalogue_rank(vectors, table, target, exclude=exclude, ties=ties, chunk_size=chunk_size)
    if padding_is_item:
        unreachable = (exclude == target[:, None]).any(1)
        ranks = jnp.where(unreachable, model.num_items, ranks)
    return ranks if layout is None else sharding.replicate(ranks, layout.mesh)


@functools.partial(jax.jit, static_argnames=("model", "layout", "k"))
def _lists(
    model: Encoder,
    layout: sharding.Layout | None,
    params: Params,
    items: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    *,
    k: int,
) -> Int[Array, "B K"]:
    """The released protocol's top k."""
    params = params if layout is None else layout.unpad_rows(params)
    items, mask, exclude = _released_input(items, mask)
    table = model.apply(params, method="item_embeddings")
    lists = scoring.top_k(encode(model, params, items, mask), table, k, exclude=exclude)[1]
    return lists if layout is None else sharding.replicate(lists, layout.mesh)
