"""Tests of sessions in parts on eight virtual CPU devices; `mesh_test.py` runs them in a process of their own."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alkd_jax import models, objectives, samplers, sharding, training
from alkd_jax.ops import embedding
from alkd_jax.training import interval
from alkd_jax.training.arrays import TrainingData, device_put
from alkd_jax.training.steppers.lazy_rows import LazyRows
from tests.helpers.cyclic_sessions import cyclic_sessions
from tests.helpers.on_eight_devices import assert_nothing_large_is_sent
from tests.helpers.rows_on_eight_devices import lowered

slow = pytest.mark.slow
NUM_ITEMS = 40
MESHES = ("data=2,model=4", "data=1", "data=8", "model=8")


@pytest.mark.parametrize("text", [MESHES[0], *(pytest.param(text, marks=slow) for text in MESHES[1:])])
def test_a_batch_is_that_of_the_whole_sessions(text):
    sessions, rows = cyclic_sessions(300, 0, 0), np.array([0, 299, 7, 1023, 150, 7, 298, 1])
    mesh = sharding.make_mesh(text)
    train, examples = training.shard_sessions(sessions, mesh)
    parts = {shard.data.shape[0] for shard in train.items.addressable_shards}
    assert parts == {1024 // mesh.size}
    with sharding.use_mesh(mesh):
        batch = jax.jit(lambda examples, train, rows: jax.tree.leaves(examples.take(rows, train)))(
            examples, train, rows
        )
    whole = np.minimum(rows, 299)
    expected = [np.asarray(leaf)[whole] for leaf in (sessions.items, sessions.mask)]
    for found, leaf in zip(batch[:2], expected, strict=True):
        np.testing.assert_array_equal(found, leaf)


@slow
@pytest.mark.parametrize("train_by", ["fit", "fit_large"])
def test_training_is_that_of_one_device(train_by):
    model, sessions, validation = (
        models.create("fpmc", num_items=NUM_ITEMS, dim=4),
        cyclic_sessions(300, 0, 0),
        cyclic_sessions(60, 300, 1),
    )
    loss = objectives.SampledLoss(model, samplers.uniform(NUM_ITEMS), "softmax", num_negatives=4)
    losses = []
    for text in MESHES:
        mesh = sharding.make_mesh(text)
        train, examples = training.shard_sessions(sessions, mesh)
        options = {"loss": loss, "batch_size": 64, "max_steps": 10, "steps_per_validation": 5, "mesh": mesh}
        fit = getattr(training, train_by)
        losses.append(fit(jax.random.key(0), model, train, validation, examples=examples, **options).history.loss)
    for found in losses[1:]:
        np.testing.assert_allclose(found, losses[0], rtol=1e-5)


@slow
def test_no_more_than_a_batch_of_sessions_travels():
    mesh, model = sharding.make_mesh("data=2,model=4"), models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    sessions = cyclic_sessions(16_000, 0, 0)
    train, examples = training.shard_sessions(sessions, mesh)
    params = models.init_params(jax.random.key(0), model)
    layout = sharding.layout_of(params, NUM_ITEMS + 1, mesh)
    loss = objectives.SampledLoss(model, samplers.uniform(NUM_ITEMS), "softmax", num_negatives=4)
    program = interval.Interval(LazyRows(model, embedding.adam(0.1), optax.adam(0.1), layout), 16, 3, 5, 16)
    state = program.stepper.init(layout.device_put(params))
    data = device_put(TrainingData(examples, train, cyclic_sessions(16, 0, 1), loss), layout)
    assert data.source.items.sharding == NamedSharding(mesh, P(("data", "model")))
    key = sharding.device_put_global(jax.random.key(0), layout.replicated)
    compiled = lowered(interval.take_steps, program, state, key, data, np.int32(0))
    # Of 16 sessions of 10 items, each with a target and 4 negatives, in 3 steps.
    assert_nothing_large_is_sent(compiled, 8 * 3 * 16 * 10 * 5 + 8, 8)
    assert 3 * 16 * 10 * 5 < len(train) / 6
