"""Every backbone and objective with parameters in bfloat16, as training in that precision reads them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, objectives, samplers
from alkd_jax.types import Batch

NUM_ITEMS, NUM_ROWS = 40, 24

LISTS = jnp.asarray(np.random.default_rng(0).integers(0, NUM_ITEMS + 1, (NUM_ROWS, 6)), jnp.int32)
GAIN = jnp.asarray(np.random.default_rng(1).random((NUM_ROWS, 6)), jnp.float32)

BACKBONES = {
    "fpmc": ("fpmc", {}),
    "stamp": ("stamp", {}),
    "original stamp": ("stamp", {"variant": "original"}),
    "attmix": ("attmix", {"levels": 3}),
    "late": ("late", {}),
    "shared late": ("late", {"shared": True, "recency": 0.8}),
}

SEQUENCE_BACKBONES = {
    "gru4rec": ("gru4rec", {}),
    "narm": ("narm", {}),
    "srgnn": ("srgnn", {}),
    "core": ("core", {"inner_dim": 12}),
    "sasrec": ("sasrec", {}),
    "esasrec": ("esasrec", {}),
    "hstu": ("hstu", {"temperature": 0.2}),
}
"""Those that read a session item by item or all items together."""

OBJECTIVES = {
    "in-batch BPR": lambda model: objectives.InBatchBPR(model),
    "released BPR": lambda model: objectives.InBatchBPR(model, released=True),
    "in-batch softmax": lambda model: objectives.InBatchSoftmax(model, jnp.zeros(NUM_ITEMS + 1)),
    "sampled BPR": lambda model: objectives.SampledLoss(model, samplers.uniform(NUM_ITEMS), "bpr", num_negatives=5),
    "sampled BCE": lambda model: objectives.SampledLoss(model, samplers.uniform(NUM_ITEMS), "bce", num_negatives=5),
    "sampled softmax": lambda model: objectives.SampledLoss(
        model, samplers.uniform(NUM_ITEMS), "softmax", num_negatives=5
    ),
    "listwise": lambda model: objectives.ListwiseSoftmax(model, LISTS, GAIN),
    "full softmax": lambda model: objectives.FullSoftmax(model),
    "full softmax in chunks": lambda model: objectives.FullSoftmax(model, chunk_size=7),
    "distilled": lambda model: objectives.DistilledSoftmax(model, LISTS, GAIN, share=0.5),
}


def make_batch():
    rng = np.random.default_rng(2)
    mask = np.arange(6) < rng.integers(1, 7, NUM_ROWS)[:, None]
    rows = jnp.arange(NUM_ROWS)
    return Batch(
        items=jnp.asarray(np.where(mask, rng.integers(1, NUM_ITEMS + 1, mask.shape), 0), jnp.int32),
        mask=jnp.asarray(mask),
        session=rows // 2,
        target=jnp.asarray(rng.integers(1, NUM_ITEMS + 1, NUM_ROWS), jnp.int32),
        weight=jnp.ones(NUM_ROWS),
        row=rows,
    )


def model_and_params(backbone):
    """A backbone with parameters in bfloat16, larger than initial ones, so that scores differ."""
    name, options = (BACKBONES | SEQUENCE_BACKBONES)[backbone]
    model = models.create(name, num_items=NUM_ITEMS, dim=8, **options)
    params = models.init_params(jax.random.key(0), model)
    # Scales and biases, which begin with equal values, stay.
    grown = jax.tree.map(lambda leaf: 0.4 * leaf / (leaf.std() + 1e-3) if leaf.std() > 0 else leaf, params)
    return model, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), grown)


def assert_near_float32(loss, *trees):
    """Compares value and gradient with those in float32, where parameters have the same, rounded values."""
    value, gradient = jax.value_and_grad(loss, argnums=range(len(trees)))(*trees)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), trees)
    expected, wanted = jax.value_and_grad(loss, argnums=range(len(trees)))(*wide)
    assert value.dtype == jnp.float32, "a loss is summed up in float32"
    assert jax.tree.map(lambda leaf: leaf.dtype, gradient) == jax.tree.map(lambda leaf: leaf.dtype, trees)
    assert float(value) == pytest.approx(float(expected), rel=0.02)
    found, wanted = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)], dtype=np.float32)
        for tree in (gradient, wanted)
    )
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


FAST = {("fpmc", objective) for objective in OBJECTIVES} | {("late", "in-batch BPR"), ("shared late", "in-batch BPR")}
"""Backbones and objectives whose gradients are quick to compile."""


@pytest.mark.parametrize(
    ("backbone", "objective"),
    [
        pytest.param(*pair, marks=[pytest.mark.slow] * (pair not in FAST))
        for pair in itertools.product(BACKBONES, OBJECTIVES)
    ],
)
def test_loss_and_gradient_with_parameters_in_bfloat16_are_near_those_in_float32(backbone, objective, key):
    (model, params), batch = model_and_params(backbone), make_batch()
    loss = OBJECTIVES[objective](model)
    assert_near_float32(lambda params: loss(params, batch, key), params)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", SEQUENCE_BACKBONES)
def test_sequence_backbones_with_parameters_in_bfloat16_are_near_those_in_float32(backbone, key):
    (model, params), batch = model_and_params(backbone), make_batch()
    loss = objectives.FullSoftmax(model)
    assert_near_float32(lambda params: loss(params, batch, key), params)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_self_normalized_softmax_with_parameters_in_bfloat16_is_near_that_in_float32(smoothing, key):
    (model, params), batch = model_and_params("late"), make_batch()
    batch = batch.replace(items=batch.items[:, :1], mask=batch.mask[:, :1])
    loss = objectives.SelfNormalizedSoftmax(
        model, LISTS, GAIN / GAIN.sum(1, keepdims=True), jnp.ones(NUM_ROWS), smoothing=smoothing
    )
    assert_near_float32(lambda params: loss(params, batch, key), params)


@pytest.mark.parametrize(
    "backbone", ["fpmc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("stamp", "attmix"))]
)
def test_a_loss_from_rows_in_bfloat16_is_near_that_in_float32(backbone, key):
    (model, params), batch = model_and_params(backbone), make_batch()
    loss = objectives.InBatchBPR(model)
    rows = {name: params["params"][name][ids] for name, ids in loss.table_ids(batch).items()}
    assert_near_float32(lambda params, rows: loss.loss_from_rows(params, rows, batch, key), params, rows)
