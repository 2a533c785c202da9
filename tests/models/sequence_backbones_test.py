"""NARM, SR-GNN, CORE and GRU4Rec against references written from the papers, and what they have in common."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, objectives, training
from alkd_jax.models import srgnn
from tests.helpers import reference_encoders
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions
from tests.helpers.random_models import random_model

KINDS = {
    "narm": ("narm", {}),
    "narm, reset after": ("narm", {"reset": "after", "state_factor": 1}),
    "srgnn": ("srgnn", {}),
    "srgnn, binary": ("srgnn", {"edges": "binary", "reset": "after", "steps": 2}),
    "core": ("core", {"inner_dim": 12}),
    "core, ave": ("core", {"variant": "ave"}),
    "core, no dropout": ("core", {"item_dropout": 0.0, "dropout": 0.0}),
    "gru4rec": ("gru4rec", {}),
    "gru4rec, separate": ("gru4rec", {"embedding": "separate", "layers": 2}),
    "gru4rec, no embedding": ("gru4rec", {"embedding": "none"}),
}
SESSIONS = [[3, 4, 9], [7], [5, 6, 5, 6, 5], [1, 1, 2, 30, 1, 2, 8]]


def made(kind, *, num_items=30, dim=6):
    return random_model(*KINDS[kind], num_items=num_items, dim=dim)


def in_float64(params):
    return {name: np.asarray(leaf, np.float64) for name, leaf in params["params"].items()}


def rows(sessions, length, *, left=False):
    """Items and mask of sessions, the padding after or before them."""
    items = np.zeros((len(sessions), length), np.int32)
    for row, session in zip(items, sessions, strict=True):
        row[slice(length - len(session), None) if left else slice(len(session))] = session
    return jnp.asarray(items), jnp.asarray(items > 0)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_vectors_and_table_are_those_of_the_paper(kind):
    (name, options), (model, params) = KINDS[kind], made(kind)
    p = in_float64(params)
    found = jax.jit(model.apply)(params, *rows(SESSIONS, 8))
    expected = [reference_encoders.ENCODERS[name](p, session, **options) for session in SESSIONS]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    table = model.apply(params, method="item_embeddings")
    np.testing.assert_allclose(table[1:], reference_encoders.TABLES[name](p, **options)[1:], rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_reference(kind):
    (name, options), (model, params) = KINDS[kind], made(kind)
    size = model.apply(params, method="item_embeddings").shape[1]
    weight = np.random.default_rng(1).normal(size=(len(SESSIONS), size))
    gradient = jax.jit(jax.grad(lambda p: (model.apply(p, *rows(SESSIONS, 8)) * weight).sum()))(params)["params"]

    def value(p):
        return sum(
            reference_encoders.ENCODERS[name](p, session, **options) @ row
            for session, row in zip(SESSIONS, weight, strict=True)
        )

    p, rng = in_float64(params), np.random.default_rng(2)
    for leaf, values in p.items():
        direction = rng.normal(size=values.shape)
        ahead, behind = (value(p | {leaf: values + sign * 1e-6 * direction}) for sign in (1, -1))
        expected = (ahead - behind) / 2e-6
        found = (np.asarray(gradient[leaf], np.float64) * direction).sum()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=leaf)


def test_an_empty_session_has_a_finite_vector_and_gradient(kind):
    model, params = made(kind)
    items = jnp.zeros((1, 4), jnp.int32)
    found, gradient = jax.jit(jax.value_and_grad(lambda p: model.apply(p, items, items > 0).sum()))(params)
    for leaf in (found, *jax.tree.leaves(gradient)):
        assert np.isfinite(leaf).all()


def test_vectors_depend_neither_on_the_width_nor_on_the_side_of_the_padding(kind):
    model, params = made(kind)
    expected = jax.jit(model.apply)(params, *rows(SESSIONS, 8))
    for length, left in ((8, True), (11, True), (11, False)):
        found = jax.jit(model.apply)(params, *rows(SESSIONS, length, left=left))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["narm", "core"])
def test_dropout_is_on_only_in_training(kind):
    model, params = made(kind)

    @functools.partial(jax.jit, static_argnames="train")
    def encode(seed, train=True):
        return model.apply(params, *rows(SESSIONS, 8), train=train, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(encode(0), encode(0))
    assert (encode(0) != encode(1)).any()
    np.testing.assert_array_equal(encode(0, train=False), encode(1, train=False))


@pytest.mark.slow
def test_the_table_of_core_has_dropout_in_training_alone():
    model, params = made("core, ave")
    loss = objectives.FullSoftmax(model)
    tables = [np.asarray(loss.item_embeddings(params, jax.random.key(seed)))[1:] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert (tables[0] != tables[2]).any()
    np.testing.assert_allclose(np.linalg.norm(tables[0], axis=1), 1.0, rtol=1e-5)
    assert 0.05 < (tables[0] == 0).mean() < 0.4
    plain = np.asarray(model.apply(params, method="item_embeddings"))
    assert (plain[1:] != 0).all()
    without = objectives.FullSoftmax(model.clone(item_dropout=0.0))
    np.testing.assert_array_equal(without.item_embeddings(params, jax.random.key(0)), plain)


@pytest.mark.parametrize(
    "kind", ["srgnn", "gru4rec", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("narm", "core, no dropout"))]
)
def test_training_learns_what_follows_what(kind):
    name, options = KINDS[kind]
    model = models.create(name, num_items=NUM_ITEMS, dim=16, **options)
    train, validation = cyclic_sessions(400, 0, 0), cyclic_sessions(100, 400, 1)
    fitted = training.fit(
        jax.random.key(0),
        model,
        train,
        validation,
        loss=objectives.FullSoftmax(model),
        learning_rate=0.01,
        batch_size=100,
        max_steps=240,
        steps_per_validation=40,
        recall_at=3,
    )
    losses = fitted.history.loss[0]
    assert losses[-1] < 0.7 * losses[1]
    # A random list of three of forty items has a recall of 0.075.
    assert fitted.best_metric[0] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["narm", "gru4rec"])
def test_training_over_all_positions_learns_what_follows_what(kind):
    name, options = KINDS[kind]
    model = models.create(name, num_items=NUM_ITEMS, dim=16, **options)
    train, validation = cyclic_sessions(400, 0, 0), cyclic_sessions(100, 400, 1)
    options = {"targets": "positions", "learning_rate": 0.01, "batch_size": 100}
    options |= {"max_steps": 160, "steps_per_validation": 40, "recall_at": 3}
    fitted = training.fit(jax.random.key(0), model, train, validation, **options)
    assert fitted.history.loss[0, -1] < 0.5 * fitted.history.loss[0, 1]
    assert fitted.best_metric[0] > 0.9


@pytest.mark.parametrize("kind", ["narm", "core", "core, ave", "gru4rec", "gru4rec, separate"])
def test_one_pass_gives_the_vectors_of_all_prefixes(kind):
    model, params = made(kind)
    found = jax.jit(functools.partial(model.apply, method="encode_positions"))(params, *rows(SESSIONS, 8))
    for place in range(3):
        known = [session[: place + 1] for session in SESSIONS]
        expected = jax.jit(model.apply)(params, *rows(known, 8))
        for row, session in enumerate(SESSIONS):
            if place < len(session):
                np.testing.assert_allclose(found[row, place], expected[row], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["gru4rec", "gru4rec, separate", "gru4rec, no embedding"])
def test_reading_item_by_item_gives_the_vector_of_the_session(kind):
    model, params = made(kind)
    session = SESSIONS[-1]
    state = model.apply(params, 1, method="initial_state")
    for item in session:
        found, state = model.apply(params, jnp.array([item]), state, method="step")
    np.testing.assert_allclose(found, model.apply(params, *rows([session], 8)), rtol=1e-5, atol=1e-6)


def test_a_session_graph_weights_edges_as_computed_by_hand():
    # Edges 5 → 6 (twice), 6 → 5, 6 → 7; positions 1 and 3, and 0 and 2, stand for the same item.
    items, mask = rows([[5, 6, 5, 6, 7]], 6)
    incoming, outgoing = srgnn.session_graph(items, mask)
    # 6 comes from 5 only, by both edges; 5 goes to 6 only; 6 goes to 5 and 7 alike.
    np.testing.assert_allclose(incoming[0, 1], [1 / 2, 0, 1 / 2, 0, 0, 0])
    np.testing.assert_allclose(outgoing[0, 0], [0, 1 / 2, 0, 1 / 2, 0, 0])
    np.testing.assert_allclose(outgoing[0, 3], [0, 0, 1 / 2, 0, 1 / 2, 0])
    assert not incoming[0, 5].any()
    assert not outgoing[0, 4].any()
    # 1 → 2 (twice), 1 → 3: counted twice of three, or once of two.
    items, mask = rows([[1, 2, 1, 2, 1, 3]], 6)
    graphs = (srgnn.session_graph(items, mask, edges=edges) for edges in ("counted", "binary"))
    counted, binary = (np.asarray(outgoing)[0, 0] for _, outgoing in graphs)
    np.testing.assert_allclose([counted[[1, 3]].sum(), counted[5]], [2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose([binary[[1, 3]].sum(), binary[5]], [1 / 2, 1 / 2], rtol=1e-6)
