"""The evaluation of a model: the rank of each target among the catalogue, and the metrics of ranks and lists."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int32, Int64

from alkd_jax import scoring, sharding
from alkd_jax.checks import check_count
from alkd_jax.evaluation import beyond_accuracy, metrics
from alkd_jax.evaluation.protocol import Protocol
from alkd_jax.evaluation.queries import Queries, make_queries
from alkd_jax.evaluation.released import hash_order_ndcg, released_input
from alkd_jax.models import Encoder, Params, check_finite_params, check_params, encode, released_form
from alkd_jax.models.encoder import times_for
from alkd_jax.types import PAD, HeldOutSequences, Sessions


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Ranks of P queries, in the order of the sessions and of the items within each, and their metrics.

    Attributes:
        ranks: ``[P]`` int32, position of the target, from 1, among the ranked items.
        target: ``[P]`` int32, the item to predict.
        session_id: ``[P]`` int32, id of the query's session; several queries have the same for ``targets="all"``.
        position: ``[P]`` int32, index within its session of the last known item.
        session_length: ``[P]`` int32, number of items of the session, targets included.
        num_tied: number of targets whose score other ranked items share, so that the rule for ties decides.
        metrics: ``{"recall@5": …, "ndcg@5": …, "mrr@5": …, …, "mrr": …}``; with lists also "coverage@k" and "gini@k",
            and under the released protocol "ndcg_released@k".
        exposure: k → ``[V + 1]``, the number of top-k lists that contain each item; empty without lists.
        protocol: the protocol, whose ``name`` says in a line what was measured.
    """

    ranks: Int32[np.ndarray, " P"]
    target: Int32[np.ndarray, " P"]
    session_id: Int32[np.ndarray, " P"]
    position: Int32[np.ndarray, " P"]
    session_length: Int32[np.ndarray, " P"]
    num_tied: int
    metrics: dict[str, float]
    exposure: Mapping[int, Int64[np.ndarray, " V1"]]
    protocol: Protocol


def evaluate(
    model: Encoder,
    params: Params,
    sessions: Sessions | HeldOutSequences,
    *,
    ks: Sequence[int] = (5, 10, 20),
    seen: str = "exclude",
    targets: str = "last",
    ties: str = "average",
    protocol: str = "clean",
    max_length: int | None = None,
    lists: bool = True,
    batch_size: int = 512,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Evaluation:
    """Ranks the target of every query among the whole catalogue.

    Args:
        model: a backbone.
        params: its parameters, without a seed axis.
        sessions: the sessions to evaluate on, at least one. Complete sessions, such as ``dataset.test_sequences``, have
            all their items as history and as targets; ``Sessions`` have those of their window.
        ks: cut-offs, at least 1.
        seen: "exclude" ranks the target among the items that are not known from its session, "keep" among all items.
            The target itself is ranked even if it is known; a top-k list contains no known item for "exclude".
        targets: "last" predicts each session's last item, "all" every item from the first target on, "first" that one.
        ties: see :func:`alkd_jax.scoring.target_rank`.
        protocol: "clean", or "released" for the rules of the authors' code: its item 0 is padding in the input and is
            not recommended to a session shorter than L; "ndcg_released@k", NDCG in the iteration order of a Python set,
            is added to the metrics. These rules fix ``seen`` and ``targets`` to their defaults.
        max_length: L, number of most recent known items in the input; None for the width of ``Sessions``, else 10.
        lists: whether the top-k lists are searched too, for coverage and Gini index. It scores the catalogue a second
            time; ranks and the other metrics are the same without.
        batch_size: queries scored at a time; the last batch is padded, so that one compilation serves all batches.
        chunk_size: items scored at a time, see :func:`alkd_jax.scoring.full_catalogue_rank`.
        mesh: devices to rank on, see :func:`alkd_jax.sharding.make_mesh`; by default the first device.

    Raises:
        ValueError: there are no sessions, an id or a size is out of range, a parameter is not finite or of another
            model, or an option is unknown.

    Example:
        >>> ds = alkd.data.synthetic(num_items=100, num_sessions=300)
        >>> model = alkd.models.create("fpmc", num_items=ds.num_items, dim=10)
        >>> params = alkd.models.init_params(jax.random.key(0), model)
        >>> alkd.evaluate(model, params, ds.test).ranks.shape
        (60,)
        >>> out = alkd.evaluate(model, params, ds.test_sequences, targets="all", seen="keep")
        >>> len(out.ranks) == len(ds.test_sequences.sequences.items) - 60
        True
    """
    rules = Protocol(seen, targets, ties, protocol)
    check_count(1, batch_size=batch_size)
    for k in ks:
        check_count(1, k=k)
    check_params(model, params)
    queries = make_queries(sessions, model.num_items, targets=targets, max_length=max_length)
    num_better, num_equal, exposure, released_metrics = _count_queries(
        released_form(model) if protocol == "released" else model,
        params,
        queries,
        seen=seen,
        is_released=protocol == "released",
        ks=tuple(ks),
        lists=lists,
        batch_size=batch_size,
        chunk_size=chunk_size,
        mesh=mesh,
    )
    ranks = np.asarray(scoring.rank_of_counts(num_better, num_equal, ties=ties))
    return Evaluation(
        ranks=ranks,
        target=queries.target,
        session_id=queries.session_id,
        position=queries.position,
        session_length=queries.session_length,
        num_tied=int((num_equal > 0).sum()),
        metrics=metrics.from_ranks(ranks, ks) | beyond_accuracy.from_exposure(exposure) | released_metrics,
        exposure=exposure,
        protocol=rules,
    )


def evaluate_seeds(
    model: Encoder, params: Params, sessions: Sessions | HeldOutSequences, **options: object
) -> list[Evaluation]:
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


def _count_queries(
    model: Encoder,
    params: Params,
    queries: Queries,
    *,
    seen: str,
    is_released: bool,
    ks: tuple[int, ...],
    lists: bool,
    batch_size: int,
    chunk_size: int | None,
    mesh: jax.sharding.Mesh | None,
) -> tuple[Int32[np.ndarray, " P"], Int32[np.ndarray, " P"], dict[int, Int64[np.ndarray, " V1"]], dict[str, float]]:
    """Returns the numbers of better and of equal items, how often items are listed, and metrics of released lists."""
    layout = sharding.layout_of(params, model.num_items + 1, mesh)
    params = params if layout is None else layout.device_put(params)
    # A list is no longer than the catalogue, however large a cut-off is.
    num_listed = min(max(ks, default=0), model.num_items) if lists or is_released else 0
    num_better, num_equal = np.empty(len(queries), np.int32), np.empty(len(queries), np.int32)
    released_lists = np.empty((len(queries) if is_released else 0, num_listed), np.int32)
    exposure = np.zeros((len(ks) if lists else 0, model.num_items + 1), np.int64)
    options = {"is_released": is_released, "chunk_size": chunk_size, "k": num_listed}
    for batch in queries.batches(batch_size):
        inputs = batch.sessions
        exclude = batch.history if seen == "exclude" else np.full_like(batch.history[:, :1], PAD)
        with sharding.use_mesh(mesh):
            times = times_for(model, inputs.seconds)
            arrays = inputs.items, inputs.mask, inputs.target, exclude, *times
            found = _count_batch(model, layout, params, *arrays, **options)
        better, equal, batch_lists = (np.asarray(array)[: batch.valid] for array in found)
        rows = batch.rows[: batch.valid]
        num_better[rows], num_equal[rows] = better, equal
        if lists:
            exposure += beyond_accuracy.count_exposure(batch_lists, model.num_items, ks)
        if is_released:
            released_lists[rows] = batch_lists
    # The release numbers its items from 0.
    target = queries.target - 1
    released_metrics = {
        f"ndcg_released@{k}": hash_order_ndcg(released_lists[:, :k] - 1, target) for k in ks if is_released
    }
    return num_better, num_equal, dict(zip(ks, exposure, strict=False)), released_metrics


@functools.partial(jax.jit, static_argnames=("model", "layout", "is_released", "chunk_size", "k"))
def _count_batch(
    model: Encoder,
    layout: sharding.Layout | None,
    params: Params,
    items: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    target: Int[Array, " B"],
    exclude: Int[Array, "B M"],
    seconds: Int[Array, "B L"] | None = None,
    *,
    is_released: bool,
    chunk_size: int | None,
    k: int,
) -> tuple[Int[Array, " B"], Int[Array, " B"], Int[Array, "B K"]]:
    """Returns the numbers of items better than and equal to each target, and the lists of k items, best first."""
    params = params if layout is None else layout.unpad_rows(params)
    if is_released:
        items, mask, exclude = released_input(items, mask)
    vectors, table = encode(model, params, items, mask, seconds), model.apply(params, method="item_embeddings")
    better, equal = scoring.full_catalogue_counts(vectors, table, target, exclude=exclude, chunk_size=chunk_size)
    if is_released:
        # An item of the session is never recommended: its rank is the last one.
        is_unreachable = (exclude == target[:, None]).any(1)
        better, equal = jnp.where(is_unreachable, model.num_items - 1, better), jnp.where(is_unreachable, 0, equal)
    lists = jnp.zeros((items.shape[0], 0), jnp.int32)
    if k:
        lists = scoring.top_k(vectors, table, k, exclude=exclude, chunk_size=chunk_size)[1]
    found = better, equal, lists
    return found if layout is None else sharding.replicate(found, layout.mesh)
