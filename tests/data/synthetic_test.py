"""The built-in synthetic dataset: deterministic, well-formed, and as its titles say."""

import collections
import itertools

import numpy as np
import pytest

from alkd_jax.data.sessions import unpack
from alkd_jax.data.synthetic import GENRES, synthetic
from alkd_jax.llm.teachers.simulated import parse_title


@pytest.fixture(scope="module")
def dataset():
    return synthetic()


@pytest.fixture(scope="module")
def read(dataset):
    """Franchise, number and genre of every item, index 0 the padding."""
    return [parse_title(title) for title in dataset.titles]


def whole(split):
    return [[*items[mask].tolist(), int(target)] for items, mask, target in zip(*leaves(split), strict=True)]


def leaves(split):
    return np.asarray(split.items), np.asarray(split.mask), np.asarray(split.target)


def counts(sessions, num_items):
    return np.bincount(np.concatenate(sessions), minlength=num_items + 1)[1:]


def test_a_seed_determines_the_dataset(dataset):
    assert synthetic().fingerprint == dataset.fingerprint
    assert synthetic(seed=1).fingerprint != dataset.fingerprint


def test_the_dataset_is_the_same_on_every_platform():
    pinned = "985887111aff61bbbfcaae8d500cc891a5ca550e270110e0d9ca522fc0685530"
    assert synthetic(300, 400, seed=7).fingerprint == pinned


def test_three_blocks_of_the_sizes_asked_for(dataset):
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (3000, 1000, 1000)
    assert dataset.num_items == 2000
    assert len(dataset.titles) == len(dataset.item_ids) == 2001
    ids = np.concatenate([split.session_id for split in (dataset.train, dataset.validation, dataset.test)])
    np.testing.assert_array_equal(ids, np.arange(5000))


def test_sessions_have_4_to_18_items_and_none_twice(dataset):
    sessions = unpack(dataset.train_sequences)
    lengths = [len(session) for session in sessions]
    assert set(lengths) == set(range(4, 19))
    assert 8 <= np.mean(lengths) <= 9.5
    assert all(len(set(session)) == len(session) for session in sessions)
    assert min(map(min, sessions)) >= 1
    assert max(map(max, sessions)) <= 2000
    for split in (dataset.validation, dataset.test):
        assert all(len(set(session)) == len(session) for session in whole(split))


def test_a_session_may_use_up_nearly_all_items():
    tiny = synthetic(20, 200, seed=3)
    sessions = unpack(tiny.train_sequences)
    assert max(map(len, sessions)) == 18
    assert all(len(set(session)) == len(session) for session in sessions)


def test_titles_read_back(dataset, read):
    assert dataset.titles[0] == ""
    numbers = collections.defaultdict(set)
    genres = collections.defaultdict(set)
    for franchise, number, genre in read[1:]:
        numbers[franchise].add(number)
        genres[franchise].add(genre)
    assert len(numbers) == dataset.report["franchises"]
    assert all(found == set(range(1, max(found) + 1)) for found in numbers.values())
    assert all(len(found) == 1 for found in genres.values())
    assert set.union(*genres.values()) == set(GENRES)
    alone = sum(len(found) == 1 for found in numbers.values()) / len(numbers)
    assert 0.2 < alone < 0.35
    assert 20 < len(dataset.titles) - len(set(dataset.titles)) < 120


def test_ids_say_nothing_of_franchises(read):
    neighbours = np.mean([first[0] == second[0] for first, second in itertools.pairwise(read[1:])])
    assert neighbours < 0.01


def test_a_large_catalogue_has_names_enough():
    large = synthetic(12000, 10)
    franchises = {parse_title(title)[0] for title in large.titles[1:]}
    assert len(franchises) == large.report["franchises"] > 2000


def test_targets_follow_the_titles_of_their_own_session(dataset, read):
    def shares(histories, targets):
        sequel = franchise = genre = 0
        for history, target in zip(histories, targets, strict=True):
            name, number, kind = read[target]
            sequel += any(read[item][:2] == (name, number - 1) for item in history)
            franchise += any(read[item][0] == name for item in history)
            genre += any(read[item][2] == kind for item in history)
        return np.array([sequel, franchise, genre]) / len(targets)

    sessions = whole(dataset.test)
    histories, targets = [session[:-1] for session in sessions], [session[-1] for session in sessions]
    own, others = shares(histories, targets), shares(histories, targets[1:] + targets[:1])
    assert (own > [0.1, 0.2, 0.7]).all()
    assert (others < [0.03, 0.06, 0.35]).all()


def test_popularity_has_a_head_and_a_tail(dataset):
    popularity = np.sort(counts(unpack(dataset.train_sequences), 2000))[::-1]
    assert popularity[:200].sum() > 0.3 * popularity.sum()
    assert (popularity <= 3).sum() > 200


def test_popularity_drifts_with_the_order_of_sessions(dataset):
    sessions = unpack(dataset.train_sequences)
    first, last = counts(sessions[:1500], 2000), counts(sessions[1500:], 2000)
    even, odd = counts(sessions[::2], 2000), counts(sessions[1::2], 2000)
    test = counts(whole(dataset.test), 2000)
    within, between = np.corrcoef(even, odd)[0, 1], np.corrcoef(first, last)[0, 1]
    assert np.corrcoef(first, test)[0, 1] < between < within - 0.05


def test_inputs_are_cut_to_the_most_recent(dataset):
    short = synthetic(max_length=5)
    assert short.train.items.shape == (3000, 5)
    for row, session in enumerate(unpack(dataset.train_sequences)[:50]):
        assert short.train.items[row][short.train.mask[row]].tolist() == session[:-1][-5:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_items": 19}, "num_items is 19; expected at least 20"),
        ({"num_sessions": 4}, "num_sessions is 4; expected at least 5"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"max_length": 0}, "max_length is 0; expected at least 1"),
    ],
)
def test_bad_sizes_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        synthetic(**options)
