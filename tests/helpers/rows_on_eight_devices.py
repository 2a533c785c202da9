"""Row-sparse training on eight devices; `mesh_test.py` runs these cases in a process that has them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alkd_jax import evaluation, models, objectives, samplers, sharding, training
from alkd_jax.ops import embedding
from alkd_jax.training import interval
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.examples import last_item_examples
from alkd_jax.training.steppers.lazy_rows import LazyRows
from tests.helpers.cyclic_sessions import cyclic_sessions
from tests.helpers.on_eight_devices import assert_nothing_large_is_sent, collectives

slow = pytest.mark.slow
LOSSES = {
    "in-batch BPR": lambda model, target: objectives.InBatchBPR(model),
    "in-batch softmax": lambda model, target: objectives.InBatchSoftmax(
        model, samplers.log_frequency(target, model.num_items)
    ),
    "sampled softmax": lambda model, target: objectives.SampledLoss(
        model, samplers.by_popularity(target, model.num_items), "softmax", num_negatives=3
    ),
}
NUM_ITEMS = 4000


@pytest.mark.parametrize(
    ("loss", "backbone"),
    [("sampled softmax", "fpmc"), *(pytest.param(name, "late", marks=slow) for name in LOSSES)],
)
def test_no_more_than_a_batchs_rows_travel(loss, backbone):
    mesh, sessions = sharding.make_mesh("data=2,model=4"), cyclic_sessions(40, 0, 0, num_items=NUM_ITEMS)
    model = models.create(backbone, num_items=NUM_ITEMS, dim=3)
    params = models.init_params(jax.random.key(0), model, length=sessions.items.shape[1])
    layout = sharding.layout_of(params, NUM_ITEMS + 1, mesh)
    program = interval.Interval(LazyRows(model, embedding.adam(0.1), optax.adam(0.1), layout), 16, 3, 5, 16)
    state = program.stepper.init(layout.device_put(params))
    held = {str(leaf.sharding.spec) for leaf in jax.tree.leaves((state.tables, state.slots)) if leaf.ndim > 0}
    assert held == {"P('model',)"} or held == {"P('model')"}, held
    data = TrainingData(last_item_examples(sessions), sessions, sessions, LOSSES[loss](model, sessions.target))
    data, key = sharding.device_put_global((data, jax.random.key(0)), layout.replicated)
    assert_nothing_large_is_sent(lowered(interval.take_steps, program, state, key, data, np.int32(0)), NUM_ITEMS, 4)
    with sharding.use_mesh(mesh):
        compiled = lowered(interval.validate, program, state, data.validation)
    assert_nothing_large_is_sent(compiled, NUM_ITEMS, 4)


def lowered(work, program, *arguments):
    # Flat, since what describes an array is no array, which the types of a state would refuse.
    flat, tree = jax.tree.flatten(arguments)
    return jax.jit(lambda *flat: work(program, *jax.tree.unflatten(tree, flat))).lower(*flat).compile()


def fitted(mesh, *, num_items=40, loss="sampled softmax", **options):
    model = models.create("stamp", num_items=num_items, dim=6)
    data = cyclic_sessions(300, 0, 0), cyclic_sessions(90, 300, 1)
    defaults = {
        "loss": LOSSES[loss](model, data[0].target),
        "row_optimizer": embedding.adam(0.05),
        "optimizer": optax.adam(0.01),
        "steps_per_validation": 5,
        "batch_size": 64,
        "max_steps": 20,
    }
    return training.fit_large(jax.random.key(0), model, *data, mesh=mesh, **(defaults | options)), model, data[1]


@pytest.fixture(scope="module")
def on_one():
    return fitted(None)


def assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(np.asarray(one, np.float32), np.asarray(other, np.float32), atol=2e-5)
    np.testing.assert_array_equal(found.history.step, expected.history.step)
    np.testing.assert_allclose(found.history.loss, expected.history.loss, rtol=1e-5)
    np.testing.assert_array_equal(found.history.recall, expected.history.recall)


@pytest.mark.parametrize(
    "text",
    [
        "data=2,model=4",
        *(pytest.param(text, marks=slow) for text in ("model=8", "data=8", "model=2", "data=2", "data=1")),
    ],
)
def test_training_by_rows_is_that_of_one_device(text, on_one):
    expected, model, validation = on_one
    assert expected.history.recall[0, -1] > 0.5, "it learned"
    mesh = sharding.make_mesh(text)
    found, _, _ = fitted(mesh)
    assert_close(found, expected)
    ranks = evaluation.evaluate(model, found.params, validation, mesh=mesh).ranks
    np.testing.assert_array_equal(ranks, evaluation.evaluate(model, expected.params, validation).ranks)


@slow
@pytest.mark.parametrize("loss", ["in-batch BPR", "in-batch softmax"])
def test_losses_within_the_batch_and_bfloat16_tables(loss):
    options = {
        "loss": loss,
        "row_optimizer": embedding.sgd(0.5),
        "max_steps": 5,
    }
    assert_close(fitted(sharding.make_mesh("data=2,model=4"), **options)[0], fitted(None, **options)[0])
    # Rounded at random, but by the same numbers; where a sum differs in its last digit, to the other neighbour.
    options |= {"table_dtype": "bfloat16", "steps_per_validation": 1, "max_steps": 1}
    one, other = fitted(sharding.make_mesh("data=2,model=4"), **options)[0], fitted(None, **options)[0]
    for name in ("input_embedding", "output_embedding"):
        unlike = np.asarray(one.params["params"][name]) != np.asarray(other.params["params"][name])
        assert unlike.mean() < 0.01, name


@slow
def test_tables_come_back_in_parts_where_their_rows_allow_it():
    # 40 items and a padding cannot be cut in four, 43 can.
    uneven, even = (
        fitted(sharding.make_mesh("data=2,model=4"), num_items=num, max_steps=5)[0].params for num in (40, 43)
    )
    assert isinstance(uneven["params"]["output_embedding"], np.ndarray)
    assert uneven["params"]["output_embedding"].shape == (41, 6)
    assert even["params"]["output_embedding"].sharding.shard_shape((44, 6)) == (11, 6)


@slow
def test_training_goes_on_under_another_mesh_and_under_none(tmp_path, on_one):
    folder = TrainingFolder(tmp_path, every=1)
    # 41 rows are filled up to 44, to 48, and not at all.
    fitted(sharding.make_mesh("data=2,model=4"), max_steps=5, checkpoints=folder)
    fitted(sharding.make_mesh("model=8"), max_steps=10, checkpoints=folder)
    steps = []
    found, _, _ = fitted(None, checkpoints=folder, progress=lambda now: steps.append(now.step))
    assert steps == [15, 20]
    assert_close(found, on_one[0])


@slow
def test_seeds_on_a_mesh_and_initial_values_that_are_left_alone():
    mesh = sharding.make_mesh("data=2,model=4")
    several, alone = fitted(mesh, seeds=2, max_steps=5)[0], fitted(None, seeds=2, max_steps=5)[0]
    assert_close(several, alone)
    assert several.params["params"]["input_embedding"].shape == (2, 41, 6)
    first = models.init_params(jax.random.key(3), models.create("stamp", num_items=40, dim=6))
    kept = jax.tree.map(np.array, first)
    assert_close(fitted(mesh, initial=first, max_steps=5)[0], fitted(None, initial=first, max_steps=5)[0])
    jax.tree.map(np.testing.assert_array_equal, first, kept)


def test_rows_and_bits_of_one_device_when_every_device_has_the_gradients(key):
    mesh, optimizer = sharding.make_mesh("data=2,model=4"), embedding.adam(0.1)
    table = jax.random.normal(key, (40, 3)).astype(jnp.bfloat16)
    ids, gradients = jnp.array([3, 9, 10, 39, -1, 77, 0, 20]), jax.random.normal(key, (8, 3))
    how = {"unique_ids": True, "key": key}
    expected = jax.jit(lambda t: optimizer.update(t, optimizer.init(t), ids, gradients, **how))(table)
    how["replicated"] = True
    update = jax.jit(lambda t: embedding.update_sharded(optimizer, mesh, t, optimizer.init(t), ids, gradients, **how))
    compiled = update.lower(jax.device_put(table, NamedSharding(mesh, P("model")))).compile()
    for one, other in zip(jax.tree.leaves(update(table)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(one, np.float32), np.asarray(other, np.float32))
    assert not collectives(compiled)
