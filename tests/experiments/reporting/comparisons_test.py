"""Which methods are tested against each other, what is stored of the tests, and what the tables show."""

import json

import numpy as np
import pytest

from experiments.reporting import comparisons

METHODS = ["Student", "Teacher", "Random", "ALKDRec", "Popularity"]


@pytest.fixture(scope="module")
def ranks():
    rng = np.random.default_rng(0)
    worst = {"Student": 60, "Teacher": 30, "Random": 60, "ALKDRec": 30}
    return {name: rng.integers(1, high, (4, 300)) for name, high in worst.items()} | {
        "Popularity": rng.integers(1, 200, (1, 300))
    }


@pytest.fixture(scope="module")
def tests(ranks):
    return comparisons.compare_all(ranks, seed=0, sign_patterns=2_000)


def test_every_pair_is_tested_once():
    pairs = comparisons.method_pairs(METHODS)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert {method for method, against in pairs if against == "Student"} == set(METHODS) - {"Student"}
    assert {frozenset(pair) for pair in pairs if "Random" in pair} == {
        frozenset((method, "Random")) for method in METHODS if method != "Random"
    }
    assert {frozenset(pair) for pair in pairs if "ALKDRec" in pair} == {
        frozenset((method, "ALKDRec")) for method in METHODS if method != "ALKDRec"
    }
    assert comparisons.method_pairs(["Markov", "Popularity"]) == []


def test_tests_are_json_without_nan(tests):
    assert json.loads(json.dumps(tests, allow_nan=False)) == tests
    assert [test["metric"] for test in tests] == ["recall@10", "ndcg@10"] * len(comparisons.method_pairs(METHODS))


def test_a_large_test_split_is_compared_like_a_small_one():
    rng = np.random.default_rng(0)
    ranks = {name: rng.integers(1, high, (2, 3_000)) for name, high in (("Student", 14), ("ALKDRec", 11))}
    (recall, _) = comparisons.compare_all(ranks, seed=0, sign_patterns=99)
    assert (recall["num_sessions"], recall["p_randomization"]) == (3_000, pytest.approx(0.02))


def test_a_training_free_method_is_compared_over_sessions_only(tests):
    for test in tests:
        alone = "Popularity" in (test["method"], test["against"])
        assert (test["p_seeds"] is None) == (test["p_seeds_holm"] is None) == alone
        assert test["num_seeds"] == (1 if alone else 4)
        assert test["p_randomization_holm"] is not None


def test_the_correction_covers_all_tests(tests):
    least = min(tests, key=lambda test: test["p_randomization"])
    assert least["p_randomization_holm"] == pytest.approx(len(tests) * least["p_randomization"])
    over_seeds = [test for test in tests if test["p_seeds"] is not None]
    least = min(over_seeds, key=lambda test: test["p_seeds"])
    assert least["p_seeds_holm"] == pytest.approx(len(over_seeds) * least["p_seeds"])


def test_a_test_does_not_depend_on_the_others(ranks, tests):
    fewer = comparisons.compare_all({name: ranks[name] for name in ("Student", "ALKDRec")}, seed=0, sign_patterns=2_000)
    same = next(test for test in tests if (test["method"], test["against"]) == ("ALKDRec", "Student"))
    assert {name: value for name, value in fewer[0].items() if "holm" not in name} == {
        name: value for name, value in same.items() if "holm" not in name
    }


def test_only_significant_differences_are_marked(tests):
    by_pair = {(test["method"], test["against"]): test for test in tests if test["metric"] == "recall@10"}
    assert comparisons.format_difference(by_pair["ALKDRec", "Student"]).endswith("*†")
    assert "*" not in comparisons.format_difference(by_pair["Random", "Student"])
    assert comparisons.format_difference(by_pair["Popularity", "Student"]).strip().endswith("*")
    assert comparisons.format_difference(None) == ""


def test_rows_show_each_difference_in_its_column(tests):
    headings, rows = comparisons.difference_rows(tests, METHODS)
    assert all(len(row) == 1 + len(headings) for row in rows)
    cells = {(row[0], heading): cell for row in rows for heading, cell in zip(headings, row[1:], strict=True)}
    of = {(t["method"], t["against"], t["metric"]): t["difference"] for t in tests}
    assert cells["Teacher", "ndcg@10 − Student"].startswith(f"{of['Teacher', 'Student', 'ndcg@10']:+.4f}")
    own = of["ALKDRec", "Popularity", "recall@10"]
    assert cells["Popularity", "ALKDRec − method, recall@10"].startswith(f"{own:+.4f}")
    assert cells["Student", "recall@10 − Student"] == cells["ALKDRec", "ALKDRec − method, ndcg@10"] == ""
    assert len(comparisons.full_rows(tests)) == len(tests)
