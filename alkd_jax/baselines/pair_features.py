"""What counts and titles say of every item as the next one of a session: sparse scores, one for each way to count."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts, count
from alkd_jax.baselines.left_out_products import LeftOut, entries
from alkd_jax.baselines.queries import Histories, query_matrix, steps_to_end
from alkd_jax.types import Sequences

DECAYS = (0.5, 0.9)
RECENCIES = (0.35, 0.65, 0.9)
_MIDDLE = 0.65


@dataclasses.dataclass(frozen=True, eq=False)
class PairFeatures:
    """The counts and the cosines of titles from which sessions and items are described.

    Attributes:
        by_decay: counts of the training sessions for each of :data:`DECAYS`.
        titles: name → ``[V1, V1]`` cosines of titles, see :func:`alkd_jax.distillation.item_rules.title_neighbors`.
    """

    by_decay: Mapping[float, Counts]
    titles: Mapping[str, csr_array]

    @property
    def counts(self) -> Counts:
        """Counts of the training sessions."""
        return self.by_decay[DECAYS[-1]]

    @functools.cached_property
    def squares(self) -> Mapping[str, csr_array]:
        """Squared cosines of titles."""
        return {name: cosines.power(2).tocsr() for name, cosines in self.titles.items()}

    def scores(self, histories: Histories, sessions: Int[np.ndarray, " B"] | None = None) -> dict[str, csr_array]:
        """Returns name → ``[B, V1]`` scores, at least 0, of every item that has one.

        With w the weights λʲ of the items j steps before the end, and w' = w / (1 + pop):

        - ``followers d λ`` is ``w' F_d`` for every decay d and recency λ, ``preceders λ`` is ``w' Fᵀ``;
        - ``of last`` has the last item alone, and ``adjacent`` counts neighbors alone;
        - ``co-occurrence`` is ``w' C``, ``neighbor sessions`` has the similar sessions' items;
        - ``two steps`` is ``(w' F)' F``;
        - ``titles`` is ``w C²`` of cosines C, ``titles of followers`` is ``w' F C²`` and ``followers of titles`` is
          ``(w C²)' F``.

        Args:
            histories: B histories.
            sessions: ``[B]``, the training session that each row leaves out of all counts; −1 or None for none.

        Raises:
            ValueError: an item or a session does not exist.
        """
        counts = self.counts
        left = LeftOut(counts, np.full(len(histories), -1) if sessions is None else np.asarray(sessions))
        steps = steps_to_end(histories.mask)
        weights = {recency: query_matrix(counts, histories, recency**steps) for recency in RECENCIES}
        shares = {recency: left.per_occurrence(weight) for recency, weight in weights.items()}
        last = query_matrix(counts, histories, (steps == 0).astype(np.float64))
        last_share = left.per_occurrence(last)
        found = {
            f"followers {decay} {recency}": left.followers(share, of_decay)
            for decay, of_decay in self.by_decay.items()
            for recency, share in shares.items()
        }
        found |= {f"preceders {recency}": left.followers(shares[recency], counts, backward=True) for recency in shares}
        middle, share = weights[_MIDDLE], shares[_MIDDLE]
        followers = found[f"followers {DECAYS[-1]} {_MIDDLE}"]
        found |= {
            "number of followers": left.followers(middle, counts),
            "followers of last": left.followers(last_share, counts),
            "adjacent": left.followers(share, counts, adjacent=True),
            "adjacent of last": left.followers(last_share, counts, adjacent=True),
            "adjacent before last": left.followers(last_share, counts, adjacent=True, backward=True),
            "co-occurrence": left.co_occurrence(share),
            "co-occurrence of last": left.co_occurrence(last_share),
            "neighbor sessions": left.neighbor_sessions(middle),
            "two steps": left.followers(left.per_occurrence(followers), counts),
        }
        for name, squares in self.squares.items():
            near = csr_array(middle @ squares)
            found |= {
                f"{name}": near,
                f"{name} long": csr_array(weights[RECENCIES[-1]] @ squares),
                f"{name} of last": csr_array(last @ squares),
                f"{name} nearest": _largest(histories, squares),
                f"{name} of followers": csr_array(followers @ squares),
                f"followers of {name}": left.followers(left.per_occurrence(near), counts),
            }
        return found

    def candidates(self, scores: Mapping[str, csr_array], places: int) -> list[Int[np.ndarray, " C"]]:
        """Returns for each row the items among the best ``places`` of any of several scores, in ascending order.

        Args:
            scores: of :meth:`scores`.
            places: number of items that each score proposes, of those above 0.
        """
        names = [f"followers {DECAYS[-1]} {_MIDDLE}", f"preceders {_MIDDLE}", "neighbor sessions", "two steps"]
        for title in self.titles:
            names += [title, f"{title} of followers", f"followers of {title}"]
        num_rows = scores[names[0]].shape[0]
        best = [_best(scores[name], places) for name in names]
        return [np.unique(np.concatenate([of_score[row] for of_score in best])) for row in range(num_rows)]

    def describe(
        self,
        scores: Mapping[str, csr_array],
        items: Int[np.ndarray, "B C"],
        sessions: Int[np.ndarray, " B"] | None = None,
    ) -> Float[np.ndarray, "B C F"]:
        """Returns the features of candidates: ``log(1 + 100 s)`` and s of every score, and the logarithm of popularity.

        An item without occurrences has the popularity of one with a single occurrence, so that "it is in the catalogue
        though no training session has it" is not a feature.

        Args:
            scores: of :meth:`scores`.
            items: candidates of each row.
            sessions: as of :meth:`scores`.
        """
        row = np.broadcast_to(np.arange(len(items))[:, None], items.shape)
        left = LeftOut(self.counts, np.full(len(items), -1) if sessions is None else np.asarray(sessions))
        popularity = np.maximum(left.popularity(row, items), 1.0)
        parts = [np.log(popularity)]
        for name, matrix in scores.items():
            value = entries(matrix, row.ravel(), items.ravel()).reshape(items.shape)
            if name == "co-occurrence":
                cosine = value / np.sqrt(popularity)
                parts += [np.log1p(100 * cosine), cosine]
            parts += [np.log1p(100 * value), np.log1p(value)]
        return np.stack(parts, axis=-1)


def pair_features(sequences: Sequences, num_items: int, titles: Mapping[str, csr_array] | None = None) -> PairFeatures:
    """Counts the training sessions for :class:`PairFeatures`.

    Args:
        sequences: N training sessions at full length.
        num_items: V.
        titles: name → ``[V1, V1]`` cosines of titles; none by default.

    Raises:
        ValueError: as of :func:`alkd_jax.baselines.count`, or cosines are not ``[V1, V1]``.
    """
    for name, cosines in (titles or {}).items():
        if cosines.shape != (num_items + 1, num_items + 1):
            raise ValueError(f"shape of {name} is {cosines.shape}; expected {(num_items + 1, num_items + 1)}")
    return PairFeatures({decay: count(sequences, num_items, decay=decay) for decay in DECAYS}, titles or {})


def _largest(histories: Histories, matrix: csr_array) -> csr_array:
    """Returns the largest entry over the rows of a history's items."""
    largest = csr_array((len(histories), matrix.shape[1]))
    for position in range(histories.items.shape[1]):
        is_item = histories.mask[:, position]
        rows = matrix[np.where(is_item, histories.items[:, position], 0)]
        largest = largest.maximum(rows)
    return csr_array(largest)


def _best(scores: csr_array, places: int) -> list[Int[np.ndarray, " C"]]:
    """Returns for each row the items of the largest scores above 0."""
    rows = []
    for start, stop in zip(scores.indptr[:-1], scores.indptr[1:], strict=True):
        items, value = scores.indices[start:stop], scores.data[start:stop]
        if len(items) > places:
            items = items[np.argpartition(-value, places - 1)[:places]]
        rows.append(items[items > 0])
    return rows
