"""Training: seeds trained together equal seeds alone, early stopping of each seed, best parameters, one compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import evaluation, models, objectives, training
from alkd_jax.training.examples import Examples
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions
from tests.helpers.interrupted_training import FIT_OPTIONS as OPTIONS


@pytest.fixture(scope="module")
def dataset():
    return cyclic_sessions(300, 0, 0), cyclic_sessions(90, 300, 1), models.create("fpmc", num_items=NUM_ITEMS, dim=6)


@pytest.fixture(scope="module")
def fitted(dataset):
    train, validation, model = dataset
    return training.fit(jax.random.key(0), model, train, validation, seeds=3, max_steps=60, patience=4, **OPTIONS)


def test_training_learns(dataset, fitted):
    _, validation, model = dataset
    untrained = jax.vmap(lambda k: models.init_params(k, model))(jax.random.split(jax.random.key(5), 3))
    before = evaluation.evaluate_seeds(model, untrained, validation)
    after = evaluation.evaluate_seeds(model, fitted.params, validation)
    for b, a in zip(before, after, strict=True):
        assert a.metrics["recall@5"] > b.metrics["recall@5"] + 0.2


@pytest.mark.parametrize("seed", [0, 2])
def test_a_seed_trained_with_others_equals_the_seed_alone(dataset, fitted, seed):
    train, validation, model = dataset
    alone = training.fit(jax.random.key(0), model, train, validation, seeds=[seed], max_steps=60, patience=4, **OPTIONS)
    for together, single in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(together[seed], single[0], atol=1e-6)
    assert alone.best_step[0] == fitted.best_step[seed]
    width = len(alone.history.step)
    np.testing.assert_allclose(fitted.history.recall[seed, :width], alone.history.recall[0], atol=1e-6)


def test_the_returned_parameters_are_those_of_the_best_validation(dataset, fitted):
    _, validation, model = dataset
    for seed, out in enumerate(evaluation.evaluate_seeds(model, fitted.params, validation, ks=(5,))):
        assert out.metrics["recall@5"] == pytest.approx(fitted.best_metric[seed], abs=1e-6)
        assert fitted.best_metric[seed] == pytest.approx(np.nanmax(fitted.history.recall[seed]), abs=1e-6)
        best = np.nanargmax(fitted.history.recall[seed])
        assert fitted.history.step[best] == fitted.best_step[seed]


def test_each_seed_stops_after_its_own_patience(fitted):
    for seed in range(3):
        recalls = fitted.history.recall[seed][~np.isnan(fitted.history.recall[seed])]
        patience_count = len(recalls) - 1 - int(np.argmax(recalls))
        assert patience_count == 4 or len(recalls) == len(fitted.history.step)
        assert patience_count <= 4


def test_validation_recall_does_not_depend_on_how_sessions_are_batched(dataset):
    train, validation, model = dataset
    options = OPTIONS | {"max_steps": 5}
    curves = [
        training.fit(
            jax.random.key(0), model, train, validation, **(options | {"validation_batch": size})
        ).history.recall
        for size in (7, 32, 90, 1000)
    ]
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], atol=1e-6)


def test_one_compilation_serves_all_intervals_and_a_second_run(dataset):
    train, validation, model = dataset
    traced = []
    inner = objectives.InBatchBPR(model)

    def loss(params, batch, key):
        traced.append(batch.target.shape)
        return inner(params, batch, key)

    optimizer = optax.adam(0.01)
    for run in range(2):
        training.fit(
            jax.random.key(run),
            model,
            train,
            validation,
            seeds=2,
            max_steps=20,
            loss=loss,
            optimizer=optimizer,
            **OPTIONS,
        )
    assert traced == [(64,), (64,)], "one trace for the gradient, one for the value"


def test_initial_parameters_are_the_first_best_ones_and_are_not_donated(dataset):
    train, validation, model = dataset
    initial = jax.vmap(lambda k: models.init_params(k, model))(jax.random.split(jax.random.key(5), 2))
    options = OPTIONS | {"learning_rate": 0.0}
    out = training.fit(
        jax.random.key(0), model, train, validation, seeds=2, initial=initial, max_steps=10, patience=1, **options
    )
    assert out.best_step.tolist() == [0, 0]
    for kept, given in zip(jax.tree.leaves(out.params), jax.tree.leaves(initial), strict=True):
        np.testing.assert_array_equal(kept, given)


def test_examples_of_weight_zero_change_nothing(dataset):
    train, validation, model = dataset
    real = Examples(jnp.arange(64), jnp.asarray(train.target[:64]), jnp.ones(64))
    filled = jax.tree.map(
        lambda a, filler: jnp.concatenate([a, filler]),
        real,
        Examples(jnp.zeros(64, jnp.int32), jnp.ones(64, jnp.int32), jnp.zeros(64)),
    )
    options = OPTIONS | {"batch_size": 128, "max_steps": 5}
    one = training.fit(jax.random.key(0), model, train, validation, examples=real, **options)
    two = training.fit(jax.random.key(0), model, train, validation, examples=filled, **options)
    np.testing.assert_allclose(one.history.loss, two.history.loss, rtol=1e-4)


def test_every_seed_may_have_examples_of_its_own(dataset):
    train, validation, model = dataset
    shared = Examples(jnp.arange(300), jnp.asarray(train.target), jnp.ones(300))
    other = shared.replace(target=shared.target[::-1])
    both = jax.tree.map(lambda *a: jnp.stack(a), shared, other)
    options = OPTIONS | {"max_steps": 10}
    out = training.fit(jax.random.key(0), model, train, validation, seeds=2, examples=both, **options)
    for seed, own in enumerate((shared, other)):
        alone = training.fit(jax.random.key(0), model, train, validation, seeds=[seed], examples=own, **options)
        np.testing.assert_allclose(out.history.loss[seed], alone.history.loss[0], rtol=1e-5)


def test_a_loss_that_is_not_finite_names_seed_and_step(dataset):
    train, validation, model = dataset
    options = OPTIONS | {"learning_rate": 1e38}
    with pytest.raises(FloatingPointError, match="seed 0 is not finite at step 2"):
        training.fit(jax.random.key(0), model, train, validation, max_steps=20, **options)


def test_progress_reports_every_validation(dataset):
    train, validation, model = dataset
    reports = []
    training.fit(jax.random.key(0), model, train, validation, max_steps=15, progress=reports.append, **OPTIONS)
    assert [p.step for p in reports] == [5, 10, 15]
    assert all(np.isfinite([p.loss, p.recall]).all() for p in reports)
    assert reports[-1].speed > 0


class Recorded:
    """A tracker that keeps its calls."""

    def __init__(self):
        self.steps, self.metrics, self.finished = [], [], 0

    def log(self, step, metrics):
        self.steps.append(step)
        self.metrics.append(metrics)

    def finish(self):
        self.finished += 1


def test_a_bar_and_trackers_see_every_validation_and_change_nothing(dataset, capsys):
    train, validation, model = dataset
    options = {"max_steps": 15, **OPTIONS}
    plain = training.fit(jax.random.key(0), model, train, validation, **options)
    first, second = Recorded(), Recorded()
    out = training.fit(jax.random.key(0), model, train, validation, progress=True, trackers=[first, second], **options)
    assert first.steps == second.steps == [5, 10, 15]
    np.testing.assert_array_equal([m["loss"] for m in first.metrics], out.history.loss[:, 1:].T)
    np.testing.assert_array_equal([m["recall"] for m in first.metrics], out.history.recall[:, 1:].T)
    assert np.isnan(first.metrics[0]["sessions_per_second"]), "the first interval includes compilation"
    assert first.metrics[-1]["sessions_per_second"] > 0
    assert first.finished == second.finished == 1
    jax.tree.map(np.testing.assert_array_equal, plain.params, out.params)
    assert "nan" not in capsys.readouterr().out


def test_trackers_are_finished_where_training_fails(dataset):
    train, validation, model = dataset
    tracker = Recorded()

    def stop(now):
        raise KeyboardInterrupt

    options = {"progress": stop, "trackers": [tracker], "max_steps": 15, **OPTIONS}
    with pytest.raises(KeyboardInterrupt):
        training.fit(jax.random.key(0), model, train, validation, **options)
    assert tracker.finished == 1


def empty(sessions):
    return jax.tree.map(lambda a: a[:0], sessions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, v: (empty(t), v), "train is empty"),
        (lambda t, v: (t, empty(v)), "validation is empty"),
        (lambda t, v: (t.replace(items=t.items + 40), v), "train items span 40..80; expected 0..40"),
        (lambda t, v: (t, v.replace(target=v.target - 1)), "validation targets span 0..39; expected 1..40"),
        (lambda t, v: (t.replace(mask=t.mask & False), v), "train session 0 is empty; expected at least one item"),
    ],
)
def test_bad_splits_are_refused(dataset, change, message):
    train, validation, model = dataset
    with pytest.raises(ValueError, match=message):
        training.fit(jax.random.key(0), model, *change(train, validation))


def test_bad_sizes_seeds_and_examples_are_refused(dataset):
    train, validation, model = dataset
    for field in ("batch_size", "max_steps", "steps_per_validation", "patience"):
        with pytest.raises(ValueError, match=f"{field} is 0"):
            training.fit(jax.random.key(0), model, train, validation, **{field: 0})
    with pytest.raises(ValueError, match="seeds is"):
        training.fit(jax.random.key(0), model, train, validation, seeds=[1, 1])
    bad = Examples(jnp.asarray([300]), jnp.asarray([1]), jnp.ones(1))
    with pytest.raises(ValueError, match=r"example sessions span 300\.\.300; expected 0\.\.299"):
        training.fit(jax.random.key(0), model, train, validation, examples=bad)
