"""Held-out items, windows, block splits and the dataset they make."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alkd_jax.data import sessions

NUM_ITEMS = 30
WHOLE_SESSIONS = st.lists(st.lists(st.integers(1, NUM_ITEMS), min_size=2, max_size=15), min_size=1, max_size=12)
CATALOGUE = ["", *(f"title {item}" for item in range(1, NUM_ITEMS + 1))]
ITEM_IDS = ["", *(f"id{item}" for item in range(1, NUM_ITEMS + 1))]


@given(st.lists(st.lists(st.integers(1, NUM_ITEMS), max_size=15), max_size=12))
def test_unpack_undoes_pack(rows):
    assert sessions.unpack(sessions.pack(rows)) == rows


@given(WHOLE_SESSIONS, st.integers(1, 12))
def test_inputs_are_the_most_recent_items_left_aligned(rows, max_length):
    held_out = sessions.leave_one_out(sessions.pack(rows), max_length=max_length)
    for n, row in enumerate(rows):
        recent = row[:-1][-max_length:]
        assert held_out.items[n].tolist() == recent + [0] * (max_length - len(recent))
        assert held_out.mask[n].tolist() == [True] * len(recent) + [False] * (max_length - len(recent))
    assert held_out.target.tolist() == [row[-1] for row in rows]
    assert held_out.session_id.tolist() == list(range(len(rows)))
    assert {array.dtype.name for array in (held_out.items, held_out.target, held_out.session_id)} == {"int32"}


@given(WHOLE_SESSIONS)
def test_a_window_as_long_as_the_longest_session_loses_nothing(rows):
    held_out = sessions.leave_one_out(sessions.pack(rows), max_length=15)
    again = [
        [*items[mask].tolist(), int(target)]
        for items, mask, target in zip(held_out.items, held_out.mask, held_out.target, strict=True)
    ]
    assert again == rows


@given(st.lists(st.lists(st.integers(1, NUM_ITEMS), max_size=5), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_a_block_is_the_slice_of_the_list(rows, start, stop):
    assert sessions.unpack(sessions.slice_sequences(sessions.pack(rows), slice(start, stop))) == rows[start:stop]


def test_a_block_with_a_stride_is_refused():
    with pytest.raises(ValueError, match="step 2"):
        sessions.slice_sequences(sessions.pack([[1, 2], [3, 4]]), slice(0, 2, 2))


@given(st.integers(0, 10_000), st.tuples(*[st.integers(0, 10)] * 2).filter(lambda parts: sum(parts) <= 10))
@example(10, (7, 1))  # 0.7 + 0.1 is less than 0.8 in binary
def test_splits_cover_all_rows_once_at_the_exact_tenths(num_sessions, tenths):
    fractions = (tenths[0] / 10, tenths[1] / 10, (10 - sum(tenths)) / 10)
    train, validation, test = sessions.block_split(num_sessions, fractions)
    assert (train.start, train.stop, validation.stop, test.stop) == (0, validation.start, test.start, num_sessions)
    assert train.stop == num_sessions * tenths[0] // 10
    assert validation.stop == num_sessions * sum(tenths) // 10


@pytest.mark.parametrize(("num_sessions", "sizes"), [(12_323, (7_393, 2_465, 2_465)), (20_091, (12_054, 4_018, 4_019))])
def test_the_papers_split_sizes(num_sessions, sizes):
    assert tuple(rows.stop - rows.start for rows in sessions.block_split(num_sessions)) == sizes


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.6, 0.3, 0.2), (1.2, -0.2, 0.0)])
def test_shares_that_are_no_split_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions"):
        sessions.block_split(10, fractions)


@given(st.lists(st.lists(st.integers(1, NUM_ITEMS), min_size=2, max_size=15), min_size=5, max_size=40))
def test_a_dataset_holds_every_session_once_in_the_order_of_the_rows(rows):
    dataset = sessions.build_dataset("toy", sessions.pack(rows), CATALOGUE, ITEM_IDS, report={"source": "rows"})
    splits = (dataset.train, dataset.validation, dataset.test)
    assert np.concatenate([split.session_id for split in splits]).tolist() == list(range(len(rows)))
    assert np.concatenate([split.target for split in splits]).tolist() == [row[-1] for row in rows]
    assert sessions.unpack(dataset.train_sequences) == rows[: len(dataset.train)]
    assert dataset.num_items == NUM_ITEMS
    report = dataset.report
    assert report["source"] == "rows"
    assert report["interactions"] == sum(len(row) for row in rows)
    assert report["items_in_sessions"] == len({item for row in rows for item in row})
    assert report["sessions_truncated"] == sum(len(row) > 11 for row in rows)
    assert report["inputs_truncated"] == sum(max(len(row) - 11, 0) for row in rows)
    assert [report["split"][name] for name in ("train", "validation", "test")] == [len(split) for split in splits]


def test_titles_that_repeat_or_are_empty_are_counted():
    titles = ["", "a", "", "a", "a", "b", "", "b"]
    dataset = sessions.build_dataset("toy", sessions.pack([[1, 2]] * 5), titles, ITEM_IDS[:8])
    assert (dataset.report["titles_empty"], dataset.report["titles_duplicate"]) == (2, 4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2], [3]], "session 1 has length 1"),
        ([[1, 0, 2]], "items contain 0"),
        ([[1, -4, 2]], "items contain -4"),
    ],
)
def test_sessions_without_an_input_or_with_padding_inside_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        sessions.leave_one_out(sessions.pack(rows))


def test_a_window_of_no_items_is_refused():
    with pytest.raises(ValueError, match="max_length"):
        sessions.leave_one_out(sessions.pack([[1, 2]]), max_length=0)


def test_ids_for_other_sessions_are_refused():
    with pytest.raises(ValueError, match="2 ids; expected 1"):
        sessions.leave_one_out(sessions.pack([[1, 2]]), session_id=np.arange(2))


@pytest.mark.parametrize(
    ("rows", "titles", "item_ids", "message"),
    [
        ([[1, 5]] * 5, ["", "a", "b"], ["", "x", "y"], "contain 5"),
        ([[1, 2]] * 5, ["", "a", "b"], ["", "x"], "3 entries; expected 2"),
        ([[1, 2]] * 5, ["z", "a", "b"], ["", "x", "y"], "padding"),
        ([[1, 2]] * 5, ["", "a", "b"], ["", "x", "x"], "an id twice"),
        ([[1, 2]], ["", "a", "b"], ["", "x", "y"], "train split"),
    ],
)
def test_a_catalogue_that_does_not_fit_the_sessions_is_refused(rows, titles, item_ids, message):
    with pytest.raises(ValueError, match=message):
        sessions.build_dataset("toy", sessions.pack(rows), titles, item_ids)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, 1.9], "items of session 1 are numbers of type float64; expected an integer type"),
        ([1, float("nan")], "items of session 1 are numbers of type float64"),
        ([True, False], "items of session 1 are numbers of type bool"),
        (["1", "2"], "items of session 1 are numbers of type <U1"),
        (np.array([1, 2**40]), rf"items span 1\.\.{2**40}"),
        ([1, 10**30], "items of session 1 are numbers of type object"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_items_that_are_no_numbers_of_items_are_refused(row, message):
    with pytest.raises(ValueError, match=message):
        sessions.pack([[1, 2, 3], row])


@pytest.mark.parametrize(
    ("titles", "item_ids", "message"),
    [
        (None, ["", "a"], "titles is None; expected a sequence of strings"),
        (["", "A"], None, "item_ids is None; expected a sequence of strings"),
        (["", 1.5], ["", "a"], r"titles\[1\] is 1.5; expected a string"),
        (["", "A"], ["", 7.0], r"item_ids\[1\] is 7.0; expected a string"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_titles_and_ids_that_are_no_strings_are_refused(titles, item_ids, message):
    with pytest.raises(ValueError, match=message):
        sessions.build_dataset("x", sessions.pack([[1, 1]] * 5), titles, item_ids)


def test_one_item_is_a_dataset_and_the_test_split_may_be_left_out():
    found = sessions.build_dataset("x", sessions.pack([[1, 1]] * 5), ["", "A"], ["", "a"], fractions=(0.8, 0.2, 0.0))
    assert (found.num_items, len(found.train), len(found.validation), len(found.test)) == (1, 4, 1, 0)
    with pytest.raises(ValueError, match="1 sessions leave the train split"):
        sessions.build_dataset("x", sessions.pack([[1, 1]]), ["", "A"], ["", "a"])


def test_held_out_splits_have_their_complete_sessions():
    rows = [[number % 7 + 1] * (number % 4 + 2) for number in range(10)]
    plain = sessions.build_dataset("x", sessions.pack(rows), CATALOGUE, ITEM_IDS, max_length=2)
    first = np.array([len(row) - 1 for row in rows])
    last_only = sessions.build_dataset("x", sessions.pack(rows), CATALOGUE, ITEM_IDS, max_length=2, first_target=first)
    for dataset, firsts in ((plain, np.ones(10)), (last_only, first)):
        for block, held_out in ((range(6, 8), dataset.validation_sequences), (range(8, 10), dataset.test_sequences)):
            assert sessions.unpack(held_out.sequences) == [rows[row] for row in block]
            assert held_out.session_id.tolist() == list(block)
            assert held_out.first_target.tolist() == [firsts[row] for row in block]
    assert plain.fingerprint != last_only.fingerprint
    # Runs compare the fingerprint of their data with the one they began with, from before there were these sequences.
    assert plain.fingerprint == "0c2ab70bc151b5bdffbf21e7ae8eba7898acd51749fa2b75e49faeea5a06fab4"
    with pytest.raises(ValueError, match=r"first_target\[0\] is 2; expected at least 1 and less than"):
        sessions.build_dataset("x", sessions.pack(rows), CATALOGUE, ITEM_IDS, first_target=first + 1)


def test_times_stay_with_their_items_and_leave_the_fingerprint():
    rows = [[1, 2], [3, 1, 2], [2, 3], [1, 3], [3, 2]]
    plain = sessions.pack(rows)
    timed = plain.replace(time=np.arange(100, 111))
    assert sessions.slice_sequences(timed, slice(1, 3)).time.tolist() == [102, 103, 104, 105, 106]
    assert sessions.take_sequences(timed, np.array([2, 0])).time.tolist() == [105, 106, 100, 101]
    assert sessions.take_sequences(plain, np.array([2, 0])).time is None
    catalogue = (["", "a", "b", "c"], ["", "1", "2", "3"])
    datasets = [sessions.build_dataset("x", sequences, *catalogue) for sequences in (plain, timed)]
    assert datasets[0].fingerprint == datasets[1].fingerprint
    assert datasets[0].test_sequences.sequences.time is None
    assert datasets[1].test_sequences.sequences.time.tolist() == [109, 110]
    with pytest.raises(ValueError, match="sequences time has shape"):
        sessions.build_dataset("x", plain.replace(time=np.arange(3)), *catalogue)
