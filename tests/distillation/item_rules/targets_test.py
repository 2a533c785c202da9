"""A student taught item by item repeats the rules it was taught, in the proportions it was taught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_array

from alkd_jax import baselines, models, objectives, scoring
from alkd_jax.distillation.item_rules import rules, targets
from alkd_jax.types import Batch, Sequences, Sessions
from tests.helpers.compilations import compilations

NUM_ITEMS = 24


@pytest.fixture(scope="module")
def ring() -> csr_array:
    """Item v speaks for the two that come after it on a ring, odd items with twice the mass of even ones."""
    item = np.arange(1, NUM_ITEMS + 1)
    mass = np.where(item % 2, 2.0, 1.0)
    following = [1 + (item - 1 + step) % NUM_ITEMS for step in (1, 2)]
    weight = np.concatenate([0.7 * mass, 0.3 * mass])
    return csr_array((weight, (np.tile(item, 2), np.concatenate(following))), shape=(NUM_ITEMS + 1,) * 2)


@pytest.fixture(scope="module")
def validation() -> Sessions:
    items = np.arange(1, NUM_ITEMS + 1, dtype=np.int32)[:, None]
    return Sessions(items, np.ones_like(items, bool), 1 + items[:, 0] % NUM_ITEMS, items[:, 0])


@pytest.mark.parametrize("shared", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_student_reproduces_the_rules(ring, validation, shared):
    model = models.create("late", num_items=NUM_ITEMS, dim=6, shared=shared, recency=0.5)
    rule_targets = rules.rule_targets(ring, k=4, power=1.0)
    options = dict(damping=0.5, seeds=2, recall_at=1, max_steps=400, steps_per_validation=400)
    out = targets.fit_rule_targets(jax.random.key(0), model, rule_targets, validation, **options)
    assert (out.best_metric == 1).all()
    params = jax.tree.map(lambda leaf: leaf[0], out.params)
    items = jnp.asarray(rule_targets.items)[:, None]
    vectors, table = model.apply(params, items, items > 0), model.apply(params, method="item_embeddings")
    measure = np.exp(np.asarray(scoring.scores(vectors, table))[:, 1:])
    np.testing.assert_allclose(measure.sum(1), rule_targets.mass**0.5, rtol=0.2)
    share = measure / measure.sum(1, keepdims=True)
    np.testing.assert_allclose(share[np.arange(NUM_ITEMS), rule_targets.list_items[:, 0] - 1], 0.7, atol=0.05)


def test_the_loss_equals_its_definition():
    model = models.create("late", num_items=5, dim=2)
    params = models.init_params(jax.random.key(0), model)
    params_of_model = {name: leaf + 0.5 for name, leaf in params["params"].items()}
    items = jnp.array([[2], [4]])
    batch = Batch(
        items=items,
        mask=items > 0,
        session=jnp.arange(2),
        target=jnp.array([1, 1]),
        weight=jnp.array([1.0, 3.0]),
        row=jnp.arange(2),
    )
    list_items, list_gain = jnp.array([[3, 1], [5, 0]]), jnp.array([[0.75, 0.25], [1.0, 0.0]])
    item_scores = (
        np.asarray(params_of_model["input_embedding"])[[2, 4]] @ np.asarray(params_of_model["output_embedding"])[1:].T
        + 1.0
    )
    log_z = np.log(np.exp(item_scores).sum(1))
    cross_entropy = log_z - np.array([0.75 * item_scores[0, 2] + 0.25 * item_scores[0, 0], item_scores[1, 4]])
    expected = np.average(cross_entropy + (log_z - [0.3, -1.0]) ** 2, weights=[1, 3])
    loss = objectives.SelfNormalizedSoftmax(model, list_items, list_gain, jnp.array([0.3, -1.0]))
    actual, gradient = jax.value_and_grad(loss)({"params": params_of_model}, batch, jax.random.key(1))
    assert float(actual) == pytest.approx(expected, rel=1e-5)
    # The mass is the input bias's business alone: another mass leaves every other gradient as it was.
    other = loss.replace(log_mass=jnp.array([3.0, 2.0]))
    changed = jax.grad(other)({"params": params_of_model}, batch, jax.random.key(1))
    for name, leaf in gradient["params"].items():
        same = np.allclose(leaf, changed["params"][name], atol=1e-6)
        assert same == (name != "input_bias"), name


def test_smoothing_gives_every_item_a_share():
    model = models.create("late", num_items=5, dim=2)
    params = models.init_params(jax.random.key(0), model)
    items = jnp.array([[2]])
    batch = Batch(
        items=items,
        mask=items > 0,
        session=jnp.arange(1),
        target=jnp.array([1]),
        weight=jnp.ones(1),
        row=jnp.arange(1),
    )
    lists = jnp.array([[3]]), jnp.ones((1, 1)), jnp.zeros(1)
    params_of_model = params["params"]
    item_scores = (
        np.asarray(params_of_model["input_embedding"])[2] @ np.asarray(params_of_model["output_embedding"])[1:].T
    )
    plain, smooth = (
        float(objectives.SelfNormalizedSoftmax(model, *lists, smoothing=share)(params, batch, jax.random.key(1)))
        for share in (0.0, 0.3)
    )
    assert smooth - plain == pytest.approx(0.3 * (item_scores[2] - item_scores.mean()), rel=1e-4)
    with pytest.raises(ValueError, match="smoothing is 1"):
        objectives.SelfNormalizedSoftmax(model, *lists, smoothing=1.0)


def test_rows_keep_their_norm_and_frozen_parameters_their_values(ring, validation):
    model = models.create("late", num_items=NUM_ITEMS, dim=6, shared=True, recency=0.5)
    rule_targets = rules.rule_targets(ring, k=4, power=1.0)
    steps = dict(max_steps=200, steps_per_validation=200, recall_at=1)
    out = targets.fit_rule_targets(
        jax.random.key(0), model, rule_targets, validation, length=1.5, frozen=["input_bias", "output_bias"], **steps
    )
    params_of_model = jax.tree.map(lambda leaf: np.asarray(leaf[0]), out.params)["params"]
    for name in ("input_embedding", "output_embedding"):
        np.testing.assert_allclose(np.linalg.norm(params_of_model[name][1:], axis=1), 1.5, rtol=1e-4)
        assert not params_of_model[name][0].any()
    assert not params_of_model["output_bias"].any()
    np.testing.assert_allclose(params_of_model["input_bias"], -np.log(NUM_ITEMS), rtol=1e-6)
    assert out.best_metric[0] > 0.9


def test_training_on_other_rules_compiles_nothing(ring, validation):
    model = models.create("late", num_items=NUM_ITEMS, dim=3)
    one, two = (rules.rule_targets(graph, k=4) for graph in (ring, ring.T.tocsr()))
    first = targets.fit_rule_targets(jax.random.key(0), model, one, validation, max_steps=2)
    with compilations() as compiled:
        second = targets.fit_rule_targets(jax.random.key(0), model, two, validation, max_steps=2)
    assert not compiled
    assert (first.history.loss[:, 1:] != second.history.loss[:, 1:]).all()


def test_impossible_damping_is_refused(ring, validation):
    model = models.create("late", num_items=NUM_ITEMS, dim=2)
    with pytest.raises(ValueError, match="damping is 2"):
        targets.fit_rule_targets(jax.random.key(0), model, rules.rule_targets(ring), validation, damping=2.0)


def test_a_student_trains_on_rules_of_counts(validation):
    sequences = Sequences(np.arange(1, NUM_ITEMS + 1, dtype=np.int32), np.arange(0, NUM_ITEMS + 1, 6))
    counted = rules.cooccurrence_rules(baselines.count(sequences, NUM_ITEMS))
    model = models.create("late", num_items=NUM_ITEMS, dim=3)
    out = targets.fit_rule_targets(jax.random.key(0), model, rules.rule_targets(counted), validation, max_steps=20)
    assert np.isfinite(out.history.loss[:, 1:]).all()


@pytest.mark.parametrize(
    ("options", "message"), [({"length": 0.0}, "length is 0"), ({"frozen": ["bias"]}, "frozen has")]
)
def test_impossible_options_are_refused(ring, validation, options, message):
    model = models.create("late", num_items=NUM_ITEMS, dim=2)
    with pytest.raises(ValueError, match=message):
        targets.fit_rule_targets(jax.random.key(0), model, rules.rule_targets(ring), validation, **options)
