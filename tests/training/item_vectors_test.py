"""Training with the items' vectors: folded tables give the same scores, and items that were never trained get some."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alkd_jax as alkd
from alkd_jax import models, objectives, training
from alkd_jax.models.vector_tables import VECTORS, VectorTables, vector_tables
from alkd_jax.training.item_vectors import ItemVectors, fit_with_vectors

NUM_ITEMS, COLD = 40, (38, 39, 40)
DATASET = alkd.data.synthetic(num_items=37, num_sessions=150)


def vectors(width=12):
    found = np.random.default_rng(0).normal(size=(NUM_ITEMS + 1, width)).astype(np.float32)
    found[0] = 0
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def channel(name, **options):
    counts = alkd.baselines.count(DATASET.train_sequences, NUM_ITEMS)
    return ItemVectors(vectors(), name, co_occurrence=counts.co_occurrence, **options)


def fitted(name, backbone="fpmc", **options):
    model = models.create(backbone, num_items=NUM_ITEMS, dim=6)
    options = {"seeds": 2, "max_steps": 20, "batch_size": 64, "learning_rate": 0.01, "keep_best": False} | options
    splits = (DATASET.train, DATASET.validation)
    return model, fit_with_vectors(
        training.fit, jax.random.key(0), model, channel(name), *splits, make_loss=objectives.InBatchBPR, **options
    )


@pytest.mark.parametrize(
    "name", ["pca", *(pytest.param(name, marks=pytest.mark.slow) for name in ("whitened", "alphafuse"))]
)
def test_cold_items_get_finite_and_different_scores(name):
    model, result = fitted(name)
    params = jax.tree.map(lambda leaf: leaf[0], result.params)
    assert params["params"].keys() == models.init_params(jax.random.key(0), model)["params"].keys()
    models.check_params(model, params)
    table = np.asarray(model.apply(params, method="item_embeddings"))
    assert not table[0].any()
    users = model.apply(params, jnp.asarray(DATASET.test.items), jnp.asarray(DATASET.test.mask))
    scores = np.asarray(users) @ table[list(COLD)].T
    assert np.isfinite(scores).all()
    assert (np.ptp(scores, axis=1) > 1e-4).mean() > 0.9
    assert not np.array_equal(*np.asarray(result.params["params"]["output_embedding"])), "seeds differ"


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("fpmc", "projection"),
        ("stamp", "whitened"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("fpmc", "alphafuse"), ("sasrec", "alphafuse"))),
    ],
)
def test_folded_and_unfolded_scores_agree(backbone, name):
    model = models.create(backbone, num_items=NUM_ITEMS, dim=6)
    source = channel(name)
    wrapped = source.wrapped(model)
    assert isinstance(wrapped, VectorTables)
    assert isinstance(wrapped, models.CausalEncoder) == isinstance(model, models.CausalEncoder)
    initial = source.initial(jax.random.key(1), model, 1, length=10)
    params = jax.tree.map(lambda leaf: leaf[0] + 0.1, initial)
    items, mask = jnp.asarray(DATASET.test.items), jnp.asarray(DATASET.test.mask)

    def scores(encoder, params):
        return encoder.apply(params, items, mask) @ encoder.apply(params, method="item_embeddings").T

    np.testing.assert_allclose(scores(wrapped, params), scores(model, wrapped.fold(params)), atol=1e-5)


def test_a_projection_is_that_of_an_independent_reference():
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=6)
    wrapped = vector_tables(model, 12)
    rng = np.random.default_rng(2)
    weights = {
        f"{name}_embedding{part}": rng.normal(size=shape).astype(np.float32)
        for name in ("input", "output")
        for part, shape in (("_projection", (12, 6)), ("_shift", (6,)))
    }
    folded = wrapped.fold(jax.tree.map(jnp.asarray, {"params": weights | {VECTORS: vectors()}}))["params"]
    for name in ("input_embedding", "output_embedding"):
        z = vectors().astype(np.float64)
        expected = z @ weights[f"{name}_projection"].astype(np.float64) + weights[f"{name}_shift"]
        expected[0] = 0
        np.testing.assert_allclose(folded[name], expected, atol=1e-5)


def test_the_first_entries_of_alphafuse_stay_as_they_are():
    _, result = fitted("alphafuse")
    components = channel("alphafuse").components(6)
    table = np.asarray(result.params["params"]["output_embedding"])
    np.testing.assert_array_equal(table[0, :, :3], components[:, :3])
    assert not np.allclose(table[0, :, 3:], components[:, 3:])
    np.testing.assert_array_equal(table[:, list(COLD)], np.stack([components[list(COLD)]] * 2))


def test_initial_tables_have_the_asked_scale_and_other_parameters_are_those_without_vectors():
    model = models.create("stamp", num_items=NUM_ITEMS, dim=6)
    found = channel("pca", scale=0.3).initial(jax.random.key(0), model, 2, length=10)["params"]
    table = np.asarray(found["input_embedding"])
    assert np.sqrt((table[0, 1:] ** 2).mean()) == pytest.approx(0.3, rel=1e-4)
    # An optimizer that does nothing returns the initial parameters.
    options = {"seeds": 2, "max_steps": 20, "optimizer": optax.set_to_zero()}
    plain = training.fit(jax.random.key(0), model, DATASET.train, DATASET.validation, **options)
    kernel = plain.params["params"]["attention_item_kernel"]
    np.testing.assert_allclose(found["attention_item_kernel"], kernel, atol=1e-7)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="channel is 'other'"):
        ItemVectors(vectors(), "other")
    with pytest.raises(ValueError, match="co_occurrence is None"):
        ItemVectors(vectors(), "graph_pca")
    with pytest.raises(ValueError, match="scale is 0"):
        ItemVectors(vectors(), "pca", scale=0.0)
    model = models.create("fpmc", num_items=NUM_ITEMS + 1, dim=6)
    with pytest.raises(ValueError, match="vectors have 41 rows; expected 42"):
        channel("projection").wrapped(model)
    with pytest.raises(ValueError, match="num_learned is 7; expected from 1 to 6"):
        channel("alphafuse", num_learned=7).wrapped(models.create("fpmc", num_items=NUM_ITEMS, dim=6))
