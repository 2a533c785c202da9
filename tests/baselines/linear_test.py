"""EASE, SLIS, SLIT and SLIST against dense matrices that are made in plain loops."""

import numpy as np
import pytest

from alkd_jax import baselines
from alkd_jax.baselines import partial_sessions
from alkd_jax.ops import symmetric_inverse
from tests.helpers.counted_sessions import sequences_of

NUM_ITEMS = 9
DAY = 86_400_000
ROWS = [[1, 2, 3], [2, 2, 4, 1], [5], [6, 3, 6, 6, 2], [1, 3], [4, 4], [2, 5, 1, 6, 3, 4], [7, 2]]
ENDS = [0, 1, 1, 3, 4, 4, 7, 7]
HISTORIES = [[1], [2, 2], [6, 3, 8, 6], [9], [4, 1, 2, 3, 5, 1]]


def train():
    return sequences_of(*ROWS, time=[end * DAY for row, end in zip(ROWS, ENDS, strict=True) for _ in row])


def problem(*, alpha, days=None, decay=None, norm="none"):
    """Rows of inputs, targets and weights; columns 0 (padding), 8 and 9 have no entry."""
    inputs, targets, weights = [], [], []
    for row, end in zip(ROWS, ENDS, strict=True):
        weight = np.exp(-(max(ENDS) - end) / days) if days else 1.0
        bag = np.zeros(NUM_ITEMS + 1)
        bag[row] = 1
        inputs.append(bag)
        targets.append(bag)
        weights.append(alpha * weight)
        for cut in range(1, len(row)):
            past, future = np.zeros(NUM_ITEMS + 1), np.zeros(NUM_ITEMS + 1)
            for place, item in enumerate(row):
                steps = cut - 1 - place if place < cut else place - cut
                (past if place < cut else future)[item] += np.exp(-steps / decay) if decay else 1.0
            inputs.append(past)
            targets.append(future)
            weights.append((1 - alpha) * weight)
    inputs = np.array(inputs)
    if norm != "none":
        inputs /= np.linalg.norm(inputs, ord=int(norm[1]), axis=1, keepdims=True)
    return inputs, np.array(targets), np.diag(weights)


def queries(predict_decay, *, is_set=False):
    matrix = np.zeros((len(HISTORIES), NUM_ITEMS + 1))
    for row, history in zip(matrix, HISTORIES, strict=True):
        for steps, item in enumerate(reversed(history)):
            row[item] = 1.0 if is_set else row[item] + (np.exp(-steps / predict_decay) if predict_decay else 1.0)
    matrix[:, [8, 9]] = 0.0
    return matrix


def scores(name, **options):
    return baselines.fit(name, train(), NUM_ITEMS, **options)(baselines.Histories.from_rows(HISTORIES))


def ridge(inputs, targets, weights, reg):
    """The minimum by the normal equations, solved as a least squares problem of stacked rows."""
    root = np.sqrt(weights)
    stacked = np.vstack([root @ inputs, np.sqrt(reg) * np.eye(NUM_ITEMS + 1)])
    wanted = np.vstack([root @ targets, np.zeros((NUM_ITEMS + 1, NUM_ITEMS + 1))])
    return np.linalg.lstsq(stacked, wanted, rcond=None)[0]


@pytest.mark.parametrize("reg", [0.1, 5, 500.0])
def test_ease_is_the_least_squares_solution_with_a_diagonal_of_zero(reg):
    """Each column is a ridge regression on the other items, which is the constraint itself."""
    inputs, _, weights = problem(alpha=1.0)
    matrix = np.zeros((NUM_ITEMS + 1, NUM_ITEMS + 1))
    for item in range(NUM_ITEMS + 1):
        others = inputs.copy()
        others[:, item] = 0.0
        matrix[:, item] = ridge(others, inputs, weights, reg)[:, item]
    np.testing.assert_allclose(scores("ease", reg=reg), queries(None, is_set=True) @ matrix, atol=1e-11)


OPTIONS = [
    {},
    {"session_days": 2.0, "train_decay": 0.7, "predict_decay": 3.0, "reg": 1.5},
    {"train_decay": None, "predict_decay": None, "normalize": "l1"},
    {"normalize": "l2", "session_days": 1},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("name", "alpha"), [("slist", 0.3), ("slit", 0.0), ("slis", 1.0), ("slist", 1.0)])
def test_weighted_models_are_the_dense_solution(name, alpha, options):
    if name == "slis":
        options = {key: value for key, value in options.items() if key != "train_decay"}
    decay, predict = options.get("train_decay", 1.0), options.get("predict_decay", 1.0)
    rows = problem(alpha=alpha, days=options.get("session_days"), decay=decay, norm=options.get("normalize", "none"))
    matrix = ridge(*rows, options.get("reg", 10.0))
    more = {"alpha": alpha} if name == "slist" else {}
    np.testing.assert_allclose(scores(name, **more, **options), queries(predict) @ matrix, atol=1e-11)


def test_a_bounded_diagonal_is_that_of_the_constrained_minimum():
    inputs, _, weights = problem(alpha=1.0)
    bound, reg, size = 0.35, 2.0, NUM_ITEMS + 1
    found = baselines.fit("slis", train(), NUM_ITEMS, reg=reg, max_diagonal=bound, predict_decay=None)
    rows = found(baselines.Histories.from_rows([[item] for item in range(1, size)]))
    free = ridge(inputs, inputs, weights, reg)
    assert (free.diagonal() > bound).any()
    assert (free.diagonal()[1:8] < bound).any()
    for item in range(1, 8):
        others, wanted = inputs.copy(), inputs[:, item].copy()
        if free[item, item] <= bound:
            expected = free[:, item]
        else:
            others[:, item] = 0.0
            wanted -= bound * inputs[:, item]
            expected = ridge(others, np.repeat(wanted[:, None], size, axis=1), weights, reg)[:, item]
            expected[item] = bound
        np.testing.assert_allclose(rows[:, item], expected[1:], atol=1e-11)
    zero = baselines.fit("slis", train(), NUM_ITEMS, reg=reg, max_diagonal=0, predict_decay=None)
    ease = baselines.fit("ease", train(), NUM_ITEMS, reg=reg)
    distinct = baselines.Histories.from_rows([[1, 2], [6]])
    np.testing.assert_allclose(zero(distinct), ease(distinct), atol=1e-11)


def test_blocks_of_sessions_and_of_items_change_nothing(monkeypatch):
    options = {"session_days": 2.0, "train_decay": 0.7}
    whole = [scores("slist", **options), scores("ease")]
    monkeypatch.setattr(partial_sessions, "_ENTRIES_AT_A_TIME", 7)
    monkeypatch.setattr(symmetric_inverse, "_ROWS_OF_BLOCK", 3)
    np.testing.assert_allclose([scores("slist", **options), scores("ease")], whole, atol=1e-14)


@pytest.mark.parametrize("name", ["ease", "slis", "slist"])
def test_a_model_whose_matrix_is_half_stored_has_the_same_scores(name, monkeypatch):
    """All of the matrix of 7 items takes 392 bytes, in blocks of two rows 248."""
    monkeypatch.setattr(symmetric_inverse, "_ROWS_OF_BLOCK", 2)
    half = baselines.fit(name, train(), NUM_ITEMS, max_gigabytes=3e-7)
    assert isinstance(half.inverse, symmetric_inverse.Packed)
    np.testing.assert_allclose(half(baselines.Histories.from_rows(HISTORIES)), scores(name), atol=1e-13)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ease", {"reg": 0}, "reg is 0; expected a finite number above 0"),
        ("ease", {"reg": None}, "reg is None; expected a number"),
        ("ease", {"reg": "x"}, "reg is 'x'; expected a number"),
        ("ease", {"max_gigabytes": 1e-7}, "max_gigabytes is 1e-07; expected at least 3.92e-07, the matrix of 7 items"),
        ("slis", {"max_diagonal": 1.5}, "max_diagonal is 1.5; expected from 0 to 1"),
        ("slis", {"max_diagonal": 0.5, "normalize": "l1"}, "max_diagonal is 0.5 and normalize is 'l1'"),
        ("slit", {"train_decay": -1}, "train_decay is -1; expected a number above 0, or None"),
        ("slist", {"alpha": 2}, "alpha is 2; expected from 0 to 1"),
        ("slist", {"normalize": "max"}, "normalize is 'max'; expected"),
    ],
)
def test_options_out_of_range_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        scores(name, **options)


def test_sessions_without_times_have_no_age():
    untimed = sequences_of(*ROWS)
    for name in ("slis", "slit", "slist"):
        with pytest.raises(
            ValueError, match=r"session_days is 3, but the training sessions have no times; expected None"
        ):
            baselines.fit(name, untimed, NUM_ITEMS, session_days=3)
