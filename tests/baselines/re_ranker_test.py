"""The re-ranker: its features by counting again, without the session itself; planted weights; and where others rank."""

import functools

import numpy as np
import pytest
from scipy.sparse import csr_array

from alkd_jax import baselines
from alkd_jax.baselines import Histories, pair_features, re_ranker
from alkd_jax.data.sessions import pack, take_sequences
from alkd_jax.evaluation.conditional_logit import Choices
from alkd_jax.types import Sessions

NUM_ITEMS = 9


def small(seed):
    """Sessions of few items, so that they repeat, and the history of each: what precedes its last item."""
    rng = np.random.default_rng(seed)
    # Item 9 is in no session.
    rows = [rng.integers(1, NUM_ITEMS, length).tolist() for length in rng.integers(2, 8, 25)]
    cosines = np.triu(
        rng.random((NUM_ITEMS + 1, NUM_ITEMS + 1)) * (rng.random((NUM_ITEMS + 1, NUM_ITEMS + 1)) < 0.5), 1
    )
    cosines[0] = 0
    return rows, Histories.from_rows([row[:-1] for row in rows]), {"words": csr_array(cosines + cosines.T)}


def by_hand(rows, history, cosines):
    """The scores of all items by loops over positions of sessions."""
    size = NUM_ITEMS + 1
    popularity = np.bincount([item for row in rows for item in row], minlength=size)
    pairs = {decay: np.zeros((size, size)) for decay in (0.5, 0.9)}
    adjacent, both = np.zeros((size, size)), np.zeros((size, size))
    for row in rows:
        for first, item in enumerate(row):
            for second in range(first + 1, len(row)):
                for decay, matrix in pairs.items():
                    matrix[item, row[second]] += decay ** (second - first - 1)
            if first + 1 < len(row):
                adjacent[item, row[first + 1]] += 1
        both[np.ix_(sorted(set(row)), sorted(set(row)))] += 1

    def weights(recency):
        total = np.zeros(size)
        for steps, item in enumerate(reversed(history)):
            total[item] += recency**steps
        return total

    last = np.zeros(size)
    last[history[-1]] = 1
    follows, share = pairs[0.9], weights(0.65) / (1 + popularity)
    neighbors = np.zeros(size)
    for row in rows:
        similar = sum(weights(0.65)[item] for item in set(row)) ** 2 / len(set(row))
        neighbors[sorted(set(row))] += similar
    found = {f"followers {d} {r}": weights(r) / (1 + popularity) @ pairs[d] for d in pairs for r in (0.35, 0.65, 0.9)}
    found |= {f"preceders {r}": weights(r) / (1 + popularity) @ follows.T for r in (0.35, 0.65, 0.9)}
    near = weights(0.65) @ cosines**2
    return found | {
        "number of followers": weights(0.65) @ follows,
        "followers of last": last / (1 + popularity) @ follows,
        "adjacent": share @ adjacent,
        "adjacent of last": last / (1 + popularity) @ adjacent,
        "adjacent before last": last / (1 + popularity) @ adjacent.T,
        "co-occurrence": share @ both,
        "co-occurrence of last": last / (1 + popularity) @ both,
        "neighbor sessions": neighbors,
        "two steps": share @ follows / (1 + popularity) @ follows,
        "words": near,
        "words long": weights(0.9) @ cosines**2,
        "words of last": last @ cosines**2,
        "words nearest": (cosines**2)[history].max(0),
        "words of followers": share @ follows @ cosines**2,
        "followers of words": near / (1 + popularity) @ follows,
    }


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_other_sessions_counted_by_loops(seed):
    rows, histories, titles = small(seed)
    features = pair_features(pack(rows), NUM_ITEMS, titles)
    sessions = np.arange(len(rows))
    # The last row leaves nothing out.
    sessions[-1] = -1
    found = {name: scores.toarray() for name, scores in features.scores(histories, sessions).items()}
    for session, row in enumerate(rows):
        others = rows if sessions[session] < 0 else rows[:session] + rows[session + 1 :]
        expected = by_hand(others, row[:-1], titles["words"].toarray())
        assert set(found) == set(expected)
        for name, scores in expected.items():
            np.testing.assert_allclose(found[name][session], scores, atol=1e-9, err_msg=name)


def test_a_session_is_described_as_if_it_had_not_been_counted():
    rows, histories, titles = small(3)
    everything = pair_features(pack(rows), NUM_ITEMS, titles)
    items = np.tile(np.arange(1, NUM_ITEMS + 1), (len(rows), 1))
    sessions = np.arange(len(rows))
    found = everything.describe(everything.scores(histories, sessions), items, sessions)
    for session in sessions[:6]:
        others = take_sequences(pack(rows), np.delete(sessions, session))
        without = pair_features(others, NUM_ITEMS, titles)
        one = Histories(histories.items[[session]], histories.mask[[session]])
        expected = without.describe(without.scores(one), items[[session]])
        np.testing.assert_allclose(found[[session]], expected, atol=1e-7)


def test_an_item_without_occurrences_has_no_feature_of_its_own():
    rows, histories, _ = small(0)
    once = pair_features(pack([*rows, [8, 7], [9]]), NUM_ITEMS)
    never = pair_features(pack([*rows, [8, 7]]), NUM_ITEMS)
    items = np.full((len(rows), 1), 9)
    np.testing.assert_array_equal(
        once.describe(once.scores(histories), items), never.describe(never.scores(histories), items)
    )


def test_planted_weights_are_found():
    rng = np.random.default_rng(0)
    features, planted = 3 + 2 * rng.normal(size=(3000, 8, 3)), np.array([1.0, -0.5, 0.0])
    chosen = (features @ planted + rng.gumbel(size=features.shape[:2])).argmax(1)
    ranker = re_ranker.fit_re_ranker(Choices(features, np.ones(features.shape[:2], bool), chosen), ridge=0.0)
    np.testing.assert_allclose(ranker.coefficients / ranker.deviation, planted, atol=0.06)
    candidates = re_ranker.Candidates(np.tile(np.arange(1, 9), (2, 1)), features[:2])
    np.testing.assert_array_equal(ranker.scores(candidates).argmax(1), (features[:2] @ planted).argmax(1))


def test_a_constant_feature_changes_nothing():
    rng = np.random.default_rng(0)
    features, mask = rng.normal(size=(50, 4, 2)), np.ones((50, 4), bool)
    features[..., 1] = 7
    ranker = re_ranker.fit_re_ranker(Choices(features, mask, rng.integers(0, 4, 50)))
    assert np.isfinite(ranker.scores(re_ranker.Candidates(np.full((50, 4), 1), 1e6 * features))).all()


def test_items_that_are_no_candidates_rank_behind_by_popularity():
    rest = np.array([0.0, 0.1, 0.3, 0.2, 0.5])
    candidates = re_ranker.Candidates(np.array([[3, 1, 0], [2, 0, 0]]), np.array([[[9.0], [-9], [0]], [[5], [0], [0]]]))
    ranker = re_ranker.ReRanker(np.ones(1), np.zeros(1), np.ones(1))
    scores = re_ranker.full_scores(candidates, ranker, rest)
    assert np.argsort(-scores[:, 1:], axis=1).tolist() == [[2, 0, 3, 1], [1, 3, 2, 0]]


def test_a_fitted_re_ranker_ranks_every_target():
    rows, histories, titles = small(1)
    features = pair_features(pack(rows), NUM_ITEMS, titles)
    sessions, target = np.arange(len(rows)), np.array([row[-1] for row in rows])
    choices = re_ranker.training_choices(features, histories, target, sessions, places=1)
    ranker = re_ranker.fit_re_ranker(choices)
    find = functools.partial(re_ranker.find_candidates, features, places=1)
    scorer = re_ranker.re_ranker_scorer(features, ranker, find)
    held_out = Sessions(histories.items, histories.mask, target, sessions)
    places = baselines.target_places(scorer, features.counts, held_out, ties_broken=True)
    listed = re_ranker.find_candidates(features, histories, places=1)
    is_candidate = (listed.items == target[:, None]).any(1)
    assert is_candidate.any()
    assert not is_candidate.all()
    for row in np.flatnonzero(~is_candidate):
        ahead = np.setdiff1d(listed.items[row][listed.mask[row]], histories.items[row])
        assert places.better[row] >= len(ahead)


def test_bad_arguments_are_refused():
    rows, histories, _ = small(0)
    features = pair_features(pack(rows), NUM_ITEMS)
    with pytest.raises(ValueError, match="shape of words is"):
        pair_features(pack(rows), NUM_ITEMS, {"words": csr_array((3, 3))})
    with pytest.raises(ValueError, match="places is 0"):
        re_ranker.find_candidates(features, histories, places=0)
    with pytest.raises(ValueError, match="sessions"):
        features.scores(histories, np.full(len(rows), len(rows)))
    with pytest.raises(ValueError, match="none of the 25 sessions has its next item"):
        re_ranker.training_choices(features, histories, np.full(25, 9), np.arange(25))
