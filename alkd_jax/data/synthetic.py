"""The built-in synthetic dataset: titles with franchises and genres, and sessions that follow them.

The catalogue is sorted so that every genre, every franchise and every series is a contiguous range of positions.
Sessions are sampled over positions, and item ids are shuffled at the end, so that an id carries no information. A title
carries all of it: "Iron Harbour 3: Racing" is the third item of its franchise. The labels are a weak signal (one target
per session, a long tail, a popularity that drifts from the training block to the test block), so that a teacher that
reads titles knows more than a student can learn from the labels.

Sampling uses only uniform random numbers, sums, products and quotients, so that a seed gives the same dataset on every
platform.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from alkd_jax.checks import check_count
from alkd_jax.data.sessions import build_dataset, pack
from alkd_jax.types import Dataset

MIN_LENGTH, MAX_LENGTH = 4, 18
"""Smallest and largest number of items in a session, the target included."""

GENRES = (
    *("Racing", "Puzzle", "Strategy", "Horror", "Western", "Pinball", "Detective", "Farming"),
    *("Football", "Fishing", "Cooking", "Dance", "Stealth", "Survival", "Flight", "Mystery"),
    *("Trains", "Chess", "Skating", "Quiz", "Platform", "Romance", "Heist", "Submarine"),
    *("Wrestling", "Archery", "Circus", "Robots", "Dinosaurs", "Vikings", "Gardening", "Space"),
)
"""The last word of every title, the most frequent first."""

_ADJECTIVES = (
    *("Iron", "Velvet", "Silent", "Crimson", "Hollow", "Amber", "Frozen", "Golden", "Broken", "Hidden", "Distant"),
    *("Electric", "Paper", "Midnight", "Burning", "Salted", "Lunar", "Copper", "Gentle", "Thunder", "Crooked", "Glass"),
    *("Scarlet", "Wandering", "Northern", "Secret", "Marble", "Rusty", "Emerald", "Sleeping", "Savage", "Ivory"),
    *("Clockwork", "Stolen", "Wild", "Drifting", "Sunken", "Painted", "Restless", "Silver"),
)
_NOUNS = (
    *("Harbour", "Comet", "Orchard", "Lantern", "Kingdom", "Canyon", "Fortress", "Garden", "Mirror", "River", "Tower"),
    *(
        "Voyage",
        "Empire",
        "Meadow",
        "Engine",
        "Citadel",
        "Horizon",
        "Island",
        "Carnival",
        "Compass",
        "Valley",
        "Bridge",
    ),
    *("Theatre", "Glacier", "Station", "Forest", "Rebellion", "Labyrinth", "Market", "Monastery", "Parade", "Quarry"),
    *("Reef", "Shadow", "Tempest", "Union", "Village", "Workshop", "Zeppelin", "Anthem"),
)
_SYLLABLES = ("ba", "ce", "do", "fi", "ga", "he", "jo", "ki", "la", "me", "no", "pi", "ra", "su", "te", "vo")

_STANDALONE = 0.25  # share of franchises with one item; the others have 2 to 8
_REISSUED = 0.04  # share of items that repeat the title of the previous item of their franchise
_EPOCHS = 10  # blocks of sessions between which popularity and preferences change
_OFF_PEAK, _PEAK_WIDTH = 0.15, 0.5  # attention far from an item's peak, and half-width of the peak
_HEAD, _GENRE_HEAD = 60.0, 30.0  # popularity is 1 / (rank + head) over franchises, and over genres
_SEQUEL, _FRANCHISE, _GENRE = 0.3, 0.2, 0.4  # probabilities of the rules for the next item; the rest is popularity
_MEMORY = 6  # number of recent items from which the franchise to continue is chosen


@dataclasses.dataclass(frozen=True)
class _Catalogue:
    """The catalogue by position 0..V-1: genres and franchises are contiguous, numbers increase within a franchise."""

    franchise: Int[np.ndarray, " V"]
    number: Int[np.ndarray, " V"]
    genre: Int[np.ndarray, " V"]
    sequel: Int[np.ndarray, " V"]
    """Position of the next number of the franchise, -1 after the last."""
    cumulative_weight: Float[np.ndarray, "E V1"]
    """Cumulative weight of the positions at each epoch, beginning with 0."""


def synthetic(num_items: int = 2000, num_sessions: int = 5000, *, seed: int = 0, max_length: int = 10) -> Dataset:
    """Samples a dataset with titles, franchises, genres, skewed popularity and drift.

    A session has two preferred genres. Its next item is, with probabilities 0.3, 0.2 and 0.4, the sequel of a recent
    item, another item of a recent item's franchise, or an item of a preferred genre; otherwise any item. Items are
    sampled by popularity and without repetition. Popularity is 1 / (rank + 60) over franchises, times a factor of the
    item, times its attention ``a(t) = 0.15 + 0.85 max(0, 1 − |t − peak| / 0.5)`` at time t ∈ (0, 1); sequels have
    later peaks. The distribution of preferred genres drifts too.

    Args:
        num_items: V, at least 20.
        num_sessions: N, at least 5; rows are in time order and split 6:2:2 as blocks.
        seed: random seed, at least 0; equal arguments give equal datasets.
        max_length: L, the number of most recent inputs that a model sees.

    Returns:
        The dataset, with sessions of 4 to 18 items. Titles have the form ``NAME NUMBER: GENRE``, without a number for
        the first item of a franchise; a few titles occur twice (reissues).

    Raises:
        ValueError: a size is too small or the seed is negative.
    """
    check_count(MAX_LENGTH + 2, num_items=num_items)
    check_count(5, num_sessions=num_sessions)
    check_count(0, seed=seed)
    rng = np.random.default_rng(seed)
    catalogue = _sample_catalogue(rng, num_items)
    positions = _sample_sessions(rng, catalogue, num_sessions)
    order = _permutation(rng, num_items)  # order[item - 1] is the position of the item
    item_of_position = np.argsort(order) + 1
    names = _sample_names(rng, int(catalogue.franchise[-1]) + 1)
    titles = [
        _make_title(names[franchise], int(number), GENRES[genre])
        for franchise, number, genre in zip(
            catalogue.franchise[order], catalogue.number[order], catalogue.genre[order], strict=True
        )
    ]
    return build_dataset(
        "synthetic",
        pack(item_of_position[row[row >= 0]] for row in positions),
        ["", *titles],
        ["", *(f"item-{item}" for item in range(1, num_items + 1))],
        max_length=max_length,
        report={"source": "synthetic", "seed": seed, "franchises": len(names), "genres": len(set(catalogue.genre))},
    )


def _permutation(rng: np.random.Generator, size: int) -> Int[np.ndarray, " size"]:
    return np.argsort(rng.random(size), kind="stable")


def _make_title(name: str, number: int, genre: str) -> str:
    return f"{name}: {genre}" if number == 1 else f"{name} {number}: {genre}"


def _sample_names(rng: np.random.Generator, num_names: int) -> list[str]:
    """Returns distinct two-word names; when these are exhausted, followed by "of" and a word made of syllables."""
    pairs = len(_ADJECTIVES) * len(_NOUNS)
    names = []
    for code in _permutation(rng, max(num_names, pairs))[:num_names]:
        suffix_code, pair = divmod(int(code), pairs)
        noun, adjective = divmod(pair, len(_ADJECTIVES))
        name, suffix = f"{_ADJECTIVES[adjective]} {_NOUNS[noun]}", ""
        while suffix_code:
            suffix_code, syllable = divmod(suffix_code, len(_SYLLABLES))
            suffix += _SYLLABLES[syllable]
        names.append(f"{name} of {suffix.capitalize()}" if suffix else name)
    return names


def _sample_catalogue(rng: np.random.Generator, num_items: int) -> _Catalogue:
    sizes, remaining = [], num_items
    while remaining > 0:
        standalone, size = rng.random() < _STANDALONE, 2 + int(7 * rng.random())
        sizes.append(1 if standalone else min(size, remaining))
        remaining -= sizes[-1]
    num_franchises = len(sizes)
    franchise = np.repeat(np.arange(num_franchises), sizes)
    first = np.concatenate([[True], franchise[1:] != franchise[:-1]])
    new_title = first | (rng.random(num_items) >= _REISSUED)
    num_titles = np.cumsum(new_title)
    number = 1 + num_titles - num_titles[np.flatnonzero(first)][franchise]

    genre = np.sort(_sample_index(np.cumsum(_genre_weights()), rng.random(num_franchises)))[franchise]
    series = franchise * (MAX_LENGTH + 1) + number
    next_position = np.minimum(np.searchsorted(series, series + 1), num_items - 1)
    sequel = np.where(series[next_position] == series + 1, next_position, -1)

    popularity = 1.0 / (_permutation(rng, num_franchises) + _HEAD)
    item_weight = popularity[franchise] * (0.3 + 0.7 * rng.random(num_items))
    peak = (1.5 * rng.random(num_franchises) - 0.75)[franchise] + 0.25 * (number - 1)
    time = (np.arange(_EPOCHS) + 0.5) / _EPOCHS
    attention = np.maximum(0.0, 1.0 - np.abs(time[:, None] - peak[None, :]) / _PEAK_WIDTH)
    cumulative_weight = np.cumsum(item_weight[None, :] * (_OFF_PEAK + (1.0 - _OFF_PEAK) * attention), axis=1)
    return _Catalogue(
        franchise, number, genre, sequel, np.concatenate([np.zeros((_EPOCHS, 1)), cumulative_weight], axis=1)
    )


def _genre_weights() -> Float[np.ndarray, " G"]:
    return 1.0 / (np.arange(len(GENRES)) + _GENRE_HEAD)


def _sample_index(
    cumulative_weight: Float[np.ndarray, " G"], uniform: Float[np.ndarray, "..."]
) -> Int[np.ndarray, "..."]:
    """Samples indices with probabilities proportional to the increments of a cumulative weight."""
    return np.minimum(
        np.searchsorted(cumulative_weight, uniform * cumulative_weight[-1], side="right"), len(cumulative_weight) - 1
    )


def _sample_sessions(rng: np.random.Generator, catalogue: _Catalogue, num_sessions: int) -> Int[np.ndarray, "N T"]:
    """Returns positions, -1 after the last item of a session. All sessions are extended by one item at a time."""
    uniform = rng.random(num_sessions)
    length = MIN_LENGTH + (uniform * uniform * (MAX_LENGTH - MIN_LENGTH + 1)).astype(int)
    epoch = np.arange(num_sessions) * _EPOCHS // num_sessions
    first_weights = _genre_weights()
    last_weights = first_weights[_permutation(rng, len(GENRES))]
    preferred = np.empty((num_sessions, 2), int)
    for current in range(_EPOCHS):
        rows = epoch == current
        progress = (current + 0.5) / _EPOCHS
        preferred[rows] = _sample_index(
            np.cumsum((1.0 - progress) * first_weights + progress * last_weights), rng.random((int(rows.sum()), 2))
        )

    positions = np.full((num_sessions, MAX_LENGTH), -1)
    for step in range(MAX_LENGTH):
        rows = np.flatnonzero(length > step)
        for attempt in range(20):
            # After five rejected samples the franchise is treated as exhausted.
            low, high = _sample_range(rng, catalogue, positions[rows], preferred[rows], step, follow=attempt < 5)
            chosen = _sample_position(rng, catalogue.cumulative_weight, epoch[rows], low, high)
            is_new = (positions[rows] != chosen[:, None]).all(axis=1)
            positions[rows[is_new], step] = chosen[is_new]
            rows = rows[~is_new]
        for row in rows:
            unseen = np.setdiff1d(np.arange(len(catalogue.franchise)), positions[row])
            positions[row, step] = unseen[int(rng.random() * len(unseen))]
    return positions


def _sample_range(
    rng: np.random.Generator,
    catalogue: _Catalogue,
    positions: Int[np.ndarray, "R T"],
    preferred: Int[np.ndarray, "R 2"],
    step: int,
    *,
    follow: bool,
) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " R"]]:
    """Samples the range of positions for each session's next item: sequel, franchise, genre or the entire catalogue."""
    num_rows, num_items = len(positions), len(catalogue.franchise)
    rule, recency, genre_choice = rng.random((3, num_rows))
    genre = preferred[np.arange(num_rows), (2 * genre_choice).astype(int)]
    low, high = np.searchsorted(catalogue.genre, genre), np.searchsorted(catalogue.genre, genre, side="right")
    any_item = (rule >= _SEQUEL + _FRANCHISE + _GENRE) | (low == high)
    low, high = np.where(any_item, 0, low), np.where(any_item, num_items, high)
    if step == 0 or not follow:
        return low, high
    # The square of a uniform number favors the most recent items.
    recent = positions[np.arange(num_rows), step - 1 - (recency * recency * min(step, _MEMORY)).astype(int)]
    sequel = catalogue.sequel[recent]
    to_sequel = (rule < _SEQUEL) & (sequel >= 0)
    low, high = np.where(to_sequel, sequel, low), np.where(to_sequel, sequel + 1, high)
    to_franchise = (rule >= _SEQUEL) & (rule < _SEQUEL + _FRANCHISE)
    franchise = catalogue.franchise[recent]
    start = np.searchsorted(catalogue.franchise, franchise)
    stop = np.searchsorted(catalogue.franchise, franchise, side="right")
    return np.where(to_franchise, start, low), np.where(to_franchise, stop, high)


def _sample_position(
    rng: np.random.Generator,
    cumulative_weight: Float[np.ndarray, "E V1"],
    epoch: Int[np.ndarray, " R"],
    low: Int[np.ndarray, " R"],
    high: Int[np.ndarray, " R"],
) -> Int[np.ndarray, " R"]:
    """Samples a position in low..high-1 for each row, with probabilities proportional to the weights at its epoch."""
    start, stop = cumulative_weight[epoch, low], cumulative_weight[epoch, high]
    threshold = start + rng.random(len(epoch)) * (stop - start)
    chosen = np.empty(len(epoch), int)
    for current in np.unique(epoch):
        rows = epoch == current
        chosen[rows] = np.searchsorted(cumulative_weight[current], threshold[rows], side="right") - 1
    return np.clip(chosen, low, high - 1)
