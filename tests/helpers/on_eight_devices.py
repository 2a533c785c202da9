"""Cases that need eight devices; `mesh_test.py` runs them in a process that has them."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alkd_jax import evaluation, losses, models, objectives, samplers, scoring, selection, sharding, training
from alkd_jax.data import synthetic
from alkd_jax.ops import embedding, lookup
from alkd_jax.selection import sampling, threshold
from alkd_jax.training import interval
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.examples import last_item_examples
from alkd_jax.training.steppers.dense import Dense
from tests.helpers.cyclic_sessions import cyclic_sessions

slow = pytest.mark.slow
MESHES = [pytest.param("data=8", marks=slow), pytest.param("model=8", marks=slow), "data=2,model=4"]
COLLECTIVES = "all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all"


def collectives(compiled):
    """The shapes of all arrays sent between devices."""
    shapes = []
    for line in compiled.as_text().splitlines():
        found = re.match(rf"\s*(?:ROOT )?%?\S+ = (.*?) (?:{COLLECTIVES})(?:-start)?\(", line)
        if found:
            shapes += [
                [int(size) for size in text.split(",") if size] for text in re.findall(r"\w+\[([\d,]*)\]", found[1])
            ]
    return shapes


def assert_nothing_large_is_sent(compiled, num_rows, parts):
    """Asserts that arrays sent between devices have fewer elements than a shard of a table with one column."""
    shapes = collectives(compiled)
    assert shapes, "nothing is sent at all"
    for shape in shapes:
        assert np.prod(shape) < num_rows / parts, f"{shape} is sent"


@pytest.fixture(scope="module", params=MESHES)
def mesh(request):
    return sharding.make_mesh(request.param)


def test_there_are_eight():
    assert len(jax.devices()) == 8


@slow
@pytest.mark.parametrize(("seen", "targets"), [("exclude", "last"), ("keep", "all")])
def test_evaluation_with_lists_is_that_of_one_device(mesh, seen, targets):
    held_out = synthetic(num_items=41, num_sessions=150).test_sequences
    model = models.create("fpmc", num_items=41, dim=6)
    params = models.init_params(jax.random.key(1), model)
    # Whole numbers and means of two are multiplied exactly, so that scores are equal and no order of additions matters.
    params = jax.tree.map(lambda leaf: jnp.round(2 * leaf / leaf.std()), params)
    one, many = (
        evaluation.evaluate(
            model, params, held_out, seen=seen, targets=targets, max_length=2, batch_size=64, mesh=devices
        )
        for devices in (None, mesh)
    )
    assert one.num_tied > 0
    assert one.metrics == many.metrics
    np.testing.assert_array_equal(one.ranks, many.ranks)
    for k, exposure in one.exposure.items():
        np.testing.assert_array_equal(exposure, many.exposure[k])


@pytest.mark.parametrize("shape", [pytest.param((16,), marks=slow), (16, 3), (5, 3)])
def test_rows_and_their_gradient_are_to_the_bit_those_of_one_device(mesh, key, shape):
    table = jax.random.normal(key, (21, 4))
    ids = jax.random.randint(key, shape, 0, 21)
    pull = jax.random.normal(key, (*shape, 4))

    @jax.jit
    def found(table, ids, pull):
        rows, back = jax.vjp(lambda table: lookup.embedding_lookup(table, ids), table)
        return rows, back(pull)[0]

    expected = found(table, ids, pull)
    with sharding.use_mesh(mesh):
        for one, other in zip(found(table, ids, pull), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_partition_function_and_its_gradient(mesh, key):
    table, vectors = jax.random.normal(key, (21, 4)), jax.random.normal(key, (16, 4))

    @jax.jit
    def found(vectors, table):
        return jax.value_and_grad(lambda *a: losses.log_partition(*a, 2).sum(), (0, 1))(vectors, table)

    _, (to_vectors, to_table) = found(vectors, table)
    with sharding.use_mesh(mesh):
        total, gradient = found(vectors, table)
    scores = np.asarray(vectors, np.float64) @ np.asarray(table, np.float64)[1:].T
    assert float(total) == pytest.approx(np.log(np.exp(scores).sum(1)).sum(), rel=1e-6)
    np.testing.assert_allclose(gradient[0], to_vectors, atol=2e-6)
    np.testing.assert_allclose(gradient[1], to_table, rtol=1e-5, atol=2e-6)
    assert not np.asarray(gradient[1][0]).any()


@pytest.mark.parametrize("ties", ["average", *(pytest.param(ties, marks=slow) for ties in scoring.TIES[1:])])
def test_ranks_are_those_of_one_device_ties_and_all(mesh, ties):
    rng = np.random.default_rng(0)
    table, vectors = rng.integers(-2, 3, (45, 3)).astype(np.float32), rng.integers(-2, 3, (16, 3)).astype(np.float32)
    target, exclude = rng.integers(1, 45, 16), rng.integers(-2, 50, (16, 5))
    ranks = jax.jit(functools.partial(scoring.full_catalogue_rank, ties=ties, chunk_size=4))
    expected = ranks(vectors, table, target, exclude=exclude)
    scores = vectors @ table.T
    is_other_item = (exclude > 0) & (exclude < 45) & (exclude != target[:, None])
    scores[np.arange(16)[:, None], np.where(is_other_item, exclude, 0)] = -np.inf
    own = scores[np.arange(16), target][:, None]
    ahead, equal = (scores[:, 1:] > own).sum(1), (scores[:, 1:] == own).sum(1) - 1
    share = {"optimistic": 0 * equal, "pessimistic": equal, "average": (equal + 1) // 2}[ties]
    np.testing.assert_array_equal(expected, 1 + ahead + share)
    with sharding.use_mesh(mesh):
        np.testing.assert_array_equal(ranks(vectors, table, target, exclude=exclude), expected)


@pytest.mark.parametrize("k", [pytest.param(1, marks=slow), 5, 60])
def test_lists_are_those_of_one_device_ties_and_all(mesh, k):
    rng = np.random.default_rng(1)
    table, vectors = rng.integers(-2, 3, (45, 3)).astype(np.float32), rng.integers(-2, 3, (16, 3)).astype(np.float32)
    exclude = rng.integers(-2, 50, (16, 12))
    table[7] = np.nan
    given = jnp.asarray(vectors), jnp.asarray(table), k
    expected = scoring.top_k(*given, exclude=jnp.asarray(exclude))
    for row, (listed, left_out) in enumerate(zip(np.asarray(expected[1]), exclude, strict=True)):
        allowed = [item for item in range(1, 45) if item not in left_out and item != 7]
        best = sorted(allowed, key=lambda item: (-float(vectors[row] @ table[item]), item))[:k]
        np.testing.assert_array_equal(listed, best + [-1] * (k - len(best)))
    found = scoring.top_k(*given, exclude=jnp.asarray(exclude), mesh=mesh)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_the_lists_of_the_parts_travel(key):
    mesh, num_rows, k = sharding.make_mesh("data=2,model=4"), 4001, 5
    vectors, table = jax.random.normal(key, (16, 4)), jax.random.normal(key, (num_rows, 4))
    exclude = jnp.zeros((16, 1), jnp.int32)
    table = jax.device_put(lookup.pad_rows(table, 4), NamedSharding(mesh, P("model")))
    with sharding.use_mesh(mesh):
        listing = jax.jit(lambda u, t, e: scoring.top_k(u, t[:num_rows], k, exclude=e))
        compiled = listing.lower(vectors, table, exclude).compile()
    assert_nothing_large_is_sent(compiled, num_rows, 4)
    assert [8, 4 * k] in collectives(compiled)


@pytest.mark.parametrize("name", ["adam", pytest.param("sgd", marks=slow), pytest.param("rowwise", marks=slow)])
def test_rows_in_parts_are_updated_to_the_bits_of_one_device(mesh, name):
    optimizer = {
        "adam": embedding.adam(0.1),
        "sgd": embedding.sgd(0.1),
        "rowwise": embedding.adagrad(0.1, rowwise=True),
    }[name]
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(40, 3)), jnp.float32)
    one = other = (table, optimizer.init(table))
    update = jax.jit(optimizer.update)
    update_sharded = jax.jit(functools.partial(embedding.update_sharded, optimizer, mesh))
    for _ in range(3):
        # Popular rows many times, the padding and rows at the parts' edges among them.
        ids = jnp.asarray(rng.zipf(1.3, 16) % 40, jnp.int32).at[:4].set(jnp.array([0, 5, 10, 39]))
        gradients = jnp.asarray(rng.normal(size=(16, 3)), jnp.float32)
        one, other = update(*one, ids, gradients), update_sharded(*other, ids, gradients)
        for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(left, right)
    assert (np.asarray(other[0][0]) == np.asarray(table[0])).all()
    assert (np.asarray(other[0][10]) != np.asarray(table[10])).all()


# selection ------------------------------------------------------------------------------------------------------------


def test_draws_and_difficulty_are_those_of_one_device(mesh, key, monkeypatch):
    monkeypatch.setattr(sampling, "RANDOM_BLOCK", 64)
    jax.clear_caches()
    policy = np.where(np.arange(900) % 7 == 0, -np.inf, np.round(np.linspace(-4, 0, 900))).astype(np.float32)
    for num in (1, 50, 771):
        expected = selection.select(key, policy, num=num)
        np.testing.assert_array_equal(selection.select(key, policy, num=num, mesh=mesh), expected)
    jax.clear_caches()
    model, sessions = models.create("fpmc", num_items=40, dim=6), cyclic_sessions(90, 0, 0)
    params = models.init_params(key, model)
    expected = selection.session_difficulty(model, params, sessions.items, sessions.mask, batch_size=32)
    found = selection.session_difficulty(model, params, sessions.items, sessions.mask, batch_size=32, mesh=mesh)
    np.testing.assert_array_equal(found, expected)


def test_equal_numbers_are_taken_from_the_first_devices_first(mesh):
    bits = jnp.asarray(np.random.default_rng(0).integers(0, 3, 160), jnp.uint32)
    axes = ("data", "model")
    for k in (1, 30, 111, 160):
        work = functools.partial(threshold.k_largest, k=k, axes=axes)
        found = jax.jit(sharding.shard_map_unchecked(work, mesh, (P(axes),), (P(), P())))(bits)
        np.testing.assert_array_equal(found[1], np.argsort(-np.asarray(bits, np.int64), kind="stable")[:k])


def test_no_more_than_what_is_drawn_travels():
    mesh, num = sharding.make_mesh("data=2,model=4"), 50
    blocks = jax.device_put(jnp.zeros((8, 1000)), NamedSharding(mesh, P(("data", "model"))))
    lowered = sampling._select_on_mesh.lower(jax.random.key(0), blocks, num=num, mesh=mesh)
    travels = collectives(lowered.compile())
    assert max(np.prod(shape) for shape in travels) <= num


# training -------------------------------------------------------------------------------------------------------------

NUM_ITEMS = 4000
OBJECTIVES = {
    "in-batch BPR": objectives.InBatchBPR,
    "in-batch softmax": lambda model: objectives.InBatchSoftmax(model, np.zeros(NUM_ITEMS + 1, np.float32)),
    "full softmax": lambda model: objectives.FullSoftmax(model, chunk_size=256),
    "sampled softmax": lambda model: objectives.SampledLoss(
        model, samplers.uniform(NUM_ITEMS), "softmax", num_negatives=3
    ),
}


@pytest.mark.parametrize(
    ("objective", "backbone"),
    [
        ("in-batch BPR", "fpmc"),
        *(pytest.param(name, "fpmc", marks=slow) for name in list(OBJECTIVES)[1:]),
        pytest.param("full softmax", "late", marks=slow),
    ],
)
def test_no_more_than_a_batch_travels_in_training_and_validation(objective, backbone):
    mesh, sessions = sharding.make_mesh("data=2,model=4"), cyclic_sessions(40, 0, 0, num_items=NUM_ITEMS)
    model = models.create(backbone, num_items=NUM_ITEMS, dim=4)
    params = jax.vmap(lambda key: models.init_params(key, model))(jax.random.split(jax.random.key(0), 1))
    layout = sharding.layout_of(params, NUM_ITEMS + 1, mesh, leading_axes=1)
    assert len(layout.tables) == {"fpmc": 2, "late": 4}[backbone]
    stepper = Dense(model, optax.adam(1e-2), layout=dataclasses.replace(layout, leading_axes=0))
    program = interval.Interval(stepper, 16, 3, 5, 16, has_seed_axis=True)
    data = TrainingData(last_item_examples(sessions), sessions, sessions, OBJECTIVES[objective](model))
    data, keys = jax.device_put((data, training.seed_keys(jax.random.key(0), 1)), layout.replicated)
    with sharding.use_mesh(mesh):
        state = interval.init_state(program, layout.device_put(params))
        # Flat, since what describes an array is no array, which the types of a state would refuse.
        flat, tree = jax.tree.flatten((state, keys, data, np.int32(0)))

        def steps_and_validation(*flat):
            state, keys, data, step = jax.tree.unflatten(tree, flat)
            state, metrics = interval.take_steps(program, state, keys, data, step)
            return jax.tree.leaves((state, metrics, interval.validate(program, state, data.validation)))

        compiled = jax.jit(steps_and_validation).lower(*flat).compile()
    assert_nothing_large_is_sent(compiled, NUM_ITEMS, 4)
    held = {str(leaf.sharding.spec) for leaf in jax.tree.leaves((state.opt_state, state.params)) if leaf.ndim > 2}
    assert held == {"P(None, 'model')"}


def fitted(mesh, *, backbone="stamp", max_steps=20, checkpoints=None, **options):
    model = models.create(backbone, num_items=40, dim=6)
    data = cyclic_sessions(300, 0, 0), cyclic_sessions(90, 300, 1)
    options = {"learning_rate": 0.05, "steps_per_validation": 5, "batch_size": 64, "seeds": 2} | options
    folder = None if checkpoints is None else TrainingFolder(checkpoints, every=1)
    fit = functools.partial(training.fit, jax.random.key(0), model, *data, max_steps=max_steps, checkpoints=folder)
    out = fit(mesh=mesh, **options)
    first = jax.tree.map(lambda leaf: leaf[0], out.params)
    ranks = evaluation.evaluate(model, first, data[1], batch_size=64, mesh=mesh).ranks
    return out, ranks


@pytest.fixture(scope="module")
def on_one():
    return fitted(None)


def assert_close(found, expected):
    # Not to the bit: a batch that is cut adds up its pairs, and a table in parts its gradients, in another order.
    for one, other in zip(jax.tree.leaves(found[0].params), jax.tree.leaves(expected[0].params), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    np.testing.assert_array_equal(found[0].history.step, expected[0].history.step)
    np.testing.assert_allclose(found[0].history.loss, expected[0].history.loss, rtol=1e-5)
    np.testing.assert_array_equal(found[0].history.recall, expected[0].history.recall)
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize(
    "text", [*(pytest.param(text, marks=slow) for text in ("data=1", "data=2", "model=4")), "data=2,model=4"]
)
def test_training_and_ranks_are_those_of_one_device(text, on_one):
    found = fitted(sharding.make_mesh(text))
    assert on_one[0].history.recall[:, -1].min() > 0.5, "it learned"
    assert_close(found, on_one)


@slow
def test_training_goes_on_under_another_mesh_and_under_none(tmp_path, on_one):
    # 41 rows are filled up to 44, to 48, and not at all.
    fitted(sharding.make_mesh("data=2,model=4"), max_steps=5, checkpoints=tmp_path)
    fitted(sharding.make_mesh("model=8"), max_steps=10, checkpoints=tmp_path)
    steps = []
    found = fitted(None, checkpoints=tmp_path, progress=lambda now: steps.append(now.step))
    assert steps == [15, 20]
    assert_close(found, on_one)


@slow
def test_a_batch_that_cannot_be_cut_is_worked_out_whole(on_one):
    found = fitted(sharding.make_mesh("data=8"), batch_size=60, max_steps=5)
    assert_close(found, fitted(None, batch_size=60, max_steps=5))


@slow
@pytest.mark.parametrize("backbone", ["sasrec", "hstu", "gru4rec", "core"])
def test_training_over_positions_is_that_of_one_device(backbone):
    options = {"backbone": backbone, "targets": "positions", "max_steps": 5, "learning_rate": 0.01}
    assert_close(fitted(sharding.make_mesh("data=2,model=4"), **options), fitted(None, **options))


@slow
@pytest.mark.parametrize("backbone", ["narm", "srgnn"])
def test_training_over_prefixes_is_that_of_one_device(backbone):
    options = {"backbone": backbone, "targets": "all", "max_steps": 5, "learning_rate": 0.01}
    assert_close(fitted(sharding.make_mesh("data=2,model=4"), **options), fitted(None, **options))
