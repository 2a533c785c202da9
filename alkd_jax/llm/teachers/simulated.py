"""A simulated LLM teacher, which ranks by franchise, sequel number and genre in the titles, and sometimes at random.

It stands in for a language model in the quickstart and the tests, at no cost and without a network. It sees what the
ranking prompt shows, the titles of the session in order and those of the candidates, and never the target. It
understands titles such as "Iron Harbour 3: Racing"; a title without a colon is a franchise of its own and has no genre.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from alkd_jax.checks import check_at_least, check_between, check_span
from alkd_jax.types import PAD, Rankings, Sessions

_TITLE = re.compile(r"(?P<franchise>.+?)(?: (?P<number>[0-9]{1,4}))?: (?P<genre>[^:]+)")


@dataclasses.dataclass(frozen=True)
class SimulatedTeacher:
    """Ranks by titles; see :func:`rank_by_titles`.

    Attributes:
        titles: V + 1 titles, the first of padding.
        seed: at least 0.
        accuracy: probability that a session is ranked by its titles and not at random, from 0 to 1.
        k: length of the lists.
    """

    titles: Sequence[str]
    seed: int = 0
    accuracy: int | float = 0.8
    k: int = 25

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """Ranks every session; see `Teacher`."""
        rankings = rank_by_titles(
            self.seed, sessions, candidates, self.titles, num_ranked=self.k, accuracy=self.accuracy
        )
        return rankings, {"asked": len(sessions), "missing": [], "accuracy": self.accuracy}


def parse_title(title: str) -> tuple[str, int, str]:
    """Splits a title into franchise, number and genre.

    Args:
        title: such as "Iron Harbour 3: Racing".

    Returns:
        Franchise, number within it from 0 (1 where the title has none), and genre ("" where the title has none).
    """
    match = _TITLE.fullmatch(title)
    return (match["franchise"], int(match["number"] or 1), match["genre"]) if match else (title, 1, "")


def rank_by_titles(
    seed: int,
    sessions: Sessions,
    candidates: Int[np.ndarray, "M C"],
    titles: Sequence[str],
    *,
    num_ranked: int = 25,
    accuracy: float = 0.8,
) -> Rankings:
    """Ranks each session's candidates by franchise, sequel number and genre.

    Candidates with the next number of a franchise in the session come first, and those of the franchise seen most
    recently before others; then other items of these franchises in the same order; then the rest by the share of the
    session's items that have the candidate's genre. Ties keep the candidates' order. A session is ranked so with
    probability ``accuracy``, and in random order otherwise. Randomness depends on the seed and the session's id alone,
    so that the other sessions in the call do not matter.

    Args:
        seed: at least 0.
        sessions: M sessions; their targets are not read.
        candidates: the items to rank, distinct in each row; 0 or -1 at any position fills a short row.
        titles: V + 1 titles, the first of padding.
        num_ranked: K, the number of items listed.
        accuracy: probability that a session is ranked by its titles, from 0 to 1.

    Returns:
        ``[M, K]`` rankings; 0 and mask False where a session has fewer candidates.

    Raises:
        ValueError: the numbers of rows differ, an item has no title, a row repeats a candidate, or an option is out of
            range.

    Reference:
        Du et al., ALKDRec, AAAI 2025, Module 1, whose hints name sequels, series and genres.
    """
    items, mask = np.asarray(sessions.items), np.asarray(sessions.mask)
    check_at_least(0, seed=seed)
    check_at_least(1, num_ranked=num_ranked)
    check_between(0, 1, accuracy=accuracy)
    _check_items(items, candidates, len(titles))
    is_candidate = candidates > PAD
    candidates = np.where(is_candidate, candidates, PAD)
    order = _order_by_titles(items, mask, candidates, titles)
    for row, session_id in enumerate(np.asarray(sessions.session_id).tolist()):
        rng = np.random.default_rng([seed, session_id])
        if rng.random() >= accuracy:
            order[row] = np.argsort(rng.random(candidates.shape[1]), kind="stable")
    is_candidate = np.take_along_axis(is_candidate, order, axis=1)
    # The stable sort moves the padding to the end and keeps the order of the candidates.
    order = np.take_along_axis(order, np.argsort(~is_candidate, axis=1, kind="stable"), axis=1)
    ranked = np.zeros((len(items), num_ranked), np.int32)
    best = np.take_along_axis(candidates, order, axis=1)[:, :num_ranked]
    ranked[:, : best.shape[1]] = best
    return Rankings(np.asarray(sessions.session_id), ranked, ranked != PAD)


def _order_by_titles(
    items: Int[np.ndarray, "M L"],
    mask: Bool[np.ndarray, "M L"],
    candidates: Int[np.ndarray, "M C"],
    titles: Sequence[str],
) -> Int[np.ndarray, "M C"]:
    """Returns the columns of the candidates, best first."""
    parsed = {item: parse_title(titles[item]) for item in np.union1d(items, candidates).tolist()}
    franchise, number, genre = np.zeros((3, len(titles)), int)
    franchises, genres = {"": 0}, {"": 0}
    for item, (name, place, kind) in parsed.items():
        franchise[item] = franchises.setdefault(name, len(franchises))
        number[item] = place
        genre[item] = genres.setdefault(kind, len(genres))

    recency = np.where(mask, np.arange(1, items.shape[1] + 1), 0)[:, None, :]
    same_franchise = _equal(franchise[candidates], franchise[items])
    follows = same_franchise & (number[candidates][:, :, None] == number[items][:, None, :] + 1)
    # Within a session, the count of items with the candidate's genre has the same order as their share.
    same_genre = (_equal(genre[candidates], genre[items]) & mask[:, None, :]).sum(axis=2)
    keys = (
        -same_genre,
        -(same_franchise * recency).max(axis=2, initial=0),
        -(follows * recency).max(axis=2, initial=0),
    )
    return np.lexsort(keys, axis=1)


def _equal(first: Int[np.ndarray, "M C"], second: Int[np.ndarray, "M L"]) -> Bool[np.ndarray, "M C L"]:
    """Returns which codes are equal; the code 0 of an empty name equals nothing."""
    return (first[:, :, None] == second[:, None, :]) & (first > 0)[:, :, None]


def _check_items(items: Int[np.ndarray, "..."], candidates: Int[np.ndarray, "..."], num_titles: int) -> None:
    """Raises ValueError unless rows match, all items have a title, and no row repeats a candidate."""
    if len(candidates) != len(items):
        raise ValueError(f"candidates have {len(candidates)} rows; expected {len(items)}, one for each session")
    check_span("session items", items, PAD, num_titles - 1)
    check_span("candidates", candidates, -1, num_titles - 1)
    ascending = np.sort(candidates, axis=1)
    repeated = (ascending[:, 1:] > PAD) & (ascending[:, 1:] == ascending[:, :-1])
    if repeated.any():
        row = int(np.flatnonzero(repeated.any(axis=1))[0])
        item = ascending[row, 1:][repeated[row]][0]
        raise ValueError(f"candidates[{row}] has item {item} twice; expected distinct candidates")
