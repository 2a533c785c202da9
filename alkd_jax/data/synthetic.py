"""The built-in world: invented titles in franchises and genres, and sessions that follow them.

A catalogue is laid out on a shelf where every genre, every franchise and every series is a contiguous run; sessions
are drawn on the shelf and ids are shuffled at the end, so that an id says nothing. Titles say everything: "Iron Harbour
3: Racing" is the third of its franchise. Labels teach little (one target a session, a long tail, a popularity that
drifts from the training block to the test block), which leaves room for a reader of titles to teach more.

The draws use uniform random numbers, sums, products and quotients only, so a seed gives one world on every platform.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from alkd_jax.data.sessions import build_dataset, pack
from alkd_jax.types import Dataset

MIN_LENGTH, MAX_LENGTH = 4, 18
"""Items in a whole session, the target included."""

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

_STANDALONE = 0.25  # share of franchises of one item; the others have 2 to 8
_REISSUED = 0.04  # share of items that repeat the title of the item before them in their franchise
_EPOCHS = 10  # blocks of sessions between which popularity and taste move
_OFF_PEAK, _PEAK_WIDTH = 0.15, 0.5  # attention away from an item's peak, and how far the peak reaches
_HEAD, _GENRE_HEAD = 60.0, 30.0  # popularity is 1 / (rank + head) over franchises, and over genres
_SEQUEL, _FRANCHISE, _GENRE = 0.3, 0.2, 0.4  # what the next item follows; the rest is plain popularity
_MEMORY = 6  # how far back a session looks for the franchise to go on with


@dataclasses.dataclass(frozen=True)
class _Shelf:
    """The catalogue in shelf order: position 0..V-1, genres and franchises contiguous, numbers rising."""

    franchise: Int[np.ndarray, " V"]
    number: Int[np.ndarray, " V"]
    genre: Int[np.ndarray, " V"]
    sequel: Int[np.ndarray, " V"]
    """Position of the next number of the franchise, -1 after the last."""
    weight: Float[np.ndarray, "E V1"]
    """Cumulated attention at each epoch, from 0."""


def synthetic(num_items: int = 2000, num_sessions: int = 5000, *, seed: int = 0, max_length: int = 10) -> Dataset:
    """Draws a world with titles, franchises, genres, skewed popularity and drift.

    A session has two genres it likes. Each next item is, with probabilities 0.3, 0.2 and 0.4, the sequel of a recent
    item, another of its franchise, or an item of a liked genre; else any item; always by popularity, never twice.
    Popularity is 1 / (rank + 60) over franchises, times an item's own share, times its attention
    ``a(t) = 0.15 + 0.85 max(0, 1 − |t − peak| / 0.5)`` at time t ∈ (0, 1); sequels peak later. Liked genres move too.

    Args:
        num_items: V, at least 20.
        num_sessions: N, at least 5; rows are in time order and split 6:2:2 as blocks.
        seed: from 0; equal arguments give equal worlds.
        max_length: L, how many of the most recent inputs a model sees.

    Returns:
        The dataset, its sessions of 4 to 18 items; titles read ``NAME NUMBER: GENRE``, the number left out for the
        first of a franchise; a few titles occur twice (a reissue).

    Raises:
        ValueError: a size is too small or the seed is negative.
    """
    for name, value, least in (
        ("num_items", num_items, MAX_LENGTH + 2),
        ("num_sessions", num_sessions, 5),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: {value}, expected at least {least}")
    rng = np.random.default_rng(seed)
    shelf = _draw_shelf(rng, num_items)
    positions = _draw_sessions(rng, shelf, num_sessions)
    order = _shuffled(rng, num_items)  # order[item - 1] is the shelf position
    item_at = np.argsort(order) + 1
    names = _names(rng, int(shelf.franchise[-1]) + 1)
    titles = [_title(names[shelf.franchise[at]], int(shelf.number[at]), GENRES[shelf.genre[at]]) for at in order]
    return build_dataset(
        "synthetic",
        pack(item_at[row[row >= 0]] for row in positions),
        ["", *titles],
        ["", *(f"item-{item}" for item in range(1, num_items + 1))],
        max_length=max_length,
        report={"source": "synthetic", "seed": seed, "franchises": len(names), "genres": len(set(shelf.genre))},
    )


def _shuffled(rng: np.random.Generator, size: int) -> Int[np.ndarray, " size"]:
    return np.argsort(rng.random(size), kind="stable")


def _title(name: str, number: int, genre: str) -> str:
    return f"{name}: {genre}" if number == 1 else f"{name} {number}: {genre}"


def _names(rng: np.random.Generator, num_names: int) -> list[str]:
    """Returns distinct two-word names; where these run out, with a spelt-out place behind them."""
    pairs = len(_ADJECTIVES) * len(_NOUNS)
    names = []
    for code in _shuffled(rng, max(num_names, pairs))[:num_names]:
        place, pair = divmod(int(code), pairs)
        noun, adjective = divmod(pair, len(_ADJECTIVES))
        name, spelt = f"{_ADJECTIVES[adjective]} {_NOUNS[noun]}", ""
        while place:
            place, syllable = divmod(place, len(_SYLLABLES))
            spelt += _SYLLABLES[syllable]
        names.append(f"{name} of {spelt.capitalize()}" if spelt else name)
    return names


def _draw_shelf(rng: np.random.Generator, num_items: int) -> _Shelf:
    sizes, room = [], num_items
    while room > 0:
        alone, size = rng.random() < _STANDALONE, 2 + int(7 * rng.random())
        sizes.append(1 if alone else min(size, room))
        room -= sizes[-1]
    num_franchises = len(sizes)
    franchise = np.repeat(np.arange(num_franchises), sizes)
    first = np.concatenate([[True], franchise[1:] != franchise[:-1]])
    fresh = first | (rng.random(num_items) >= _REISSUED)
    counted = np.cumsum(fresh)
    number = 1 + counted - counted[np.flatnonzero(first)][franchise]

    genre = np.sort(_pick(np.cumsum(_genre_share()), rng.random(num_franchises)))[franchise]
    series = franchise * (MAX_LENGTH + 1) + number
    after = np.minimum(np.searchsorted(series, series + 1), num_items - 1)
    sequel = np.where(series[after] == series + 1, after, -1)

    popularity = 1.0 / (_shuffled(rng, num_franchises) + _HEAD)
    base = popularity[franchise] * (0.3 + 0.7 * rng.random(num_items))
    peak = (1.5 * rng.random(num_franchises) - 0.75)[franchise] + 0.25 * (number - 1)
    time = (np.arange(_EPOCHS) + 0.5) / _EPOCHS
    attention = np.maximum(0.0, 1.0 - np.abs(time[:, None] - peak[None, :]) / _PEAK_WIDTH)
    weight = np.cumsum(base[None, :] * (_OFF_PEAK + (1.0 - _OFF_PEAK) * attention), axis=1)
    return _Shelf(franchise, number, genre, sequel, np.concatenate([np.zeros((_EPOCHS, 1)), weight], axis=1))


def _genre_share() -> Float[np.ndarray, " G"]:
    return 1.0 / (np.arange(len(GENRES)) + _GENRE_HEAD)


def _pick(cumulated: Float[np.ndarray, " G"], uniform: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Draws an index in proportion to the steps of a cumulated weight."""
    return np.minimum(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"), len(cumulated) - 1)


def _draw_sessions(rng: np.random.Generator, shelf: _Shelf, num_sessions: int) -> Int[np.ndarray, "N T"]:
    """Returns shelf positions, -1 after the last of a session; all sessions grow by one item at a time."""
    uniform = rng.random(num_sessions)
    length = MIN_LENGTH + (uniform * uniform * (MAX_LENGTH - MIN_LENGTH + 1)).astype(int)
    epoch = np.arange(num_sessions) * _EPOCHS // num_sessions
    early = _genre_share()
    late = early[_shuffled(rng, len(GENRES))]
    liked = np.empty((num_sessions, 2), int)
    for now in range(_EPOCHS):
        rows = epoch == now
        moved = (now + 0.5) / _EPOCHS
        liked[rows] = _pick(np.cumsum((1.0 - moved) * early + moved * late), rng.random((int(rows.sum()), 2)))

    drawn = np.full((num_sessions, MAX_LENGTH), -1)
    for step in range(MAX_LENGTH):
        rows = np.flatnonzero(length > step)
        for attempt in range(20):
            # After a few refusals the franchise counts as exhausted.
            low, high = _range(rng, shelf, drawn[rows], liked[rows], step, follow=attempt < 5)
            chosen = _draw(rng, shelf.weight, epoch[rows], low, high)
            new = (drawn[rows] != chosen[:, None]).all(axis=1)
            drawn[rows[new], step] = chosen[new]
            rows = rows[~new]
        for row in rows:
            unseen = np.setdiff1d(np.arange(len(shelf.franchise)), drawn[row])
            drawn[row, step] = unseen[int(rng.random() * len(unseen))]
    return drawn


def _range(
    rng: np.random.Generator,
    shelf: _Shelf,
    drawn: Int[np.ndarray, "R T"],
    liked: Int[np.ndarray, "R 2"],
    step: int,
    *,
    follow: bool,
) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " R"]]:
    """Chooses the run of the shelf from which each session takes its next item: sequel, franchise, genre or all."""
    num_rows, num_items = len(drawn), len(shelf.franchise)
    rule, back, which = rng.random((3, num_rows))
    genre = liked[np.arange(num_rows), (2 * which).astype(int)]
    low, high = np.searchsorted(shelf.genre, genre), np.searchsorted(shelf.genre, genre, side="right")
    anywhere = (rule >= _SEQUEL + _FRANCHISE + _GENRE) | (low == high)
    low, high = np.where(anywhere, 0, low), np.where(anywhere, num_items, high)
    if step == 0 or not follow:
        return low, high
    # The square leans towards the most recent item.
    recent = drawn[np.arange(num_rows), step - 1 - (back * back * min(step, _MEMORY)).astype(int)]
    sequel = shelf.sequel[recent]
    to_sequel = (rule < _SEQUEL) & (sequel >= 0)
    low, high = np.where(to_sequel, sequel, low), np.where(to_sequel, sequel + 1, high)
    to_franchise = (rule >= _SEQUEL) & (rule < _SEQUEL + _FRANCHISE)
    franchise = shelf.franchise[recent]
    start, stop = np.searchsorted(shelf.franchise, franchise), np.searchsorted(shelf.franchise, franchise, side="right")
    return np.where(to_franchise, start, low), np.where(to_franchise, stop, high)


def _draw(
    rng: np.random.Generator,
    weight: Float[np.ndarray, "E V1"],
    epoch: Int[np.ndarray, " R"],
    low: Int[np.ndarray, " R"],
    high: Int[np.ndarray, " R"],
) -> Int[np.ndarray, " R"]:
    """Draws a position from low..high-1 of each row in proportion to its attention at the row's epoch."""
    start, stop = weight[epoch, low], weight[epoch, high]
    mark = start + rng.random(len(epoch)) * (stop - start)
    chosen = np.empty(len(epoch), int)
    for now in np.unique(epoch):
        rows = epoch == now
        chosen[rows] = np.searchsorted(weight[now], mark[rows], side="right") - 1
    return np.clip(chosen, low, high - 1)
