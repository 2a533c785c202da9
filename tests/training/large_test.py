"""Row-sparse training equals dense training, and needs no memory of the catalogue's size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import evaluation, models, objectives, samplers, training
from alkd_jax.ops import embedding
from alkd_jax.training import examples, interval
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.steppers import dense, lazy_rows
from tests.helpers.row_sparse_data import NUM_ITEMS, SAMPLER, TRAIN, VALIDATION, sampled_softmax

PAIRS = {
    "sgd": (embedding.sgd(0.5), optax.sgd(0.5)),
    "adagrad": (embedding.adagrad(0.1), optax.adagrad(0.1)),
}


def in_batch_softmax(model):
    return objectives.InBatchSoftmax(model, samplers.log_frequency(TRAIN.target, NUM_ITEMS))


def sampled_bpr(model):
    return objectives.SampledLoss(model, SAMPLER, "bpr", num_negatives=2)


def listwise(model):
    """Lists of each session's own items and the popular ones."""
    lists = np.concatenate([TRAIN.items, np.tile(np.arange(1, 4, dtype=np.int32), (len(TRAIN), 1))], axis=1)
    return objectives.ListwiseSoftmax(model, lists, np.ones(lists.shape, np.float32))


def dense_params(model, loss, optimizer, *, steps):
    """The parameters of seed 0 after this many steps of ``fit``, better or not, the training loss and the recall."""
    program = interval.Interval(dense.Dense(model, optimizer), 32, steps, 5, 50)
    init_key, run_key = jax.random.split(training.seed_keys(jax.random.key(0), 1)[0])
    state = interval.init_state(program, models.init_params(init_key, model, length=5))
    data = jax.device_put(TrainingData(examples.last_item_examples(TRAIN), TRAIN, VALIDATION, loss))
    state, metrics = interval.take_steps(program, state, run_key, data, jnp.int32(0))
    return state.params, metrics.loss, interval.validate(program, state, VALIDATION)


@pytest.mark.parametrize(
    ("backbone", "make_loss", "name"),
    [
        ("fpmc", objectives.InBatchBPR, "adagrad"),
        ("fpmc", sampled_softmax, "adagrad"),
        ("fpmc", listwise, "adagrad"),
        pytest.param("stamp", sampled_bpr, "sgd", marks=pytest.mark.slow),
        pytest.param("late", in_batch_softmax, "adagrad", marks=pytest.mark.slow),
        pytest.param("attmix", objectives.InBatchBPR, "sgd", marks=pytest.mark.slow),
    ],
)
def test_row_sparse_training_equals_dense_training(backbone, make_loss, name):
    model = models.create(backbone, num_items=NUM_ITEMS, dim=4)
    row_optimizer, optimizer = PAIRS[name]
    expected, loss, recall = dense_params(model, make_loss(model), optimizer, steps=7)
    fitted = training.fit_large(
        jax.random.key(0),
        model,
        TRAIN,
        VALIDATION,
        loss=make_loss(model),
        row_optimizer=row_optimizer,
        optimizer=optimizer,
        batch_size=32,
        max_steps=7,
        recall_at=5,
        keep_best=False,
    )
    assert fitted.params["params"].keys() == expected["params"].keys()
    for leaf, value in expected["params"].items():
        np.testing.assert_allclose(fitted.params["params"][leaf], value, atol=2e-5, err_msg=leaf)
    assert fitted.history.loss[0, -1] == pytest.approx(float(loss), abs=1e-5)
    assert fitted.history.recall[0, -1] == pytest.approx(float(recall), abs=1e-6)


@functools.lru_cache
def learned(keep_best=True, dtype=jnp.float32):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=8)
    options = dict(batch_size=64, steps_per_validation=20, recall_at=5, validation_sessions=40, table_dtype=dtype)
    reports = []
    fitted = training.fit_large(
        jax.random.key(0),
        model,
        TRAIN,
        VALIDATION,
        max_steps=400,
        patience=4,
        keep_best=keep_best,
        row_optimizer=embedding.adagrad(0.3, rowwise=True),
        progress=reports.append,
        **options,
    )
    return model, fitted, reports


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
def test_it_learns_with_tables_of_either_type(dtype):
    model, fitted, reports = learned(dtype=dtype)
    untrained = evaluation.evaluate(model, models.init_params(jax.random.key(3), model), VALIDATION)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), fitted.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(fitted.params)} == {jnp.dtype(dtype)}
    after = evaluation.evaluate(model, params, VALIDATION)
    assert after.metrics["recall@5"] > untrained.metrics["recall@5"] + 0.2
    assert fitted.best_metric[0] == max(now.recall for now in reports)
    assert reports[-1].step == fitted.history.step[-1]


@pytest.mark.slow
def test_the_best_parameters_are_returned_unless_keep_best_is_false():
    _, best, _ = learned()
    model, last, _ = learned(keep_best=False)
    np.testing.assert_array_equal(best.history.recall, last.history.recall)
    assert last.best_step[0] == last.history.step[-1] > best.best_step[0]
    again = training.fit_large(
        jax.random.key(0),
        model,
        TRAIN,
        VALIDATION,
        batch_size=64,
        steps_per_validation=20,
        recall_at=5,
        validation_sessions=40,
        max_steps=int(best.best_step[0]),
        row_optimizer=embedding.adagrad(0.3, rowwise=True),
        keep_best=False,
    )
    for ours, theirs in zip(jax.tree.leaves(best.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_padding_stays_zero_and_rows_of_unseen_items_do_not_change():
    model = models.create("fpmc", num_items=NUM_ITEMS + 9, dim=4)
    first = models.init_params(jax.random.key(7), model, length=5)
    before = jax.tree.map(np.array, first)
    fitted = training.fit_large(
        jax.random.key(0), model, TRAIN, VALIDATION, initial=first, batch_size=64, max_steps=5, keep_best=False
    )
    for name, table in fitted.params["params"].items():
        np.testing.assert_array_equal(table[0], np.zeros(4))
        np.testing.assert_array_equal(table[-9:], before["params"][name][-9:])
        assert not np.array_equal(table, before["params"][name])
        np.testing.assert_array_equal(first["params"][name], before["params"][name])


@pytest.mark.slow
def test_a_step_updates_in_place_and_needs_no_memory_of_the_catalogues_size():
    def memory(num_items):
        model = models.create("fpmc", num_items=num_items, dim=8)
        loss = objectives.SampledLoss(model, samplers.uniform(num_items), "bpr", num_negatives=2)
        stepper = lazy_rows.LazyRows(model, embedding.adam(0.1), optax.adam(0.1))
        program = interval.Interval(stepper, 32, 3, 5, 16)
        shapes = jax.eval_shape(lambda: models.init_params(jax.random.key(0), model, length=5))
        state = stepper.init(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes))
        data = jax.device_put(TrainingData(examples.last_item_examples(TRAIN), TRAIN, VALIDATION, loss))
        (changed, shape), (read, other) = jax.tree.flatten(state), jax.tree.flatten(data)

        def run(changed, read, key, step):
            state, data = shape.unflatten(changed), other.unflatten(read)
            return jax.tree.leaves(interval.take_steps(program, state, key, data, step))

        def validate(changed, read):
            return interval.validate(program, shape.unflatten(changed), other.unflatten(read).validation)

        lowered = jax.jit(run, donate_argnums=0).lower(changed, read, jax.random.key(0), jnp.int32(0))
        validation = jax.jit(validate).lower(changed, read).compile().memory_analysis()
        num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state.tables, state.slots)))
        return lowered.compile().memory_analysis(), validation, num_bytes

    (small, small_validation, _), (large, large_validation, num_bytes) = memory(50_000), memory(400_000)
    assert large.alias_size_in_bytes >= num_bytes
    assert large.temp_size_in_bytes < small.temp_size_in_bytes + 4096
    # Chunks of items are equally long, up to twice as long in one catalogue as in another.
    assert large_validation.temp_size_in_bytes < 2 * small_validation.temp_size_in_bytes < num_bytes / 100


def test_item_tables_are_those_that_grow_with_the_catalogue():
    assert set(lazy_rows.item_tables(models.create("stamp", num_items=4, dim=5))) == {
        "input_embedding",
        "output_embedding",
    }
    assert len(lazy_rows.item_tables(models.create("late", num_items=4, dim=5))) == 4


def test_losses_over_the_whole_catalogue_and_bad_options_are_refused():
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    refused = functools.partial(training.fit_large, jax.random.key(0), model, TRAIN, VALIDATION)
    with pytest.raises(ValueError, match="loss is FullSoftmax, which scores the whole catalogue"):
        refused(loss=objectives.FullSoftmax(model, chunk_size=8))
    with pytest.raises(ValueError, match="loss has 5 rows in log_frequency; expected 61"):
        refused(loss=objectives.InBatchSoftmax(model, np.zeros(5)))
    with pytest.raises(ValueError, match=r"loss is <function .*; expected an objective"):
        refused(loss=lambda params, batch: 0.0)
    with pytest.raises(ValueError, match="precision is 'float16'; expected 'float32' or 'tf32' or 'bfloat16'"):
        refused(precision="float16")
    with pytest.raises(ValueError, match="patience is 0"):
        refused(patience=0)


def test_a_loss_that_is_not_finite_raises_with_its_step():
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    with pytest.raises(FloatingPointError, match="the loss of seed 0 is not finite at step 2"):
        training.fit_large(
            jax.random.key(0),
            model,
            TRAIN,
            VALIDATION,
            row_optimizer=embedding.sgd(1e38),
            max_steps=4,
            batch_size=32,
        )
