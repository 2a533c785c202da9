"""Losses of lists: closed forms in float64, orders, and what does not count."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import losses, objectives
from alkd_jax.training.examples import last_item_examples
from alkd_jax.training.list_examples import list_examples

LOSSES = {
    "ranknet": jax.jit(losses.ranknet),
    "lambdarank": jax.jit(functools.partial(losses.ranknet, top_heavy=True)),
    "listnet": jax.jit(losses.listnet, static_argnames=["temperature"]),
    "approx_rank_mse": jax.jit(losses.approx_rank_mse, static_argnames=["temperature"]),
    "plackett_luce": jax.jit(losses.plackett_luce),
}


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def ranknet(scores, *, top_heavy=False):
    pairs = list(itertools.combinations(range(len(scores)), 2))
    discount = [1 / math.log2(i + 2) for i in range(len(scores))]
    weights = [abs(discount[i] - discount[j]) if top_heavy else 1.0 for i, j in pairs]
    return sum(w * softplus(scores[j] - scores[i]) for w, (i, j) in zip(weights, pairs, strict=True)) / len(pairs)


def listnet(scores, temperature=1.0):
    label = np.exp(-np.arange(1, len(scores) + 1) / temperature)
    label, student = label / label.sum(), np.exp(scores) / np.exp(scores).sum()
    return float((label * np.log(label / student)).sum())


def approx_rank_mse(scores, temperature=1.0):
    total = 0.0
    for i, own in enumerate(scores):
        others = (other for j, other in enumerate(scores) if j != i)
        rank = 1 + sum(1 / (1 + math.exp(-(other - own) / temperature)) for other in others)
        total += (rank - (i + 1)) ** 2 / math.log2(2 + i)
    return total / len(scores)


def plackett_luce(scores, rest=0.0):
    return -sum(s - math.log(sum(math.exp(t) for t in scores[i:]) + rest) for i, s in enumerate(scores))


CLOSED_FORMS = {
    "ranknet": ranknet,
    "lambdarank": lambda scores: ranknet(scores, top_heavy=True),
    "listnet": listnet,
    "approx_rank_mse": approx_rank_mse,
    "plackett_luce": plackett_luce,
}
SCORES = np.random.default_rng(0).normal(size=(3, 6)) * 2


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_its_closed_form(name):
    expected = np.mean([CLOSED_FORMS[name](row) for row in SCORES])
    assert float(LOSSES[name](jnp.asarray(SCORES))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["listnet", "approx_rank_mse"])
def test_the_temperature_is_that_of_the_closed_form_and_must_be_positive(name):
    expected = np.mean([CLOSED_FORMS[name](row, 0.3) for row in SCORES])
    assert float(LOSSES[name](jnp.asarray(SCORES), temperature=0.3)) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match=r"temperature is 0\.0; expected a positive number"):
        LOSSES[name](jnp.asarray(SCORES), temperature=0.0)


@pytest.mark.parametrize("name", LOSSES)
def test_places_without_an_item_change_nothing(name):
    scores, where = jnp.asarray(SCORES), jnp.arange(6)[None] < jnp.array([6, 4, 2])[:, None]
    rows = [LOSSES[name](scores[b : b + 1, :n]) for b, n in enumerate((6, 4, 2))]
    assert float(LOSSES[name](scores, where=where)) == pytest.approx(float(sum(rows)) / 3, rel=1e-5)
    holed = jnp.insert(scores, 2, 7.0, axis=1), jnp.insert(jnp.ones((3, 6), bool), 2, False, axis=1)
    if name != "lambdarank":
        assert float(LOSSES[name](holed[0], where=holed[1])) == pytest.approx(float(LOSSES[name](scores)), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_rows_count_by_their_weight_and_rows_without_items_do_not(name):
    scores, weight = jnp.asarray(SCORES), jnp.array([1.0, 3.0, 0.0])
    first, second = (float(LOSSES[name](scores[b : b + 1])) for b in range(2))
    assert float(LOSSES[name](scores, weight=weight)) == pytest.approx((first + 3 * second) / 4, rel=1e-5)
    where = jnp.array([True, False, False])[:, None] & jnp.ones((3, 6), bool)
    value, gradient = jax.value_and_grad(lambda s: LOSSES[name](s, where=where))(scores)
    assert float(value) == pytest.approx(first, rel=1e-5)
    assert not np.asarray(gradient)[1:].any()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_depends_on_differences_and_its_gradient_is_that_of_finite_differences(name):
    # In float64 the step may be small.
    with jax.enable_x64():
        scores = jnp.asarray(SCORES)
        loss = LOSSES[name]
        assert float(loss(scores + 5.0)) == pytest.approx(float(loss(scores)), rel=1e-9)
        gradient = jax.grad(loss)(scores)
        for place in (0, 3, 5):
            step = jnp.zeros_like(scores).at[1, place].set(1e-5)
            difference = (loss(scores + step) - loss(scores - step)) / 2e-5
            assert float(gradient[1, place]) == pytest.approx(float(difference), abs=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_the_teachers_order_has_a_lower_loss_than_any_other_order(name):
    values = np.array([3.0, 2.0, 1.0, 0.0])
    options = {"temperature": 0.05} if name == "approx_rank_mse" else {}
    found = {
        order: float(LOSSES[name](jnp.asarray([values[list(order)]]), **options))
        for order in itertools.permutations(range(4))
    }
    assert min(found, key=found.get) == (0, 1, 2, 3)


def test_smooth_ranks_become_ranks():
    assert float(losses.approx_rank_mse(jnp.array([[4.0, 3.0, 1.0]]), temperature=0.01)) == pytest.approx(0, abs=1e-6)
    # Both items one place from their own: (1/log₂2 + 1/log₂3) / 2.
    expected = (1 + 1 / math.log2(3)) / 2
    swapped = losses.approx_rank_mse(jnp.array([[0.0, 1.0]]), temperature=0.01)
    assert float(swapped) == pytest.approx(expected, rel=1e-5)


def test_likelihoods_of_all_orders_sum_to_one():
    scores = np.array([1.3, -0.4, 0.2, 2.0])
    likelihood = [
        math.exp(-float(losses.plackett_luce(jnp.asarray([scores[list(order)]]))))
        for order in itertools.permutations(range(4))
    ]
    assert sum(likelihood) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_likelihoods_of_all_beginnings_of_an_order_sum_to_one(chunk_size):
    rng = np.random.default_rng(1)
    vectors, table = (
        jnp.asarray(rng.normal(size=(1, 4)), jnp.float32),
        jnp.asarray(rng.normal(size=(8, 4)), jnp.float32),
    )
    listed = jnp.asarray(list(itertools.permutations(range(1, 8), 2)), jnp.int32)
    rows = jnp.broadcast_to(vectors, (len(listed), 4))
    scores = jnp.take_along_axis(rows @ table.T, listed, axis=1)
    rest = losses.log_rest(rows, table, listed, chunk_size)
    each = [float(losses.plackett_luce(scores[i : i + 1], log_rest=rest[i : i + 1])) for i in range(len(listed))]
    assert sum(math.exp(-value) for value in each) == pytest.approx(1, rel=1e-5)


def test_the_rest_is_exact_where_the_list_has_almost_all_of_the_sum():
    scores = np.array([0.0, 40.0, 30.0, -2.0, 1.0])
    table, vectors = jnp.asarray(scores[:, None], jnp.float32), jnp.ones((2, 1))
    listed = jnp.array([[1, 2], [3, 0]], jnp.int32)
    rest = losses.log_rest(vectors, table, listed, 2)
    expected = [math.log(sum(map(math.exp, scores[[3, 4]]))), math.log(sum(map(math.exp, scores[[1, 2, 4]])))]
    np.testing.assert_allclose(rest, expected, rtol=1e-6)
    everything = losses.log_rest(vectors[:1], table, jnp.array([[1, 2, 3, 4]], jnp.int32))
    assert float(everything[0]) == -math.inf
    np.testing.assert_allclose(
        losses.plackett_luce(jnp.array([[1.0, 2.0]]), log_rest=jnp.array([-jnp.inf])),
        losses.plackett_luce(jnp.array([[1.0, 2.0]])),
    )


def test_the_gradient_of_the_rest_is_the_same_in_chunks():
    rng = np.random.default_rng(2)
    vectors, table = (
        jnp.asarray(rng.normal(size=(3, 4)), jnp.float32),
        jnp.asarray(rng.normal(size=(11, 4)), jnp.float32),
    )
    listed = jnp.array([[1, 4], [10, 0], [3, 3]], jnp.int32)
    whole, chunked = (
        jax.grad(lambda v, t, n=chunk: losses.log_rest(v, t, listed, n).sum(), (0, 1))(vectors, table)
        for chunk in (None, 4)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, chunked)


@pytest.mark.parametrize(
    "kind",
    [
        "ranknet",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in (*objectives.LIST_LOSSES[1:], "partial_plackett_luce")
        ),
    ],
)
def test_an_objective_teaches_the_order_of_its_lists(kind):
    ds = alkd.data.synthetic(num_items=30, num_sessions=60, seed=0)
    model = alkd.models.create("fpmc", num_items=ds.num_items, dim=8)
    params = jax.jit(lambda key: alkd.models.init_params(key, model))(jax.random.key(0))
    rng = np.random.default_rng(0)
    lists = jnp.asarray(np.stack([rng.permutation(np.arange(1, 31))[:5] for _ in range(4)]), jnp.int32).at[0, 4].set(0)
    rankings = alkd.Rankings(ds.train.session_id[:4], lists, lists > 0)
    batch = list_examples(rankings, ds.train).take(jnp.array([3, 0, 2, 1]), ds.train)
    np.testing.assert_array_equal(batch.listed, np.asarray(lists)[[3, 0, 2, 1]])
    is_partial = kind == "partial_plackett_luce"
    loss = objectives.PartialPlackettLuce(model, chunk_size=7) if is_partial else objectives.ListLoss(model, kind=kind)
    gradient = jax.jit(jax.grad(loss))
    start = float(loss(params, batch, jax.random.key(1)))
    for _ in range(30):
        slopes = gradient(params, batch, jax.random.key(1))
        params = jax.tree.map(lambda x, slope: x - 0.05 * jnp.sign(slope), params, slopes)
    assert float(loss(params, batch, jax.random.key(1))) < 0.9 * start
    with pytest.raises(ValueError, match="kind is 'rank'"):
        objectives.ListLoss(model, kind="rank")
    plain = last_item_examples(ds.train).take(jnp.arange(4), ds.train)
    with pytest.raises(ValueError, match="examples have no lists"):
        loss(params, plain, jax.random.key(0))
