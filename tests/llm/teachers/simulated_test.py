"""The simulated LLM: reads titles, never targets, and is faithful as often as its accuracy says."""

import numpy as np
import pytest

from alkd_jax.data.synthetic import synthetic
from alkd_jax.llm.teachers.simulated import parse_title, rank_by_titles
from alkd_jax.types import Sessions

TITLES = (
    "",
    "Iron Harbour: Racing",  # 1
    "Iron Harbour 2: Racing",
    "Iron Harbour 3: Racing",
    "Paper Comet: Puzzle",  # 4
    "Paper Comet 2: Puzzle",
    "Glass River: Racing",
    "Glass River 2: Racing",  # 7
    "Amber Tower: Chess",
    "Toy Story",
    "Toy Story",  # 10
    "",
    "",
)


def sessions(*histories, length=6, first_id=0):
    items = np.zeros((len(histories), length), np.int32)
    for row, history in enumerate(histories):
        items[row, : len(history)] = history
    ids = np.arange(first_id, first_id + len(histories), dtype=np.int32)
    return Sessions(items, items > 0, np.ones(len(histories), np.int32), ids)


def one(history, candidates, **options):
    ranked = rank_by_titles(0, sessions(history), np.array([candidates]), TITLES, accuracy=1.0, **options)
    return ranked.items[0][ranked.mask[0]].tolist()


@pytest.fixture(scope="module")
def dataset():
    return synthetic(400, 1000, seed=2)


@pytest.fixture(scope="module")
def candidates(dataset):
    rng = np.random.default_rng(0)
    return np.stack([1 + rng.permutation(400)[:50] for _ in range(len(dataset.train))]).astype(np.int32)


def by_hand(history, candidates, titles):
    """The documented order, one candidate at a time."""
    seen = [parse_title(titles[item]) for item in history]

    def key(item):
        franchise, number, genre = parse_title(titles[item])
        follows = [at for at, other in enumerate(seen) if other[:2] == (franchise, number - 1)]
        related = [at for at, other in enumerate(seen) if other[0] == franchise]
        share = np.mean([other[2] == genre for other in seen])
        return -max(follows, default=-1), -max(related, default=-1), -share

    return sorted(candidates, key=key)


@pytest.mark.parametrize(
    ("title", "parts"),
    [
        ("Iron Harbour 3: Racing", ("Iron Harbour", 3, "Racing")),
        ("Iron Harbour: Racing", ("Iron Harbour", 1, "Racing")),
        ("Area 51: Shooter", ("Area", 51, "Shooter")),
        ("2: Racing", ("2", 1, "Racing")),
        ("Toy Story 2", ("Toy Story 2", 1, "")),
        ("", ("", 1, "")),
    ],
)
def test_titles_are_read(title, parts):
    assert parse_title(title) == parts


def test_next_sequel_then_franchise_then_genre():
    assert one([4, 1], [8, 7, 2, 3, 5]) == [2, 5, 3, 7, 8]


def test_the_franchise_seen_last_comes_first():
    assert one([1, 4], [2, 5]) == [5, 2]
    assert one([4, 1], [5, 2]) == [2, 5]
    assert one([3, 5], [1, 4]) == [4, 1]


def test_the_genre_of_most_of_the_session_comes_first():
    assert one([4, 1, 2], [8, 5, 6]) == [5, 6, 8]
    assert one([8, 1, 3], [4, 8, 6]) == [8, 6, 4]
    assert one([5, 4, 1], [6, 8], num_ranked=1) == [6]


def test_ties_keep_the_order_of_the_candidates():
    assert one([1], [7, 6, 8, 5, 4]) == [7, 6, 8, 5, 4]
    assert one([1], [6, 7, 4, 5, 8]) == [6, 7, 4, 5, 8]


def test_equal_titles_are_one_franchise_but_empty_ones_are_not():
    assert one([9], [8, 10]) == [10, 8]
    assert one([11], [8, 12]) == [8, 12]


def test_faithful_answers_equal_the_documented_order(dataset, candidates):
    ranked = rank_by_titles(0, dataset.train, candidates, dataset.titles, num_ranked=50, accuracy=1.0)
    for row in range(len(dataset.train)):
        history = dataset.train.items[row][dataset.train.mask[row]].tolist()
        assert ranked.items[row].tolist() == by_hand(history, candidates[row].tolist(), dataset.titles)
    np.testing.assert_array_equal(ranked.session_id, dataset.train.session_id)
    short = rank_by_titles(0, dataset.train, candidates, dataset.titles, accuracy=1.0)
    np.testing.assert_array_equal(short.items, ranked.items[:, :25])


def test_accuracy_is_the_share_of_faithful_answers(dataset, candidates):
    def lists(accuracy):
        return rank_by_titles(3, dataset.train, candidates, dataset.titles, accuracy=accuracy).items

    faithful, none = lists(1.0), lists(0.0)
    assert not (none == faithful).all(axis=1).any()
    for accuracy in (0.3, 0.8):
        mixed = lists(accuracy)
        kept = (mixed == faithful).all(axis=1)
        np.testing.assert_array_equal(mixed[~kept], none[~kept])
        assert abs(kept.mean() - accuracy) < 4 * np.sqrt(accuracy * (1 - accuracy) / len(kept))


def test_unfaithful_answers_are_the_candidates_in_uniform_order(dataset, candidates):
    ranked = rank_by_titles(0, dataset.train, candidates, dataset.titles, num_ranked=50, accuracy=0.0).items
    np.testing.assert_array_equal(np.sort(ranked, axis=1), np.sort(candidates, axis=1))
    first_place = (ranked == candidates[:, :1]).argmax(axis=1)
    assert abs(first_place.mean() - 24.5) < 4 * np.sqrt((50**2 - 1) / 12 / len(first_place))


def test_targets_are_never_read(dataset, candidates):
    other = dataset.train.replace(target=np.roll(dataset.train.target, 1))
    first = rank_by_titles(0, dataset.train, candidates, dataset.titles)
    second = rank_by_titles(0, other, candidates, dataset.titles)
    np.testing.assert_array_equal(first.items, second.items)


def test_an_answer_depends_on_the_seed_and_its_own_session_alone(dataset, candidates):
    everything = rank_by_titles(5, dataset.train, candidates, dataset.titles, accuracy=0.5)
    rows = np.array([40, 3, 17])
    train = dataset.train
    train = Sessions(train.items[rows], train.mask[rows], train.target[rows], train.session_id[rows])
    some = rank_by_titles(5, train, candidates[rows], dataset.titles, accuracy=0.5)
    np.testing.assert_array_equal(some.items, everything.items[rows])
    again = rank_by_titles(6, dataset.train, candidates, dataset.titles, accuracy=0.5)
    assert (again.items != everything.items).any(axis=1).mean() > 0.5


def test_what_the_mask_hides_is_not_read():
    hidden = sessions([1, 5, 8]).replace(mask=np.array([[True, False, False, False, False, False]]))
    ranked = rank_by_titles(0, hidden, np.array([[4, 8, 7, 2]]), TITLES, accuracy=1.0)
    assert ranked.items[0, :4].tolist() == [2, 7, 4, 8]


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_padding_is_skipped_wherever_it_stands(accuracy):
    ranked = rank_by_titles(
        0, sessions([1], [4]), np.array([[0, 8, -1, 2], [0, 0, 0, 0]]), TITLES, num_ranked=5, accuracy=accuracy
    )
    assert sorted(ranked.items[0, :2].tolist()) == [2, 8]
    assert ranked.items[0, 2:].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(ranked.mask, [[True, True, False, False, False], [False] * 5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"num_ranked": 0}, "num_ranked is 0; expected at least 1"),
        ({"accuracy": 1.5}, "accuracy is 1.5; expected from 0 to 1"),
        ({"accuracy": float("nan")}, "accuracy is nan; expected from 0 to 1"),
        ({"candidates": np.array([[1], [2]])}, "candidates have 2 rows; expected 1, one for each session"),
        ({"candidates": np.array([[13, 2]])}, "candidates span 2..13; expected -1..12"),
        ({"candidates": np.array([[-2, 2]])}, "candidates span -2..2; expected -1..12"),
        ({"candidates": np.array([[2, 5, 2]])}, r"candidates\[0\] has item 2 twice; expected distinct candidates"),
        ({"sessions": sessions([77])}, "session items span 0..77; expected 0..12"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"seed": 0, "sessions": sessions([1]), "candidates": np.array([[2, 3]]), "titles": TITLES} | change
    with pytest.raises(ValueError, match=f"^{message}$"):
        rank_by_titles(**arguments)
