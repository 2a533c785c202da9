"""Rules and neighbors against the definitions of session-rec in plain loops."""

import functools

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.baselines import association_rules
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.sessions import unpack
from tests.helpers import session_rec
from tests.helpers.counted_sessions import sequences_of
from tests.helpers.paths import SHARED

RSC15 = SHARED / "public-data" / "rsc15-100k"

NUM_ITEMS = 9
DAY = 86_400_000
WEIGHTINGS = ("same", "div", "linear", "log", "quadratic")


def random_train(seed):
    """Sessions with repeated items, equal items next to each other, equal times, and a length above a history's."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(1, NUM_ITEMS, rng.integers(1, 8)).tolist(), int(rng.integers(6))) for _ in range(30)]


def histories_of(seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, NUM_ITEMS, rng.integers(1, 14)).tolist() for _ in range(12)]


def fitted(name, train, *, timed=True, **options):
    time = [end * DAY for items, end in train for _ in items] if timed else None
    return baselines.fit(name, sequences_of(*(items for items, _ in train), time=time), NUM_ITEMS, **options)


def dense(scores, num_items):
    row = np.zeros(num_items + 1)
    row[list(scores)] = list(scores.values())
    return row


def check(scorer, expected, histories):
    found = scorer(baselines.Histories.from_rows(histories))
    wanted = np.array([dense(expected(history), found.shape[1] - 1) for history in histories])
    np.testing.assert_allclose(*map(by_largest, (found, wanted)), atol=1e-12)


def by_largest(scores):
    largest = np.abs(scores).max(axis=1, keepdims=True)
    return scores / np.where(largest > 0, largest, 1.0)


@pytest.mark.parametrize("pairs_at_a_time", [9, 2_000_000])
@pytest.mark.parametrize("pruning", [0, 1, 3])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_sequential_rules_equal_the_loops(weighting, pruning, pairs_at_a_time, monkeypatch):
    monkeypatch.setattr(association_rules, "_PAIRS_AT_A_TIME", pairs_at_a_time)
    for seed in range(3):
        train = random_train(seed)
        rules = session_rec.sequential_rules(train, steps=3, weighting=weighting, pruning=pruning)
        for last in (0, 2):
            scorer = fitted("sr", train, steps=3, weighting=weighting, pruning=pruning, last_in_session=last)
            scores = functools.partial(session_rec.rule_scores, rules, last_in_session=last, weighting=weighting)
            check(scorer, scores, histories_of(seed))


@pytest.mark.parametrize("pairs_at_a_time", [9, 2_000_000])
@pytest.mark.parametrize("pruning", [0, 1, 3])
def test_association_rules_equal_the_loops(pruning, pairs_at_a_time, monkeypatch):
    monkeypatch.setattr(association_rules, "_PAIRS_AT_A_TIME", pairs_at_a_time)
    for seed in range(3):
        train = random_train(seed)
        rules = session_rec.association_rules(train, pruning=pruning)
        check(
            fitted("ar", train, pruning=pruning), functools.partial(session_rec.rule_scores, rules), histories_of(seed)
        )


def test_rules_of_two_sessions_by_hand():
    train = [([1, 2, 1, 3], 0), ([1, 3], 0)]
    scores = fitted("sr", train, steps=2, weighting="div", pruning=2)(baselines.Histories.from_rows([[2, 1], [2]]))
    # 1 → 2: 1; 1 → 1: 1/2; 1 → 3: 1 + 1; the weakest is pruned. 2 → 1: 1; 2 → 3: 1/2.
    np.testing.assert_array_equal(scores[:, 1:4], [[0, 1, 2], [1, 0, 0.5]])
    pairs = fitted("ar", train, pruning=0)(baselines.Histories.from_rows([[1], [3]]))
    # The two places of item 1 count in both orders.
    np.testing.assert_array_equal(pairs[:, 1:4], [[2, 2, 3], [3, 1, 0]])


@pytest.mark.parametrize(("k", "sample_size"), [(3, 5), (4, 0), (100, 100)])
@pytest.mark.parametrize("seed", range(3))
def test_session_neighbors_equal_the_loops(seed, k, sample_size):
    train, histories = random_train(seed), histories_of(seed)
    some = {"k": k, "sample_size": sample_size}
    check(fitted("sknn", train, **some), functools.partial(session_rec.sknn, train, **some), histories)
    for weighting in WEIGHTINGS:
        # A negative decay, of "linear" beyond ten steps, is part of the definition.
        options = some | {"weighting": weighting, "weighting_score": WEIGHTINGS[seed], "idf_weighting": 5}
        check(fitted("vsknn", train, **options), functools.partial(session_rec.vsknn, train, **options), histories)


@pytest.mark.parametrize(("k", "sample_size"), [(3, 5), (4, 0), (100, 100)])
@pytest.mark.parametrize("seed", range(3))
def test_time_aware_neighbors_equal_the_loops(seed, k, sample_size):
    train, histories = random_train(seed), histories_of(seed)
    some = {"k": k, "sample_size": sample_size}
    scores = functools.partial(session_rec.stan, train, now=9, **some, spw=1.1, snh=2.3, inh=1.9)
    options = some | {"lambda_spw": 1.1, "lambda_snh": 2.3, "lambda_inh": 1.9}
    check(fitted("stan", train, **options), scores, histories)
    more = functools.partial(scores, ipw=0.8, idf_factor=4.0)
    check(fitted("vstan", train, **options, lambda_ipw=0.8, lambda_idf=4.0), more, histories)


def test_sets_of_items_are_compared_by_each_similarity():
    train = [([1, 2, 2, 3, 4], 0)]
    for similarity, expected in (("cosine", 2 / np.sqrt(4 * 3)), ("jaccard", 2 / 5), ("binary", 4 / 7)):
        scores = fitted("sknn", train, similarity=similarity)(baselines.Histories.from_rows([[1, 2, 5]]))
        np.testing.assert_allclose(scores[0, 1:6], [expected] * 4 + [0], rtol=1e-15)


def test_sessions_of_years_ago_keep_their_order():
    train = [([1, 2], 0), ([1, 3], 100)]
    scores = fitted("stan", train, lambda_snh=20)(baselines.Histories.from_rows([[1]], [9999 * DAY]))
    np.testing.assert_allclose(scores[0, 2] / scores[0, 3], np.exp(-5))
    assert scores[0, 3] > 0.1


def test_a_later_row_is_more_recent_where_there_are_no_times():
    train = [([1, 2], 5), ([1, 3], 0), ([1, 4], 3)]
    for name, rest in (("vsknn", {}), ("stan", {"lambda_snh": None})):
        histories = baselines.Histories.from_rows([[1]])
        timed, untimed = (fitted(name, train, timed=t, sample_size=1, **rest)(histories)[0] for t in (True, False))
        assert (np.flatnonzero(timed).tolist(), np.flatnonzero(untimed).tolist()) == ([1, 2], [1, 4])
    with pytest.raises(
        ValueError, match=r"lambda_snh is 5\.0 days, but the training sessions have no times; expected None"
    ):
        fitted("stan", train, timed=False)


def test_popularity_of_the_last_days_and_of_the_session():
    train = [([1, 1, 2], 0), ([2, 3], 8), ([3], 10)]
    histories = baselines.Histories.from_rows([[4, 1, 1], []])
    recent = fitted("recent_popularity", train, days=2)(histories)
    np.testing.assert_array_equal(recent[:, 1:5], [[0, 1, 2, 0]] * 2)
    own = fitted("session_popularity", train)(histories)
    np.testing.assert_allclose(own[:, 1:5], [[2 + 2 / 3, 2 / 3, 2 / 3, 1], [2 / 3, 2 / 3, 2 / 3, 0]])
    with pytest.raises(ValueError, match=r"days is 7\.0, but the training sessions have no times"):
        fitted("recent_popularity", train, timed=False)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sr", {"steps": 0}, "steps is 0"),
        ("sr", {"weighting": "cubic"}, "weighting is 'cubic'; expected 'same' or 'div'"),
        ("sr", {"session_weighting": "cubic"}, "session_weighting is 'cubic'"),
        ("sr", {"pruning": 2.5}, "pruning is 2.5; expected a whole number"),
        ("ar", {"pruning": -1}, "pruning is -1"),
        ("sknn", {"similarity": "vec"}, "similarity is 'vec'; expected 'cosine' or 'jaccard' or 'binary'"),
        ("vsknn", {"k": 0}, "k is 0"),
        ("vsknn", {"sample_size": -1}, "sample_size is -1"),
        ("vsknn", {"weighting_score": "x"}, "weighting_score is 'x'"),
        ("stan", {"lambda_inh": 0}, "lambda_inh is 0; expected a number above 0, or None"),
        ("vstan", {"lambda_idf": "5"}, "lambda_idf is '5'; expected a number or None"),
        ("recent_popularity", {"days": 0}, "days is 0; expected a number above 0"),
    ],
)
def test_options_out_of_range_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        fitted(name, [([1, 2], 0)], **options)


@pytest.mark.slow
@pytest.mark.skipif(not RSC15.is_dir(), reason="../shared/public-data is not there")
def test_scores_at_every_position_of_real_sessions_equal_the_loops():
    """The options of session-rec's own recorded lists; times are rounded to milliseconds."""
    log = alkd.data.load_gru4rec(
        RSC15 / "yoochoose-clicks-100k_train_full.txt", RSC15 / "yoochoose-clicks-100k_test.txt"
    )
    rules = SessionRules(boundary="given", min_length=2, max_length=None, duplicates="keep")
    dataset = alkd.data.prepare(log, rules, "given").dataset()
    sequences, num_items = dataset.train_sequences, dataset.num_items
    held_out = dataset.test_sequences.sequences
    rows, offsets = unpack(sequences), held_out.offsets
    train = [(row, end / DAY) for row, end in zip(rows, sequences.time[sequences.offsets[1:] - 1], strict=True)]
    histories, now = [], []
    for session, start in zip(unpack(held_out)[:40], offsets, strict=False):
        histories += [session[:length] for length in range(1, len(session) + 1)]
        now += (held_out.time[start : start + len(session)] / DAY).tolist()
    vector = {"k": 500, "sample_size": 5000, "weighting": "quadratic", "weighting_score": "div", "idf_weighting": 5}
    some = {"k": 100, "sample_size": 5000}
    options = {"sr": {"steps": 20, "weighting": "quadratic", "pruning": 20}, "ar": {"pruning": 10}}
    options |= {"sknn": some, "vsknn": vector, "stan": some, "vstan": some}
    mined = {"sr": session_rec.sequential_rules(train, **options["sr"])}
    mined["ar"] = session_rec.association_rules(train, **options["ar"])
    stan = functools.partial(session_rec.stan, train, **some, spw=1.02, snh=5, inh=2.05)
    loops = {
        "sr": lambda history, _: session_rec.rule_scores(mined["sr"], history),
        "ar": lambda history, _: session_rec.rule_scores(mined["ar"], history),
        "sknn": lambda history, _: session_rec.sknn(train, history, **some),
        "vsknn": lambda history, _: session_rec.vsknn(train, history, **vector),
        "stan": lambda history, time: stan(history, time),
        "vstan": lambda history, time: stan(history, time, ipw=1.02, idf_factor=5),
    }
    for name, loop in loops.items():
        found = baselines.fit(name, sequences, num_items, **options[name])(baselines.Histories.from_rows(histories))
        wanted = np.array([dense(loop(*query), num_items) for query in zip(histories, now, strict=True)])
        np.testing.assert_allclose(*map(by_largest, (found, wanted)), atol=1e-10, err_msg=name)
