"""ALKDRec's distillation: the student goes on training on (session, listed item) pairs, weighted by position."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax import training
from alkd_jax.models import Encoder, Params
from alkd_jax.training.examples import Examples
from alkd_jax.types import Rankings, Sessions

PAPER_BOUNDS = (5, 15, 25)
"""Positions 1–5, 6–15, 16–25 weigh 3, 2, 1."""
RELEASED_BOUNDS = (6, 16, 25)
"""The released code counts positions from 0 with ≤, so its bands hold 6, 10 and 9 items."""

RECALL_AT = {"fpmc": 50, "stamp": 15, "attmix": 15}
"""The k of the validation recall that stops distillation, by backbone, as released."""


def position_weights(length: int, *, bounds: Sequence[int] = PAPER_BOUNDS) -> np.ndarray:
    """Weight of each list position: the first band weighs as much as there are bands, the last 1, the rest 0.

    Args:
        length: K.
        bounds: last position, from 1, of each band.

    Returns:
        ``[K]`` int64, by default 3 (5 times), 2 (10), 1 (10), 0 after.

    Reference:
        Du et al., ALKDRec, AAAI 2025, α in the distillation loss.
    """
    position = np.arange(1, length + 1)
    return (position[:, None] <= np.asarray(bounds)).sum(1)


def list_examples(rankings: Rankings, train: Sessions, *, bounds: Sequence[int] = PAPER_BOUNDS) -> Examples:
    """Turns lists into training pairs, each repeated as often as its position weighs.

    Args:
        rankings: lists for training sessions.
        train: the training sessions.
        bounds: see :func:`position_weights`.

    Returns:
        ``[E]`` examples of weight 1; 45 a full list of 25.

    Raises:
        ValueError: a list's session is not a training session.
    """
    row = train.rows_of(rankings.session_id)
    items, mask = np.asarray(rankings.items), np.asarray(rankings.mask)
    repeats = np.where(mask, position_weights(items.shape[1], bounds=bounds), 0).ravel()
    sessions = np.repeat(np.repeat(row, items.shape[1]), repeats).astype(np.int32)
    targets = np.repeat(items.ravel(), repeats).astype(np.int32)
    return Examples(jnp.asarray(sessions), jnp.asarray(targets), jnp.ones(len(targets)))


def stack_examples(per_seed: Sequence[Examples]) -> Examples:
    """Gives every seed its own examples: a leading seed axis, shorter ones filled up with weight 0."""
    length = max(len(examples.target) for examples in per_seed)

    def stack(field: str, filler: int) -> jax.Array:
        arrays = [np.asarray(getattr(examples, field)) for examples in per_seed]
        return jnp.asarray(np.stack([np.pad(a, (0, length - len(a)), constant_values=filler) for a in arrays]))

    return Examples(session=stack("session", 0), target=stack("target", 1), weight=stack("weight", 0))


def distill(
    key: jax.Array,
    model: Encoder,
    student: Params,
    train: Sessions,
    validation: Sessions,
    rankings: Rankings | Sequence[Rankings],
    *,
    released: bool = False,
    bounds: Sequence[int] | None = None,
    loss: training.Loss | None = None,
    seeds: int | Sequence[int] = 1,
    patience: int = 20,
    recall_at: int = 50,
    learning_rate: float = 1e-3,
    **options: object,
) -> training.FitResult:
    """Distils lists into a trained student.

    Maximises ``Σ_s Σ_{v ∈ list(s)} α_v log σ(S(s, v) − S(s, v′))`` with the batch's other items as negatives v′.
    The student itself is the first candidate: it is returned unchanged where no step improves validation recall.

    Args:
        key: consumed.
        model: the student's backbone.
        student: its trained parameters, with a leading seed axis.
        train: the training sessions.
        validation: sessions that decide when to stop.
        rankings: the teacher's lists, one set for all seeds or one a seed.
        released: the authors' loss form and position bands.
        bounds: other position bands, see :func:`position_weights`.
        loss: another loss than in-batch BPR.
        seeds: as in :func:`alkd_jax.training.fit`.
        patience: as in :func:`alkd_jax.training.fit`.
        recall_at: as in :func:`alkd_jax.training.fit`; see :data:`RECALL_AT`.
        learning_rate: 1e-3; the paper's AttMix has 1e-4.
        **options: further options of :func:`alkd_jax.training.fit`.

    Reference:
        Du et al., ALKDRec, AAAI 2025, Module 2.
    """
    if bounds is None:
        bounds = RELEASED_BOUNDS if released else PAPER_BOUNDS
    if isinstance(rankings, Rankings):
        examples = list_examples(rankings, train, bounds=bounds)
    else:
        examples = stack_examples([list_examples(lists, train, bounds=bounds) for lists in rankings])
    return training.fit(
        key,
        model,
        train,
        validation,
        seeds=seeds,
        initial=student,
        examples=examples,
        loss=training.in_batch_loss(model, released=released) if loss is None else loss,
        patience=patience,
        recall_at=recall_at,
        learning_rate=learning_rate,
        **options,  # type: ignore[arg-type]
    )
