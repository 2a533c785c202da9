"""Training examples and their batches, which depend on key and step alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.training.examples import batch_rows, cloze_examples, prefix_examples, sequences_of
from alkd_jax.types import Sequences, Sessions


def test_an_epoch_visits_every_example_once(key):
    rows = batch_rows(key, 0, 6, 5, 30)
    assert sorted(rows.ravel().tolist()) == list(range(30))


def test_a_batch_holds_no_example_twice(key):
    for row in np.asarray(batch_rows(key, 3, 40, 7, 24)):
        assert len(set(row.tolist())) == 7


@pytest.mark.parametrize("start", [0, 1, 2, 5, 6, 11])
@pytest.mark.parametrize("steps", [1, 2, 7, 13])
def test_the_batches_of_some_steps_are_a_slice_of_all_batches(key, start, steps):
    whole = batch_rows(key, 0, 40, 4, 27)
    np.testing.assert_array_equal(batch_rows(key, start, steps, 4, 27), whole[start : start + steps])


def test_other_keys_draw_other_batches(key):
    assert (batch_rows(key, 0, 4, 5, 30) != batch_rows(jax.random.key(1), 0, 4, 5, 30)).any()


SEQUENCES = Sequences(items=np.array([5, 6, 7, 8, 9, 3, 4], np.int32), offsets=np.array([0, 4, 5, 7], np.int32))
"""Three sessions: 5 6 7 8, then 9 alone, then 3 4."""


def taken(examples, sequences=SEQUENCES):
    batch = examples.take(jnp.arange(len(examples.weight)), sequences)
    inputs = [items[mask].tolist() for items, mask in zip(np.asarray(batch.items), np.asarray(batch.mask), strict=True)]
    assert (np.asarray(batch.items)[~np.asarray(batch.mask)] == 0).all()
    return list(zip(np.asarray(batch.session).tolist(), inputs, np.asarray(batch.target).tolist(), strict=True))


def test_every_prefix_predicts_the_item_after_it():
    assert taken(prefix_examples(SEQUENCES, length=10)) == [
        (0, [5], 6),
        (0, [5, 6], 7),
        (0, [5, 6, 7], 8),
        (2, [3], 4),
    ]


def test_inputs_keep_the_most_recent_items():
    assert taken(prefix_examples(SEQUENCES, length=2))[2] == (0, [6, 7], 8)
    assert taken(cloze_examples(SEQUENCES, length=2))[1] == (0, [7, 8], 6)


def test_cloze_predicts_every_item_from_the_others_in_their_order():
    assert taken(cloze_examples(SEQUENCES, length=10)) == [
        (0, [6, 7, 8], 5),
        (0, [5, 7, 8], 6),
        (0, [5, 6, 8], 7),
        (0, [5, 6, 7], 8),
        (2, [4], 3),
        (2, [3], 4),
    ]


def test_inputs_are_left_aligned():
    batch = cloze_examples(SEQUENCES, length=5).take(jnp.array([0, 4]), SEQUENCES)
    assert batch.mask.tolist() == [[True, True, True, False, False], [True, False, False, False, False]]


def test_sessions_become_sequences_and_back():
    sessions = Sessions(
        items=np.array([[1, 2, 0], [3, 0, 0]], np.int32),
        mask=np.array([[True, True, False], [True, False, False]]),
        target=np.array([9, 8], np.int32),
        session_id=np.array([0, 1], np.int32),
    )
    sequences = sequences_of(sessions)
    assert sequences.items.tolist() == [1, 2, 9, 3, 8]
    assert sequences.offsets.tolist() == [0, 3, 5]
    assert taken(prefix_examples(sequences, length=3), sequences)[1] == (0, [1, 2], 9)


def test_released_data_has_as_many_prefixes_as_counted_by_hand(released_dataset):
    for name, wanted in (("ML", 59_771), ("Games", 67_387)):
        dataset = released_dataset(name)
        assert len(prefix_examples(dataset.train_sequences).weight) == wanted


@pytest.mark.parametrize("make", [prefix_examples, cloze_examples])
def test_nothing_to_predict_is_refused(make):
    lonely = Sequences(items=np.array([5, 6], np.int32), offsets=np.array([0, 1, 2], np.int32))
    with pytest.raises(ValueError, match="train has no session with two items"):
        make(lonely)
    with pytest.raises(ValueError, match="length is 0"):
        make(SEQUENCES, length=0)
