"""Backbones that read times: training, validation and evaluation with them, and what is refused without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import evaluation, models, objectives, samplers, training
from alkd_jax.data.sessions import build_dataset, pack
from alkd_jax.training.arguments import select_examples
from alkd_jax.training.list_examples import list_examples
from alkd_jax.types import HeldOutSequences, Rankings

NUM_ITEMS, LENGTH = 8, 4


def made_dataset(has_times=True):
    """Sessions of three random items, whose last one is 1 or 2, as little or much time is between the two before."""
    rng = np.random.default_rng(0)
    sessions, gaps = rng.integers(3, NUM_ITEMS + 1, (500, 3)), rng.integers(2, size=500)
    sessions[:, 2] = 1 + gaps
    elapsed = np.stack([np.zeros(500), np.where(gaps, 80_000, 20), np.where(gaps, 80_100, 120)], axis=1)
    times = (1000 * (rng.integers(10**9, size=(500, 1)) + elapsed)).astype(np.int64)
    sequences = pack(sessions.tolist())
    sequences = sequences.replace(time=times.ravel() if has_times else None)
    ids = ["", *map(str, range(1, NUM_ITEMS + 1))]
    return build_dataset("gaps", sequences, ids, ids, max_length=LENGTH)


def made_model(**options):
    return models.create("hstu", num_items=NUM_ITEMS, dim=8, max_length=LENGTH, blocks=1, dropout=0.0, **options)


def fitted(dataset, model, **options):
    settings = {"batch_size": 50, "max_steps": 200, "steps_per_validation": 50, "recall_at": 1}
    settings |= {"sequences": dataset.train_sequences, "targets": "positions", "learning_rate": 0.02}
    result = training.fit(jax.random.key(0), model, dataset.train, dataset.validation, **settings | options)
    return jax.tree.map(lambda leaf: leaf[0], result.params), result.best_metric[0]


@pytest.mark.slow
def test_what_only_times_tell_is_learned_with_them():
    dataset = made_dataset()
    model = made_model(time=True)
    params, recall = fitted(dataset, model)
    assert recall > 0.95
    assert evaluation.evaluate(model, params, dataset.test, ks=(1,), lists=False).metrics["recall@1"] > 0.9
    assert fitted(dataset, made_model())[1] < 0.7, "without times it is a guess"
    for targets in ("last", "all"):
        assert fitted(dataset, model, targets=targets, loss=objectives.FullSoftmax(model))[1] > 0.9


@pytest.mark.slow
def test_few_rows_are_trained_with_times_too():
    dataset, model = made_dataset(), made_model(time=True)
    loss = objectives.PositionSampledLoss(model, samplers.uniform(NUM_ITEMS), num_negatives=8)
    options = {"sequences": dataset.train_sequences, "targets": "positions", "loss": loss, "recall_at": 1}
    data = jax.random.key(0), model, dataset.train, dataset.validation
    result = training.fit_large(*data, batch_size=50, max_steps=20, steps_per_validation=20, **options)
    assert np.isfinite(result.history.loss[0, -1])


@pytest.mark.parametrize("targets", ["last", "all", "positions"])
def test_a_batch_has_the_times_of_its_items(targets):
    dataset, model = made_dataset(), made_model(time=True)
    examples, source = select_examples(model, dataset.train, targets, dataset.train_sequences, None)
    batch = examples.take(jnp.arange(20), source)
    times, offsets = dataset.train_sequences.time, dataset.train_sequences.offsets
    for row, session in enumerate(np.asarray(batch.session)):
        known = int(batch.mask[row].sum())
        seconds = times[offsets[session] :][:known] // 1000
        np.testing.assert_array_equal(batch.seconds[row, :known], seconds - seconds[0])
    plain, source = select_examples(made_model(), dataset.train, targets, dataset.train_sequences, None)
    assert source.seconds is None, "a device would hold what is not read"
    assert plain.take(jnp.arange(20), source).seconds is None


@pytest.mark.slow
def test_an_evaluation_reads_the_times_of_windows_and_of_whole_sessions_alike():
    dataset, model = made_dataset(), made_model(time=True)
    params = models.init_params(jax.random.key(0), model)
    params = jax.tree.map(lambda leaf: leaf + jax.random.normal(jax.random.key(1), leaf.shape), params)
    windows = evaluation.evaluate(model, params, dataset.test, ks=(1,), lists=False)
    whole = evaluation.evaluate(model, params, dataset.test_sequences, ks=(1,), lists=False, max_length=LENGTH)
    np.testing.assert_array_equal(windows.ranks, whole.ranks)
    later = dataset.test.replace(seconds=2 * np.asarray(dataset.test.seconds))
    assert (evaluation.evaluate(model, params, later, ks=(1,), lists=False).ranks != windows.ranks).any()


def test_sessions_without_times_are_refused_by_name():
    dataset, model = made_dataset(has_times=False), made_model(time=True)
    for targets in ("last", "positions"):
        with pytest.raises(ValueError, match=r"train has no times; expected them, since HSTU reads times"):
            fitted(dataset, model, targets=targets, max_steps=1)
    timed = made_dataset()
    with pytest.raises(ValueError, match=r"validation has no times; expected them"):
        training.fit(jax.random.key(0), model, timed.train, dataset.validation, max_steps=1)
    params = models.init_params(jax.random.key(0), model)
    held_out = dataset.test_sequences
    assert isinstance(held_out, HeldOutSequences)
    for sessions in (dataset.test, held_out):
        with pytest.raises(ValueError, match=r"HSTU reads times; expected sessions with times"):
            evaluation.evaluate(model, params, sessions)


def test_times_of_a_session_count_from_its_first_read_item():
    sequences = pack([[1, 2, 3, 4, 5, 6], [7, 8]]).replace(time=np.array([0, 5, 9, 20, 31, 40, 7, 9], np.int64) * 1000)
    ids = ["", *map(str, range(1, NUM_ITEMS + 1))]
    dataset = build_dataset("x", sequences, ids, ids, max_length=3, sizes=(2, 0, 0))
    np.testing.assert_array_equal(dataset.train.seconds, [[0, 11, 22], [0, 0, 0]])
    np.testing.assert_array_equal(sequences.with_seconds().seconds, [0, 5, 9, 20, 31, 40, 0, 2])


def test_batches_with_lists_have_times_too():
    train = made_dataset().train
    rankings = Rankings(train.session_id[:3], train.items[:3], train.mask[:3])
    batch = list_examples(rankings, train).take(jnp.array([2, 0]), train)
    np.testing.assert_array_equal(batch.seconds, np.asarray(train.seconds)[[2, 0]])
    model = made_model(time=True)
    params = models.init_params(jax.random.key(0), model, length=LENGTH)
    assert np.isfinite(objectives.ListLoss(model)(params, batch, jax.random.key(0)))
