"""The one interface of all teachers: sessions and candidates in, rankings and a report out."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from alkd_jax.types import PAD, Rankings, Sessions


class Teacher(Protocol):
    """Ranks candidates; it sees items, mask and id of a session and never the target."""

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """Ranks each session's candidates.

        Args:
            sessions: M sessions; their targets are not read.
            candidates: the items to rank; 0 fills a short row.

        Returns:
            Rankings of the sessions that the teacher can rank, each once, in the order of `sessions`; and a report of
            plain JSON values with at least "asked", the number of sessions, and "missing", the ids of the others.
        """


def lists_to_rankings(lists: Mapping[int, Sequence[int]], k: int) -> Rankings:
    """Makes rankings of lists.

    Args:
        lists: session id → items, best first, at most k.
        k: K, the width of the rankings.

    Returns:
        ``[M, K]`` rankings in the order of the lists.
    """
    items = np.full((len(lists), k), PAD, np.int32)
    for row, listed in enumerate(lists.values()):
        items[row, : len(listed)] = listed
    return Rankings(np.array(list(lists), np.int32), items, items != PAD)
