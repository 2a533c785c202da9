import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import objectives, samplers, training
from alkd_jax.data.sessions import pack
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.shifted import at_batch_length, grouped_rows, shifted_sequences
from tests.helpers.causal_mean import CausalMean

NUM_ITEMS = 30


def random_sessions(num=200, longest=40, seed=0):
    rng = np.random.default_rng(seed)
    return pack([rng.integers(1, NUM_ITEMS + 1, rng.integers(2, longest)).tolist() for _ in range(num)])


def three_losses(model):
    sampled = [("gbce", "position", False), ("softmax", "batch", True)]
    sampler = samplers.uniform(NUM_ITEMS)
    return [objectives.PositionSoftmax(model)] + [
        objectives.PositionSampledLoss(model, sampler, kind, 5, negatives, corrected)
        for kind, negatives, corrected in sampled
    ]


def test_targets_are_the_items_one_position_later():
    sequences = pack([[1, 2, 3], [4], [5, 6], [1, 2, 3, 4, 5, 6, 7]])
    examples = shifted_sequences(sequences, length=4)
    order = np.argsort(examples.session)
    batch = examples.take(jnp.asarray(order), sequences)
    np.testing.assert_array_equal(batch.session, [0, 2, 3])
    np.testing.assert_array_equal(batch.items, [[1, 2, 0, 0], [5, 0, 0, 0], [3, 4, 5, 6]])
    np.testing.assert_array_equal(batch.target, [[2, 3, 0, 0], [6, 0, 0, 0], [4, 5, 6, 7]])
    np.testing.assert_allclose(batch.weight, np.asarray(batch.target > 0) / 7, rtol=1e-6)


def test_a_sequence_without_two_items_is_no_example():
    with pytest.raises(ValueError, match="no session with two items"):
        shifted_sequences(pack([[1], [2]]))


def test_an_epoch_reads_every_example_once_but_for_an_incomplete_batch():
    groups, batch_size = (40, 0, 13, 50), 10
    rows = np.asarray(grouped_rows(jax.random.key(0), 0, 20, batch_size, groups))
    for epoch in rows.reshape(2, 10, batch_size):
        assert len(np.unique(epoch)) == 100
    assert set(rows.ravel()) <= set(range(103))
    assert (rows[:10] != rows[10:]).any()
    # Intervals of other lengths read the same examples.
    np.testing.assert_array_equal(grouped_rows(jax.random.key(0), 7, 3, batch_size, groups), rows[7:10])


def test_batches_hold_examples_of_one_group_or_of_neighbors():
    groups = (60, 30, 30)
    rows = np.asarray(grouped_rows(jax.random.key(3), 0, 12, 10, groups))
    group = np.searchsorted(np.cumsum(groups), rows, side="right")
    assert (np.ptp(group, axis=1) == 0).sum() >= 12 - len(groups)


def test_losses_and_gradients_of_a_cut_batch_are_those_of_the_whole_one():
    model, sequences = CausalMean(NUM_ITEMS, 6), random_sessions(longest=9)
    losses = three_losses(model)
    examples = shifted_sequences(sequences, length=50)
    assert examples.lengths == (4, 7)
    params = model.init(jax.random.key(0), jnp.ones((1, 3), int), jnp.ones((1, 3), bool))

    def total(params, batch):
        values = jnp.stack([loss(params, batch, jax.random.key(1)) for loss in losses])
        return (values * (1 + jnp.arange(len(losses)))).sum(), values

    @functools.partial(jax.jit, static_argnums=1)
    def values_and_gradient(batch, lengths):
        compute = jax.value_and_grad(total, has_aux=True)
        return at_batch_length(lambda shorter: compute(params, shorter), batch, lengths)

    for start in (0, examples.groups[0]):
        batch = examples.take(start + jnp.arange(5), sequences)
        whole, cut = values_and_gradient(batch, ()), values_and_gradient(batch, examples.lengths)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), whole, cut)


def test_a_cut_batch_has_no_more_positions_than_its_longest_session_needs():
    sequences = pack([[1, 2, 3], [1, 2], [1] * 9])
    examples = shifted_sequences(sequences, length=50)
    batch = examples.take(jnp.arange(2), sequences)
    seen = []
    at_batch_length(lambda cut: seen.append(cut.items.shape[1]) or cut.items.sum(), batch, examples.lengths)
    assert seen == [4, 8]


def test_every_target_has_one_weight_whatever_the_lengths_of_the_batch():
    sequences = random_sessions(num=64)
    examples = shifted_sequences(sequences, length=50)
    batches = [examples.take(rows, sequences) for rows in jnp.arange(64).reshape(8, 8)]
    weights = np.concatenate([np.asarray(batch.weight[batch.mask]) for batch in batches])
    np.testing.assert_allclose(weights, weights[0], rtol=1e-6)
    np.testing.assert_allclose(np.mean([batch.weight.sum() for batch in batches]), 1.0, rtol=1e-5)


@pytest.fixture(scope="module")
def dataset():
    return alkd.data.synthetic(num_items=NUM_ITEMS, num_sessions=300)


def fit(dataset, **options):
    model = options.pop("model", CausalMean(dataset.num_items, 6))
    options = {"max_steps": 20, "steps_per_validation": 10, "batch_size": 32, "learning_rate": 0.01} | options
    splits = dataset.train, dataset.validation
    return training.fit(
        jax.random.key(0), model, *splits, targets="positions", sequences=dataset.train_sequences, **options
    )


@pytest.mark.slow
def test_training_over_positions_lowers_the_loss_and_continues_from_a_checkpoint(dataset, tmp_path):
    whole = fit(dataset, seeds=2, max_steps=40, learning_rate=0.05)
    assert (whole.history.loss[:, -1] < whole.history.loss[:, 1]).all()
    options = {"seeds": 2, "learning_rate": 0.05, "checkpoints": TrainingFolder(tmp_path / "training")}
    fit(dataset, max_steps=20, **options)
    continued = fit(dataset, max_steps=40, **options)
    jax.tree.map(np.testing.assert_array_equal, whole.params, continued.params)


@pytest.mark.slow
def test_training_on_a_mesh_and_in_rows_equals_that_on_one_device(dataset):
    on_one, on_mesh = fit(dataset), fit(dataset, mesh=alkd.sharding.make_mesh("data=1,model=1"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), on_one.params, on_mesh.params)


def test_losses_and_backbones_that_do_not_fit_are_refused(dataset):
    mean, splits = CausalMean(dataset.num_items, 6), (dataset.train, dataset.validation)
    with pytest.raises(ValueError, match=r"loss is InBatchBPR; expected an objective with a target for every position"):
        fit(dataset, loss=objectives.InBatchBPR(mean))
    with pytest.raises(ValueError, match=r"model is FPMC, which has no encode_positions"):
        fit(dataset, model=alkd.models.create("fpmc", num_items=dataset.num_items, dim=6))
    with pytest.raises(ValueError, match=r"loss is PositionSoftmax; expected an objective with a target for every ses"):
        training.fit(jax.random.key(0), mean, *splits, loss=objectives.PositionSoftmax(mean), max_steps=1)


def test_fit_large_trains_over_positions(dataset):
    model = CausalMean(dataset.num_items, 6)
    loss = objectives.PositionSampledLoss(model, samplers.uniform(dataset.num_items), "gbce", 4, "session")
    options = {"targets": "positions", "sequences": dataset.train_sequences, "batch_size": 32, "max_steps": 4}
    options |= {"steps_per_validation": 2, "initial": None}
    fitted = training.fit_large(jax.random.key(0), model, dataset.train, dataset.validation, loss=loss, **options)
    assert np.isfinite(fitted.history.loss[1:]).all()
    assert dataclasses.replace(loss, num_items=None).catalogue_size == dataset.num_items
