"""Scores of packed students as those of any training-free recommender."""

import numpy as np
from jaxtyping import Float

from alkd_jax.baselines.queries import Histories, Scorer
from alkd_jax.models import PackedStudent
from alkd_jax.serving.packed import PACKED_STUDENTS


def packed_scorer(student: PackedStudent) -> Scorer:
    """Returns the scorer of a packed student, whose scores are those of the shipped one to the last bit.

    They are to be ranked as they are, without a further tie-break: ``ties_broken`` of
    :func:`alkd_jax.baselines.target_places`.

    Raises:
        ValueError: its arrays say what cannot be.
    """
    packed = PACKED_STUDENTS[student.kind].scorer(student.options, student.arrays, student.num_items)

    def scores(histories: Histories) -> Float[np.ndarray, "B V1"]:
        return packed.scores(np.where(histories.mask, histories.items, 0))

    return scores
