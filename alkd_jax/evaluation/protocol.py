"""Evaluation protocols: the rank of each session's target, and the metrics of these ranks."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from alkd_jax import scoring, sharding
from alkd_jax.checks import check_count, check_one_of, check_sessions
from alkd_jax.evaluation import metrics
from alkd_jax.models import Encoder, Params, check_finite_params, check_params, encode, released_form
from alkd_jax.types import PAD, Sessions

_RELEASED_PADDING_ITEM = 1
"""The id here of the release's item 0, which the released code also uses as padding."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Ranks and metrics.

    Attributes:
        ranks: ``[N]`` int32, position of the target, from 1, among all items that are not in the session.
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
        sessions: the sessions to evaluate on, at least one.
        ks: cut-offs, at least 1.
        protocol: "clean", or "released" for the rules of the authors' code: its item 0 is padding in the input and is
            not recommended to a session shorter than L; "ndcg_released@k", NDCG in the iteration order of a Python set,
            is added to the metrics.
        ties: see :func:`alkd_jax.scoring.target_rank`.
        batch_size: sessions scored at a time; the last batch is padded, so that one compilation serves all batches.
        chunk_size: items scored at a time, see :func:`alkd_jax.scoring.full_catalogue_rank`.
        mesh: devices to rank on, see :func:`alkd_jax.sharding.make_mesh`; by default the first device.

    Raises:
        ValueError: there are no sessions, an id or a size is out of range, a parameter is not finite or of another
            model, or the protocol is unknown.

    Example:
        >>> ds = alkd.data.synthetic(num_items=100, num_sessions=300)
        >>> model = alkd.models.create("fpmc", num_items=ds.num_items, dim=10)
        >>> params = alkd.models.init_params(jax.random.key(0), model)
        >>> alkd.evaluate(model, params, ds.test).ranks.shape
        (60,)
    """
    check_count(1, batch_size=batch_size)
    check_one_of("protocol", protocol, ("clean", "released"))
    check_params(model, params)
    check_sessions("sessions", sessions, model.num_items)
    padding_is_item = protocol == "released"
    model = released_form(model) if padding_is_item else model
    layout = sharding.layout_of(params, model.num_items + 1, mesh)
    params = params if layout is None else layout.device_put(params)
    options = {"ties": ties, "padding_is_item": padding_is_item, "chunk_size": chunk_size}
    batches = _batches(sessions, batch_size)
    with sharding.use_mesh(mesh):
        ranks = np.concatenate(
            [np.asarray(_ranks(model, layout, params, *batch, **options))[:valid] for batch, valid in batches]
        )
    session_metrics = metrics.from_ranks(ranks, ks)
    if padding_is_item:
        with sharding.use_mesh(mesh):
            lists = np.concatenate(
                [np.asarray(_lists(model, layout, params, *batch[:2], k=max(ks)))[:valid] for batch, valid in batches]
            )
        for k in ks:
            session_metrics[f"ndcg_released@{k}"] = hash_order_ndcg(lists[:, :k] - 1, np.asarray(sessions.target) - 1)
    return Evaluation(ranks, session_metrics)


def evaluate_seeds(model: Encoder, params: Params, sessions: Sessions, **options: object) -> list[Evaluation]:
    """:func:`evaluate` for each seed of a parameter tree with a leading seed axis.

    Args:
        model: a backbone.
        params: its parameters, with a leading seed axis.
        sessions: the sessions to evaluate on.
        **options: as of :func:`evaluate`.

    Returns:
        One evaluation for each seed.

    Raises:
        ValueError: as in :func:`evaluate`.
    """
    check_finite_params(params)
    num_seeds = jax.tree.leaves(params)[0].shape[0]
    return [
        evaluate(model, jax.tree.map(lambda leaf, s=seed: leaf[s], params), sessions, **options)  # type: ignore[arg-type]
        for seed in range(num_seeds)
    ]


def released_view(sessions: Sessions) -> Sessions:
    """Returns the sessions as the released code reads them: its item 0, here item 1, is padding in the input."""
    mask = np.asarray(sessions.mask) & (np.asarray(sessions.items) != _RELEASED_PADDING_ITEM)
    return sessions.replace(items=np.where(mask, sessions.items, PAD).astype(np.int32), mask=mask)  # type: ignore[attr-defined]


def hash_order_ndcg(lists: Int[np.ndarray, "N K"], target: Int[np.ndarray, " N"]) -> float:
    """NDCG with the position taken from the iteration order of ``set(list)``, as the released code does.

    It does not measure the ranking and serves comparison with the published numbers only. It depends on the memory
    layout of a set of integers in CPython.

    Args:
        lists: the top K items, best first, numbered from 0 as in the release.
        target: the targets, numbered from 0.
    """
    total = 0.0
    for list_, item in zip(lists.tolist(), target.tolist(), strict=True):
        order = list(set(list_))
        if item in order:
            total += 1.0 / np.log2(order.index(item) + 2.0)
    return float(total / len(target))


def _batches(sessions: Sessions, batch_size: int) -> list[tuple[tuple[np.ndarray, ...], int]]:
    """Splits sessions into batches of equal size, each with its number of real rows; the last one is padded."""
    arrays = [np.asarray(array) for array in (sessions.items, sessions.mask, sessions.target)]
    size = sharding.even_batch_size(len(sessions), batch_size)
    batches = []
    for start in range(0, len(sessions), size):
        rows = np.arange(start, start + size)
        valid = min(size, len(sessions) - start)
        rows[valid:] = start
        batches.append((tuple(array[rows] for array in arrays), valid))
    return batches


def _released_input(items: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> tuple[Array, Array, Array]:
    """Items and mask as the released code reads them, and the items that it does not rank."""
    real = mask & (items != _RELEASED_PADDING_ITEM)
    padding_item = jnp.where(real.all(1), PAD, _RELEASED_PADDING_ITEM)
    return jnp.where(real, items, PAD), real, jnp.concatenate([items, padding_item[:, None]], axis=1)


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
    """The top k under the released protocol."""
    params = params if layout is None else layout.unpad_rows(params)
    items, mask, exclude = _released_input(items, mask)
    table = model.apply(params, method="item_embeddings")
    lists = scoring.top_k(encode(model, params, items, mask), table, k, exclude=exclude)[1]
    return lists if layout is None else sharding.replicate(lists, layout.mesh)
