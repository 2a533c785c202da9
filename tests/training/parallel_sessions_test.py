"""Session-parallel training of GRU4Rec against a NumPy reference, and how sessions are assigned to rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models, objectives, samplers, training
from alkd_jax.ops import embedding
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.examples import sequences_of
from alkd_jax.training.parallel_sessions import parallel_sessions
from alkd_jax.training.steppers.recurrent_rows import RecurrentRows
from alkd_jax.types import Sequences
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions

RATE, MOMENTUM, EPS, LOGQ, NUM_NEGATIVES, BATCH = 0.1, 0.3, 1e-6, 1.0, 5, 3
SESSIONS = [[1, 2, 3], [4], [5, 6], [2, 7, 8, 2], [9, 1], [3, 3, 4]]


def made_sequences(times=None):
    offsets = np.cumsum([0, *map(len, SESSIONS)]).astype(np.int32)
    items = np.concatenate(SESSIONS).astype(np.int32)
    time = None if times is None else np.repeat(np.asarray(times, np.int64), [len(s) for s in SESSIONS])
    return Sequences(items, offsets, time)


def read_in_parallel(sessions, batch_size):
    """The (session, place) that each row reads at each step; None without a session."""
    waiting, rows, steps = [n for n, s in enumerate(sessions) if len(s) > 1], [None] * batch_size, []
    while True:
        for row, at in enumerate(rows):
            if at is None or at[1] + 2 >= len(sessions[at[0]]):
                rows[row] = (waiting.pop(0), 0) if waiting else None
            else:
                rows[row] = (at[0], at[1] + 1)
        if not any(rows):
            return steps
        steps.append(list(rows))


def test_a_row_that_is_free_takes_the_next_session():
    train = made_sequences()
    examples = parallel_sessions(train, batch_size=BATCH)
    expected = read_in_parallel(SESSIONS, BATCH)
    rows = examples.rows_of_steps(jax.random.key(0), len(expected), len(expected), examples.batch_size)
    for numbers, at in zip(rows, expected, strict=True):
        batch = examples.take(numbers, train)
        for row, session in enumerate(at):
            assert batch.weight[row] == (session is not None)
            if session is not None:
                number, place = session
                assert (batch.session[row], batch.starts[row]) == (number, place == 0)
                assert [batch.items[row, 0], batch.target[row]] == SESSIONS[number][place : place + 2]


def test_sessions_are_read_by_their_start_time():
    examples = parallel_sessions(made_sequences(times=[5, 1, 9, 2, 8, 4]), batch_size=1)
    started = examples.session[np.asarray(examples.starts)]
    assert started.tolist() == [3, 5, 0, 4, 2]


def scores_after(p, states):
    table = np.concatenate([p["input_embedding"], p["output_bias"][:, None]], axis=1)
    return np.concatenate([states, np.ones((len(states), 1))], axis=1) @ table.T


def reference_loss(p, memory, batch, sampled, counts, log_prob, kind):
    """Loss of a step in float64, and the states after it."""
    states = []
    for row, item in enumerate(batch["item"]):
        x = p["input_embedding"][item] @ p["unit_1_input_kernel"] + p["unit_1_input_bias"]
        dim = memory.shape[1]
        kernel, (b_r, b_z, b_h) = p["unit_1_hidden_kernel"], p["unit_1_hidden_bias"].reshape(3, dim)
        h = np.zeros(dim) if batch["starts"][row] else memory[row]
        r = 1 / (1 + np.exp(-(x[:dim] + h @ kernel[:, :dim] + b_r)))
        z = 1 / (1 + np.exp(-(x[dim : 2 * dim] + h @ kernel[:, dim : 2 * dim] + b_z)))
        states.append((1 - z) * h + z * np.tanh(x[2 * dim :] + r * (h @ kernel[:, 2 * dim :] + b_h)))
    states, total = np.array(states), 0.0
    scores = scores_after(p, states)
    for row, target in enumerate(batch["target"]):
        if not batch["used"][row]:
            continue
        others = [item for other, item in enumerate(batch["target"]) if other != row and batch["used"][other]]
        if kind == "softmax":
            own = np.exp(scores[row, target] - LOGQ * counts[target])
            rest = sum(np.exp(scores[row, item] - LOGQ * counts[item]) for item in others)
            rest += sum(np.exp(scores[row, item] - LOGQ * log_prob[item]) for item in sampled)
            total += -np.log(own / (own + rest))
        else:
            elu = [s if s > 0 else 0.5 * (np.exp(s) - 1) for s in scores[row, [target, *others, *sampled]]]
            own, negative = elu[0], np.array(elu[1:])
            share = np.exp(negative) / np.exp(negative).sum()
            wins = (share / (1 + np.exp(negative - own))).sum()
            total += -np.log(wins + 1e-24) + 1.5 * (share * negative**2).sum()
    return total / len(batch["target"]), states


def numerical_gradient(function, p):
    gradient = {}
    for name, values in p.items():
        gradient[name] = np.zeros_like(values)
        for place in np.ndindex(values.shape):
            moved = [values.copy(), values.copy()]
            moved[0][place] += 1e-6
            moved[1][place] -= 1e-6
            gradient[name][place] = (function(p | {name: moved[0]}) - function(p | {name: moved[1]})) / 2e-6
    return gradient


@pytest.mark.parametrize("kind", ["softmax", "bpr_max"])
def test_steps_are_those_of_a_reference(kind):
    train, num_items, dim = made_sequences(), 9, 3
    examples = parallel_sessions(train, batch_size=BATCH)
    model = models.create("gru4rec", num_items=num_items, dim=dim)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: models.init_params(jax.random.key(0), model))["params"]
    p = {name: rng.normal(0, 0.5, leaf.shape) for name, leaf in shapes.items()}
    targets = train.items
    sampler = samplers.by_popularity(targets, num_items, exponent=0.5, prior=0.0)
    frequency = samplers.log_frequency(targets, num_items)
    loss = objectives.SharedNegatives(
        model,
        sampler,
        frequency,
        kind,
        num_negatives=NUM_NEGATIVES,
        logq=LOGQ,
        regularization=1.5,
        elu=0.5,
        repeats=True,
    )
    dense = optax.chain(
        optax.scale_by_rss(initial_accumulator_value=0.0, eps=EPS), optax.trace(MOMENTUM), optax.scale(-RATE)
    )
    rows = embedding.adagrad(RATE, initial_accumulator_value=0.0, eps=EPS, momentum=MOMENTUM)
    stepper = RecurrentRows(model, rows, dense, batch_size=BATCH)
    state = stepper.init({"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), p)})
    step = jax.jit(stepper.step)
    squares, velocity = ({name: np.zeros_like(leaf) for name, leaf in p.items()} for _ in range(2))
    memory = np.zeros((BATCH, dim))
    # More steps than an epoch has, so that sessions end, rows are without a session, and states are reset.
    for number, row in enumerate(np.asarray(examples.rows_of_steps(jax.random.key(0), 0, 7, examples.batch_size))):
        key, batch = jax.random.key(number), examples.take(jnp.asarray(row), train)
        sampled = np.asarray(loss.candidates(batch, key))
        plain = {"item": np.asarray(batch.items[:, 0]), "target": np.asarray(batch.target)}
        plain |= {"starts": np.asarray(batch.starts), "used": np.asarray(batch.weight) > 0}
        options = memory, plain, sampled, frequency.astype(float), np.asarray(sampler.log_prob, float), kind
        value, memory_after = reference_loss(p, *options)
        found = stepper.loss(state, state, loss, batch, key)
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=f"step {number}")
        gradient = numerical_gradient(lambda p, options=options: reference_loss(p, *options)[0], p)
        for name, g in gradient.items():
            is_table = name in ("input_embedding", "output_bias")
            moves = np.abs(g).reshape(len(g), -1).max(1) > 1e-12 if is_table else np.ones(len(g), bool)
            squares[name][moves] += g[moves] ** 2
            velocity[name][moves] = MOMENTUM * velocity[name][moves] + g[moves] / np.sqrt(squares[name][moves] + EPS)
            p[name][moves] -= RATE * velocity[name][moves]
        p["input_embedding"][0], p["output_bias"][0] = np.asarray(state.tables["input_embedding"])[0], 0.0
        memory = memory_after
        state, _ = step(state, loss, batch, key)
        used = plain["used"]
        np.testing.assert_allclose(np.asarray(state.memory)[used, 0], memory[used], rtol=1e-5, atol=1e-5)
    for name, leaf in stepper.model_params(state)["params"].items():
        np.testing.assert_allclose(leaf[1:], p[name][1:], rtol=1e-5, atol=2e-5, err_msg=name)


def fitted(**options):
    train, validation = cyclic_sessions(400, 0, 0), cyclic_sessions(100, 400, 1)
    sequences = sequences_of(train)
    model = models.create("gru4rec", num_items=NUM_ITEMS, dim=16, **options.pop("model", {}))
    sampler = samplers.by_popularity(sequences.items, NUM_ITEMS)
    frequency = samplers.log_frequency(sequences.items, NUM_ITEMS)
    settings = {
        "sequences": sequences,
        "examples": parallel_sessions(sequences, batch_size=16),
        "loss": objectives.SharedNegatives(model, sampler, frequency, num_negatives=16),
        "row_optimizer": embedding.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-6),
        "optimizer": optax.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-6),
        "max_steps": 400,
        "steps_per_validation": 100,
        "recall_at": 3,
    }
    return training.fit_large(jax.random.key(0), model, train, validation, **settings | options)


@pytest.mark.slow
def test_training_learns_what_follows_what():
    result = fitted()
    assert result.history.loss[0, -1] < result.history.loss[0, 1]
    assert result.history.recall[0, 0] < 0.3
    assert result.best_metric[0] > 0.9


@pytest.mark.slow
def test_training_continues_from_a_checkpoint_with_the_same_result(tmp_path):
    model = {"embedding_dropout": 0.1, "hidden_dropout": 0.1}
    whole = fitted(model=dict(model), steps_per_validation=20, max_steps=60)
    folder = TrainingFolder(tmp_path / "run")
    fitted(model=dict(model), steps_per_validation=20, max_steps=40, checkpoints=folder)
    continued = fitted(model=dict(model), steps_per_validation=20, max_steps=60, checkpoints=folder)
    for one, other in zip(jax.tree.leaves(whole.params), jax.tree.leaves(continued.params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_carry_states_is_refused():
    train = cyclic_sessions(30, 0, 0)
    sequences = sequences_of(train)
    examples = parallel_sessions(sequences, batch_size=4)
    model = models.create("gru4rec", num_items=NUM_ITEMS, dim=4)
    with pytest.raises(ValueError, match="ParallelSessions; expected fit_large"):
        training.fit(jax.random.key(0), model, train, train, examples=examples, sequences=sequences)
    fpmc = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    with pytest.raises(ValueError, match="FPMC, which has no initial_state"):
        training.fit_large(jax.random.key(0), fpmc, train, train, examples=examples, sequences=sequences)
    with pytest.raises(ValueError, match="expected objectives"):
        training.fit_large(jax.random.key(0), model, train, train, examples=examples, sequences=sequences)
