"""Metrics of lists by hand and against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.evaluation import beyond_accuracy, metrics

LISTS = np.array([[1, 2, 3], [1, 4, 0], [2, 1, -1]])
COUNTS = np.array([99, 8, 4, 4, 0, 0])
"""Row 0 is the padding and never counts."""


def test_exposure_by_hand():
    exposure = beyond_accuracy.count_exposure(LISTS, 5, (1, 2, 9))
    assert exposure.tolist() == [[0, 2, 1, 0, 0, 0], [0, 3, 2, 0, 1, 0], [0, 3, 2, 1, 1, 0]]


def test_metrics_by_hand():
    exposure = dict(zip((1, 9), beyond_accuracy.count_exposure(LISTS, 5, (1, 9)), strict=True))
    values = beyond_accuracy.from_exposure(exposure, COUNTS)
    assert values["coverage@1"] == pytest.approx(2 / 5)
    assert values["coverage@9"] == pytest.approx(4 / 5)
    # Sorted exposures 0, 1, 1, 2, 3 with weights −4, −2, 0, 2, 4.
    assert values["gini@9"] == pytest.approx((-2 * 1 + 2 * 2 + 4 * 3) / (5 * 7))
    assert values["popularity@1"] == pytest.approx((8 + 8 + 4) / 3)
    # Of 16 interactions; an item without any counts as one with a single one.
    assert values["novelty@1"] == pytest.approx((1 + 1 + 2) / 3)
    assert values["novelty@9"] == pytest.approx((3 * 1 + 2 * 2 + 2 + 4) / 7)
    assert beyond_accuracy.from_exposure(exposure).keys() == {"coverage@1", "gini@1", "coverage@9", "gini@9"}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12))
def test_gini_is_the_mean_difference_of_two_items(exposure):
    exposure = np.array([0, *exposure])
    values = exposure[1:]
    total = 2 * values.mean() * values.size**2
    expected = np.abs(values[:, None] - values[None]).sum() / total if total else 0.0
    assert beyond_accuracy.gini(exposure) == pytest.approx(expected)


def test_nothing_listed_covers_nothing_and_has_no_popularity():
    values = beyond_accuracy.from_exposure({5: np.zeros(6, int)}, COUNTS)
    assert (values["coverage@5"], values["gini@5"]) == (0.0, 0.0)
    assert np.isnan([values["popularity@5"], values["novelty@5"]]).all()


def test_stratified_recall_weighs_hits_by_rarity():
    ranks, target = np.array([1, 30, 2]), np.array([1, 2, 4])
    assert beyond_accuracy.stratified_recall(ranks, target, COUNTS, 10, exponent=1.0) == pytest.approx(
        (1 / 8 + 1) / (1 / 8 + 1 / 4 + 1)
    )
    plain = beyond_accuracy.stratified_recall(ranks, target, COUNTS, 10, exponent=0.0)
    assert plain == pytest.approx(metrics.from_ranks(ranks)["recall@10"])


@pytest.mark.usefixtures("unchecked_types")
def test_bad_input_is_refused():
    exposure = np.ones(6, int)
    with pytest.raises(ValueError, match=r"counts has shape \(5,\); expected \(6,\)"):
        beyond_accuracy.mean_popularity(exposure, COUNTS[:5])
    with pytest.raises(ValueError, match=r"counts\[1\] is -1"):
        beyond_accuracy.novelty(exposure, COUNTS - 9)
    with pytest.raises(ValueError, match="counts is 0 for every item"):
        beyond_accuracy.novelty(exposure, np.zeros(6))
    with pytest.raises(ValueError, match=r"lists span -1\.\.4; expected -1\.\.3"):
        beyond_accuracy.count_exposure(LISTS, 3, (1,))
    with pytest.raises(ValueError, match="exponent is -1"):
        beyond_accuracy.stratified_recall(np.array([1]), np.array([1]), COUNTS, 5, exponent=-1)
    with pytest.raises(ValueError, match=r"target span 9\.\.9"):
        beyond_accuracy.stratified_recall(np.array([1]), np.array([9]), COUNTS, 5)
    with pytest.raises(ValueError, match=r"shapes \(0,\) and \(0,\)"):
        beyond_accuracy.stratified_recall(np.zeros(0, int), np.zeros(0, int), COUNTS, 5)
