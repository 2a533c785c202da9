"""ALKDRec's distillation: a trained student is fine-tuned on pairs of session and listed item, weighted by position."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax import training
from alkd_jax.checks import check_count, check_one_of, check_span
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import LIST_LOSSES, InBatchBPR, ListLoss, PartialPlackettLuce
from alkd_jax.training.examples import Examples
from alkd_jax.training.list_examples import list_examples
from alkd_jax.types import Rankings, Sessions

PAPER_BOUNDS = (5, 15, 25)
"""Last position of each band: positions 1–5, 6–15 and 16–25 have the weights 3, 2 and 1."""
RELEASED_BOUNDS = (6, 16, 25)
"""The released code counts positions from 0 and compares with ≤, so its bands hold 6, 10 and 9 items."""

OF_WHOLE_LISTS: Mapping[str, Callable[[Encoder], Any]] = {
    **{kind: functools.partial(ListLoss, kind=kind) for kind in LIST_LOSSES},
    "partial_plackett_luce": PartialPlackettLuce,
}
"""Name of a loss of whole lists → the objective of a backbone."""

FORMS_OF_LOSS = ("bpr", *OF_WHOLE_LISTS)
"""The losses that :func:`distill` has for a list."""


def position_weights(length: int, *, bounds: Sequence[int] = PAPER_BOUNDS) -> np.ndarray:
    """``α_r = #{b : r ≤ b}``: the weight of list position r, the number of bands that end at r or later.

    Args:
        length: K, the length of a list.
        bounds: b, the last position of each band, counted from 1.

    Returns:
        ``[K]`` int64, by default 3 (5 times), 2 (10 times), 1 (10 times), then 0.

    Raises:
        ValueError: the length or a bound is no whole number of at least 0.

    Reference:
        Du et al., ALKDRec, AAAI 2025, α in the distillation loss.
    """
    check_count(0, length=length)
    check_span("bounds", bounds, 0, np.iinfo(np.int64).max)
    position = np.arange(1, length + 1)
    return (position[:, None] <= np.asarray(bounds)).sum(1)


def ranking_examples(rankings: Rankings, train: Sessions, *, bounds: Sequence[int] = PAPER_BOUNDS) -> Examples:
    """Turns lists into training examples; each is repeated as often as the weight of its position.

    Args:
        rankings: lists for training sessions.
        train: the training sessions.
        bounds: see :func:`position_weights`.

    Returns:
        ``[E]`` examples of weight 1; a full list of 25 gives 45 of them.

    Raises:
        ValueError: a list belongs to no training session.
    """
    rows = train.rows_of(rankings.session_id)
    items, mask = np.asarray(rankings.items), np.asarray(rankings.mask)
    repeats = np.where(mask, position_weights(items.shape[1], bounds=bounds), 0).ravel()
    sessions = np.repeat(np.repeat(rows, items.shape[1]), repeats).astype(np.int32)
    targets = np.repeat(items.ravel(), repeats).astype(np.int32)
    return Examples(jnp.asarray(sessions), jnp.asarray(targets), jnp.ones(len(targets)))


def check_distinct(rankings: Rankings) -> None:
    """Refuses lists that hold an item twice.

    Raises:
        ValueError: a list does; the error names its session and the item.
    """
    items = np.sort(np.where(rankings.mask, rankings.items, 0), axis=1)
    row, column = np.nonzero((items[:, 1:] == items[:, :-1]) & (items[:, 1:] != 0))
    if row.size:
        session, item = int(rankings.session_id[row[0]]), int(items[row[0], column[0]])
        raise ValueError(f"the list of session {session} holds item {item} twice; expected distinct items")


def stack_examples(examples: Sequence[Examples]) -> Examples:
    """Stacks the examples of every seed along a leading seed axis; shorter ones are padded with examples of weight 0.

    Args:
        examples: the examples of each seed.
    """
    length = max(len(seed_examples.target) for seed_examples in examples)

    def stack(*arrays: jax.Array) -> jax.Array:
        rows = [np.pad(array, ((0, length - len(array)), *((0, 0),) * (array.ndim - 1))) for array in arrays]
        return jnp.asarray(np.stack(rows))

    stacked = jax.tree.map(stack, *examples)
    return stacked.replace(target=jnp.maximum(stacked.target, 1))


def distill(
    key: jax.Array,
    model: Encoder,
    student_params: Params,
    train: Sessions,
    validation: Sessions,
    rankings: Rankings | Sequence[Rankings],
    *,
    released: bool = False,
    bounds: Sequence[int] | None = None,
    loss: Callable[..., Any] | None = None,
    list_loss: str = "bpr",
    patience: int = 20,
    recall_at: int = 50,
    **fit_options: Any,
) -> training.FitResult:
    """Distills a teacher's lists into a trained student.

    The loss is ``−Σ_s Σ_{v ∈ list(s)} α_v log σ(S(s, v) − S(s, v′))`` with the batch's other items as negatives v′.
    Validation begins with the student before distillation, which is returned unchanged if no step improves recall.

    Args:
        key: a JAX key; the function consumes it.
        model: the student's backbone.
        student_params: its trained parameters, with a leading seed axis.
        train: the training sessions.
        validation: the sessions that decide when training stops.
        rankings: the teacher's lists, the same for all seeds or one set for each seed.
        released: use the loss and the position bands of the released code.
        bounds: position bands, see :func:`position_weights`; default the paper's, or the released ones.
        loss: the loss of an example; default in-batch BPR, or that of ``list_loss``.
        list_loss: "bpr", the paper's pairs of session and listed item; or one of :data:`OF_WHOLE_LISTS`, losses of
            whole lists, see :mod:`alkd_jax.losses.lists`, for which ``bounds`` has no meaning.
        patience: as in :func:`alkd_jax.training.fit`.
        recall_at: as in :func:`alkd_jax.training.fit`; the released code has 15 for STAMP and AttMix.
        **fit_options: further options of :func:`alkd_jax.training.fit`; the released code has the learning rate 1e-4
            for AttMix.

    Returns:
        The distilled student.

    Raises:
        ValueError: a list belongs to no training session, or holds an item twice, which only released lists may;
            ``list_loss`` is unknown, or is not "bpr" with the released form or with ``bounds``; or as in
            :func:`alkd_jax.training.fit`.

    Reference:
        Du et al., ALKDRec, AAAI 2025, Module 2.

    Example:
        >>> ds = alkd.data.synthetic(num_items=100, num_sessions=300)
        >>> model = alkd.models.create("fpmc", num_items=ds.num_items, dim=10)
        >>> student = alkd.fit(jax.random.key(0), model, ds.train, ds.validation, max_steps=20)
        >>> rankings = alkd.Rankings.from_top_k(ds.train.session_id[:9], ds.train.items[:9])
        >>> key, splits = jax.random.key(1), (ds.train, ds.validation)
        >>> distilled = alkd.distill(key, model, student.params, *splits, rankings, max_steps=20)
    """
    check_one_of("list_loss", list_loss, FORMS_OF_LOSS)
    has_pairs = list_loss == "bpr"
    if not has_pairs and (released or bounds is not None):
        raise ValueError(f"list_loss is {list_loss!r} with released or bounds; expected 'bpr'")
    if bounds is None:
        bounds = RELEASED_BOUNDS if released else PAPER_BOUNDS
    make_examples = functools.partial(ranking_examples, bounds=bounds) if has_pairs else list_examples
    if loss is None:
        loss = InBatchBPR(model, released=released) if has_pairs else OF_WHOLE_LISTS[list_loss](model)
    rankings_of_seeds = [rankings] if isinstance(rankings, Rankings) else rankings
    if not released:
        for seed_rankings in rankings_of_seeds:
            check_distinct(seed_rankings)
    examples_of_seeds = [make_examples(seed_rankings, train) for seed_rankings in rankings_of_seeds]
    examples = examples_of_seeds[0] if isinstance(rankings, Rankings) else stack_examples(examples_of_seeds)
    return training.fit(
        key,
        model,
        train,
        validation,
        initial=student_params,
        examples=examples,
        loss=loss,
        patience=patience,
        recall_at=recall_at,
        **fit_options,
    )
