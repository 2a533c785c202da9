"""A simulated LLM teacher: reads titles as a person would, and is sometimes off.

Not a language model. It stands in for one in the demo and the tests, at no cost and without a network: it is shown what
the ranking prompt shows — the titles of the session in order, and those of the candidates — and never the target. Its
reading fits titles such as "Iron Harbour 3: Racing"; one without a colon is a franchise of its own and has no genre.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from alkd_jax.types import PAD, Rankings, Sessions

_TITLE = re.compile(r"(?P<franchise>.+?)(?: (?P<number>[0-9]{1,4}))?: (?P<genre>[^:]+)")


def read_title(title: str) -> tuple[str, int, str]:
    """Reads a title.

    Args:
        title: for example "Iron Harbour 3: Racing".

    Returns:
        Franchise, number in it from 0 (1 where the title has none), and genre ("" where the title has none).
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

    A faithful answer lists first what continues a franchise with the next number, the franchise seen last before
    others; then other items of a franchise of the session, likewise; then by the share of the session's items with the
    candidate's genre. Ties keep the candidates' order. Each session is answered so with probability ``accuracy``, and
    with its candidates in random order otherwise; that depends on the seed and the session's id alone, so that
    asking about other sessions at the same time changes nothing.

    Args:
        seed: from 0.
        sessions: M sessions; the targets are not read.
        candidates: the items to rank, each once a row; 0 and -1, anywhere, fill a short row.
        titles: V + 1 titles, the first of padding.
        num_ranked: K, how many are listed.
        accuracy: probability of a faithful answer, from 0 to 1.

    Returns:
        ``[M, K]`` rankings; 0 and mask False where a session has fewer candidates.

    Raises:
        ValueError: rows do not match, an item has no title, a row repeats a candidate, or an option is out of range.

    Reference:
        Du et al., ALKDRec, AAAI 2025, Module 1, whose hints name sequels, series and genres.
    """
    items, mask = np.asarray(sessions.items), np.asarray(sessions.mask)
    _check(seed, items, candidates, titles, num_ranked, accuracy)
    shown = candidates > PAD
    candidates = np.where(shown, candidates, PAD)
    order = _by_titles(items, mask, candidates, titles)
    for row, session_id in enumerate(np.asarray(sessions.session_id).tolist()):
        rng = np.random.default_rng([seed, session_id])
        if rng.random() >= accuracy:
            order[row] = np.argsort(rng.random(candidates.shape[1]), kind="stable")
    shown = np.take_along_axis(shown, order, axis=1)
    # Stable: what is shown moves to the front in the order it stands in.
    order = np.take_along_axis(order, np.argsort(~shown, axis=1, kind="stable"), axis=1)
    ranked = np.zeros((len(items), num_ranked), np.int32)
    best = np.take_along_axis(candidates, order, axis=1)[:, :num_ranked]
    ranked[:, : best.shape[1]] = best
    return Rankings(np.asarray(sessions.session_id), ranked, ranked != PAD)


def _by_titles(
    items: Int[np.ndarray, "M L"],
    mask: Bool[np.ndarray, "M L"],
    candidates: Int[np.ndarray, "M C"],
    titles: Sequence[str],
) -> Int[np.ndarray, "M C"]:
    """Returns the columns of the candidates, the best reading first."""
    read = {item: read_title(titles[item]) for item in np.union1d(items, candidates).tolist()}
    franchise, number, genre = np.zeros((3, len(titles)), int)
    franchises, genres = {"": 0}, {"": 0}
    for item, (name, place, kind) in read.items():
        franchise[item] = franchises.setdefault(name, len(franchises))
        number[item] = place
        genre[item] = genres.setdefault(kind, len(genres))

    recency = np.where(mask, np.arange(1, items.shape[1] + 1), 0)[:, None, :]
    same_franchise = _equal(franchise[candidates], franchise[items])
    follows = same_franchise & (number[candidates][:, :, None] == number[items][:, None, :] + 1)
    # The count orders as the share does, the session being the same for all its candidates.
    liked = (_equal(genre[candidates], genre[items]) & mask[:, None, :]).sum(axis=2)
    keys = (-liked, -(same_franchise * recency).max(axis=2, initial=0), -(follows * recency).max(axis=2, initial=0))
    return np.lexsort(keys, axis=1)


def _equal(first: Int[np.ndarray, "M C"], second: Int[np.ndarray, "M L"]) -> Bool[np.ndarray, "M C L"]:
    """Which codes agree; 0 stands for an empty name and agrees with nothing."""
    return (first[:, :, None] == second[:, None, :]) & (first > 0)[:, :, None]


def _check(
    seed: int,
    items: Int[np.ndarray, "..."],
    candidates: Int[np.ndarray, "..."],
    titles: Sequence[str],
    num_ranked: int,
    accuracy: float,
) -> None:
    if seed < 0:
        raise ValueError(f"seed: {seed}, expected at least 0")
    if num_ranked < 1:
        raise ValueError(f"num_ranked: {num_ranked}, expected at least 1")
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy: {accuracy}, expected from 0 to 1")
    if len(candidates) != len(items):
        raise ValueError(f"candidates: {len(candidates)} rows for {len(items)} sessions")
    for name, array, least in (("session items", items, PAD), ("candidates", candidates, -1)):
        if array.size and not least <= array.min() <= array.max() < len(titles):
            raise ValueError(f"{name}: from {array.min()} to {array.max()}, expected {least} to {len(titles) - 1}")
    in_order = np.sort(candidates, axis=1)
    repeated = (in_order[:, 1:] > PAD) & (in_order[:, 1:] == in_order[:, :-1])
    if repeated.any():
        row = int(np.flatnonzero(repeated.any(axis=1))[0])
        raise ValueError(f"candidates: row {row} lists item {in_order[row, 1:][repeated[row]][0]} twice")
