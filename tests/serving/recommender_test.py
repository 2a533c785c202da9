"""The NumPy recommender against brute force: what is read, what is left out, and in which order it answers."""

import dataclasses
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from alkd_jax.serving.recommender import Recommender, SessionItems
from tests.helpers import paths

LENGTH = 4


def fpmc(num_items=30, dim=3, *, seed=0, integers=False):
    """A student whose scores are whole numbers, so that they are exact and often tie, or are not."""
    rng = np.random.default_rng(seed)
    shape = (num_items + 1, dim)
    tables = [rng.integers(-2, 3, shape) if integers else rng.normal(size=shape) for _ in range(2)]
    names = ("input_embedding", "output_embedding")
    arrays = {name: table.astype(np.float32) for name, table in zip(names, tables, strict=True)}
    ids = ("", *(f"id-{item}" for item in range(1, num_items + 1)))
    return Recommender("fpmc", {}, arrays, ids, tuple(name.upper() for name in ids), LENGTH)


def names(items):
    return [f"id-{item}" for item in items]


def expected(student, items, k):
    """By the definition: mean of the last L, scores, a stable sort of everything."""
    x, y = (student.arrays[f"{name}_embedding"] for name in ("input", "output"))
    scores = y @ x[items[-LENGTH:]].mean(0)
    order = [item for item in np.argsort(-scores, kind="stable") if item and item not in items]
    return order[:k], scores


@pytest.mark.parametrize("items", [[3], [3, 9], [5, 1, 2, 8], [9, 4, 7, 7, 2, 11, 30]])
def test_a_list_is_what_the_definition_says(items):
    student = fpmc()
    found = student.recommend(names(items), k=7)
    order, scores = expected(student, items, 7)
    assert [each.item_id for each in found] == names(order)
    assert [each.title for each in found] == [f"ID-{item}" for item in order]
    np.testing.assert_allclose([each.score for each in found], scores[order], rtol=1e-5)


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 40), num=st.integers(1, 12))
def test_ties_go_to_the_lower_item_and_the_session_is_left_out(seed, k, num):
    student = fpmc(seed=seed, integers=True)
    # One item or four: their means are exact, so equal scores are equal.
    items = np.random.default_rng(seed).choice(30, 1 if num < 4 else num, replace=False) + 1
    found = student.recommend(names(items.tolist()), k=k)
    assert [each.item_id for each in found] == names(expected(student, items.tolist(), k)[0])


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 12))
def test_a_list_from_many_blocks_of_items_is_what_the_definition_says(seed, k):
    student = fpmc(num_items=700, seed=seed, integers=True)
    item = seed % 700 + 1
    found = student.recommend([f"id-{item}"], k=k)
    assert [each.item_id for each in found] == names(expected(student, [item], k)[0])


def test_items_older_than_what_is_read_are_left_out_too():
    student = fpmc()
    recent = [2, 3, 4, 5]
    alone = [each.item_id for each in student.recommend(names(recent), k=30)]
    older = [each.item_id for each in student.recommend(names([int(alone[0][3:]), *recent]), k=30)]
    assert older == alone[1:]


def test_unknown_ids_are_skipped_and_counted():
    student = fpmc()
    session = ["x", "id-3", "", "id-9", "ID-4", "id-31"]
    assert student.lookup(session) == SessionItems((3, 9), 4)
    assert student.recommend(session) == student.recommend(["id-3", "id-9"])


def test_a_short_catalogue_gives_a_short_list():
    found = fpmc(num_items=5).recommend(["id-2"], k=100)
    assert sorted(each.item_id for each in found) == ["id-1", "id-3", "id-4", "id-5"]
    assert fpmc(num_items=2).recommend(["id-1", "id-2"]) == []


@pytest.mark.parametrize(
    ("session", "k", "message"),
    [
        ([], 10, "is 0 of 0"),
        (["nobody", "knows"], 10, "is 0 of 2"),
        ("id-1", 10, "type of session is str"),
        (["id-1"], 0, "k is 0"),
    ],
)
def test_what_cannot_be_answered_says_why(session, k, message):
    with pytest.raises(ValueError, match=message):
        fpmc().recommend(session, k=k)


def test_values_of_another_type_are_refused_in_one_line():
    """In a process without the tests' own type checks."""
    calls = {
        'recommend({"id-1"})': "type of session is set; expected a list of item ids",
        'recommend(["id-1", 2])': "an item id in session is 2; expected strings",
        'recommend(["id-1"], k=2.5)': "k is 2.5; expected a whole number of at least 1",
        'recommend(["id-1"], k=None)': "k is None; expected a whole number of at least 1",
        'recommend(["id-1"], k=np.True_)': "k is np.True_; expected a whole number of at least 1",
        "rank([1.0])": "an item is 1.0; expected integers in 1..2",
        "rank([True])": "an item is True; expected integers in 1..2",
        "rank(np.array([1.5]))": "an item is np.float64(1.5); expected integers in 1..2",
        "rank(np.array([1]), np.int64(5))[0].item_id": "b",
    }
    code = (
        "import numpy as np\n"
        "from alkd_jax.serving.recommender import Recommender\n"
        "arrays = {f'{name}_embedding': np.ones((3, 1), np.float32) for name in ('input', 'output')}\n"
        "student = Recommender('fpmc', {}, arrays, ('', 'id-1', 'b'), ('', '', ''), 4)\n"
    )
    for call in calls:
        code += f"try: print(student.{call})\nexcept ValueError as error: print(error)\n"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=paths.ROOT)
    assert out.stdout.splitlines() == list(calls.values())


@pytest.mark.parametrize("k", [0, -1, True])
def test_a_list_length_that_is_none_is_refused(k):
    with pytest.raises(ValueError, match=f"k is {k}; expected .*at least 1"):
        fpmc().recommend(["id-1"], k=k)


def test_a_list_length_far_over_the_catalogue_costs_nothing():
    whole = fpmc().recommend(["id-1"], k=29)
    for k in (30, 10**8, 2**63, 10**30):
        assert fpmc().recommend(["id-1"], k=k) == whole


def test_negative_numbers_exclude_nothing_in_any_form():
    student = fpmc()
    items = np.array([[3, 9, 0]], np.int32)
    _, ids = student.top_k(items, 30, exclude=np.array([[-1, -30, 0]], np.int32))
    assert sorted(ids[0].tolist()) == list(range(1, 31))
    with pytest.raises(ValueError, match=r"exclude span 31\.\.31; expected 0\.\.30"):
        student.top_k(items, 3, exclude=np.array([[31]], np.int32))
    with pytest.raises(ValueError, match="number of columns of items is 5; expected at most 4"):
        student.top_k(np.ones((1, 5), np.int32), 3, exclude=items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titles": None}, "titles is None; expected a tuple of strings"),
        ({"titles": ("",)}, "number of item_ids is 31, of titles 1"),
        ({"item_ids": ("", *range(30))}, "item_ids is "),
        ({"arrays": {}}, "arrays are \\[\\]; expected"),
        ({"item_ids": ("", "a", "b"), "titles": ("", "a", "b")}, "expected float32 \\(3, 3\\)"),
        ({"length": 0}, "length is 0; expected 1"),
        ({"backbone": "gru"}, "backbone is 'gru'"),
    ],
)
def test_parts_of_different_students_are_refused(change, message):
    """By the check itself, which the tests' own type checks would anticipate."""
    student = dataclasses.replace(fpmc())
    for name, value in change.items():
        object.__setattr__(student, name, value)
    with pytest.raises(ValueError, match=message):
        student.__post_init__()


@pytest.mark.parametrize("items", [[], [0], [31], [-1]])
def test_item_numbers_are_checked(items):
    with pytest.raises(ValueError, match=r"expected .*in 1\.\.30"):
        fpmc().rank(items)


def test_many_sessions_at_once_are_the_same_as_one_by_one():
    student = fpmc(integers=True)
    items = np.array([[1, 2, 3, 4], [7, 0, 0, 0], [9, 9, 0, 0]], np.int32)
    scores, ids = student.top_k(items, 30, exclude=items)
    for row, best, numbers in zip(items, scores, ids, strict=True):
        alone = student.rank([item for item in row.tolist() if item], 30)
        assert [each.item_id for each in alone] == names(numbers[numbers > 0])
        assert [each.score for each in alone] == best[numbers > 0].tolist()
        assert np.isneginf(best[numbers < 0]).all()
        assert (numbers < 0).sum() == len(set(row.tolist()) - {0})


def test_a_score_that_is_no_number_is_never_recommended():
    student = fpmc()
    student.arrays["output_embedding"][7] = np.nan
    for k in (3, 30, 100):
        found = student.recommend(["id-1"], k=k)
        assert len(found) == min(k, 28)
        assert "id-7" not in [each.item_id for each in found]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 40),
    batch_size=st.integers(1, 5),
    seen=st.sampled_from(["exclude", "keep"]),
)
def test_a_batch_is_answered_as_one_session_after_another(seed, k, batch_size, seen):
    student, rng = fpmc(seed=seed, integers=True), np.random.default_rng(seed)
    # One item or four of the most recent ones: their means are exact.
    sessions = [rng.integers(1, 31, size).tolist() for size in (1, 4, 9, 1)]
    found = student.recommend_batch([names(items) for items in sessions], k=k, seen=seen, batch_size=batch_size)
    for items, answer in zip(sessions, found, strict=True):
        if seen == "exclude":
            assert answer == student.recommend(names(items), k=k)
        else:
            x, y = (student.arrays[f"{name}_embedding"] for name in ("input", "output"))
            order = np.argsort(-(y @ x[items[-LENGTH:]].mean(0))[1:], kind="stable")[:k] + 1
            assert [each.item_id for each in answer] == names(order)


def test_a_batch_has_an_empty_list_where_nothing_is_known_and_refuses_other_options():
    student = fpmc()
    found = student.recommend_batch([names([3]), ["?"], [], names([4, 5])], k=2)
    assert [len(answer) for answer in found] == [2, 0, 0, 2]
    assert student.recommend_batch([], k=2) == []
    assert student.recommend_batch([names(range(1, 31))], k=2) == [[]], "every item is excluded"
    with pytest.raises(ValueError, match="seen is 'all'; expected"):
        student.recommend_batch([names([3])], seen="all")
    with pytest.raises(ValueError, match="type of session is str"):
        student.recommend_batch(["id-3"])


def test_sessions_are_encoded_to_the_vectors_whose_products_are_the_scores():
    student = fpmc()
    vectors = student.encode([names([3]), ["?", *names([9, 2, 5, 1, 8])]])
    scores = vectors @ student.item_embeddings.T
    for row, items in enumerate(([3], [9, 2, 5, 1, 8])):
        for each in student.recommend(names(items), k=5):
            assert scores[row, int(each.item_id[3:])] == pytest.approx(each.score, rel=1e-5)
    with pytest.raises(ValueError, match="known ids in session 1 is 0 of 1"):
        student.encode([names([3]), ["?"]])
    with pytest.raises(ValueError, match="number of sessions is 0"):
        student.encode([])
