"""The parameters of the selection game as measured on a pilot: shares of the classes, and the gain of each."""

import dataclasses

import numpy as np
from jaxtyping import Int

from alkd_jax.checks import check_count

_LEAST_RATIO = 0.01
"""The game needs 0 < b < a and d > 0; measured ratios are kept at least so far from these bounds."""


@dataclasses.dataclass(frozen=True)
class PilotGame:
    """What a pilot says of the game.

    Attributes:
        ratios: effective : similar : incorrect answers, the numbers of the pilot plus one of each.
        similar_ratio: b/a, the gain of a similar answer, in units of that of an effective one.
        incorrect_ratio: d/a, the loss by an incorrect answer, in the same unit.
    """

    ratios: tuple[int, int, int]
    similar_ratio: float
    incorrect_ratio: float


def measure_game(teacher_rank: Int[np.ndarray, " M"], student_rank: Int[np.ndarray, " M"], *, k: int = 25) -> PilotGame:
    """Estimates shares and gains of the classes from the answers to M pilot sessions.

    An answer is effective where its first k items hold the session's next item and the student's do not, similar where
    both do, and incorrect where the answer does not. One answer of each class is added, so that none has a share of 0.
    The value of a list is the discounted gain of the next item, ``1 / log₂(1 + rank)``, 0 beyond k. The gain of a class
    is the mean value of the answer minus that of the student's list, and the loss of an incorrect answer the mean value
    of the student's list, which it would take away. A ratio that the pilot cannot tell, because it has no answer of the
    class or no effective one, is the paper's, 1/2.

    Args:
        teacher_rank: place of the next item in the teacher's list, from 1; 0 where it is not listed.
        student_rank: its rank among all items for the student, from 1.
        k: length of the lists compared.

    Raises:
        ValueError: there is no session, the numbers of sessions differ, or a rank is negative.

    Reference:
        Du et al., ALKDRec, AAAI 2025, Module 3, whose shares 1 : 5 : 4 and gains are assumed.

    Example:
        >>> alkd.selection.measure_game(np.array([1, 1, 0, 0]), np.array([90, 1, 3, 70])).ratios
        (2, 2, 3)
    """
    check_count(1, num_sessions=len(teacher_rank), k=k)
    if len(student_rank) != len(teacher_rank):
        raise ValueError(f"student_rank has {len(student_rank)} numbers; expected {len(teacher_rank)}, as teacher_rank")
    check_count(0, teacher_rank=int(teacher_rank.min()), student_rank=int(student_rank.min()))
    teacher, student = _list_value(teacher_rank, k), _list_value(student_rank, k)
    effective, similar, incorrect = (teacher > 0) & (student == 0), (teacher > 0) & (student > 0), teacher == 0
    ratios = int(effective.sum()) + 1, int(similar.sum()) + 1, int(incorrect.sum()) + 1
    gain = (teacher - student)[effective].mean() if effective.any() else 0.0
    similar_ratio = incorrect_ratio = 0.5
    if gain > 0 and similar.any():
        ratio = float((teacher - student)[similar].mean() / gain)
        similar_ratio = float(np.clip(ratio, _LEAST_RATIO, 1 - _LEAST_RATIO))
    if gain > 0 and incorrect.any():
        incorrect_ratio = max(float(student[incorrect].mean() / gain), _LEAST_RATIO)
    return PilotGame(ratios, similar_ratio, incorrect_ratio)


def _list_value(rank: Int[np.ndarray, " M"], k: int) -> np.ndarray:
    return np.where((rank >= 1) & (rank <= k), 1 / np.log2(1.0 + np.maximum(rank, 1)), 0.0)
