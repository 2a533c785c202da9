"""Whether a device computes what NumPy computes on the host, and what the CPU's forms of a step compute."""

import functools
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

import alkd_jax as alkd
from alkd_jax import losses, scoring
from alkd_jax.objectives import InBatchBPR
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.serving import numpy_encoders
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.examples import last_item_examples
from alkd_jax.training.fit import default_optimizer, for_platform
from alkd_jax.training.interval import Interval, init_state, take_steps
from alkd_jax.training.steppers.dense import Dense

from . import synthetic_sessions

_TOLERANCE = 2e-4
"""Relative to the largest number; the order of float32 sums changes far less, a product in bfloat16 more."""


def parts(*, smoke: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Returns the checks by name, the most important first.

    Args:
        smoke: use tiny sizes.
    """
    num_items = 300 if smoke else 8475
    backbones = ("fpmc", "late") if smoke else ("fpmc", "stamp", "attmix", "late")
    return {
        **{
            f"vectors and scores of {name}": functools.partial(vectors_and_scores, name, num_items)
            for name in backbones
        },
        "best items with ties": functools.partial(best_items, 300 if smoke else 20_000, 20),
        "ranks with ties": functools.partial(ranks, 300 if smoke else 20_000),
        "gradient of the in-batch loss": functools.partial(in_batch_gradient, 300 if smoke else 1024),
        **{f"steps of {name}": functools.partial(steps, name, num_items) for name in backbones[: 1 if smoke else 2]},
        "training that continues": functools.partial(resume, num_items),
    }


def vectors_and_scores(backbone: str, num_items: int) -> dict[str, Any]:
    """A backbone's session vectors, and their scores of all items."""
    model = alkd.models.create(backbone, num_items=num_items, dim=10)
    params = alkd.models.init_params(jax.random.key(0), model)
    # Initial values are so small that errors would hide; the tables are made as large as trained ones.
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    items = synthetic_sessions.random_sessions(64, num_items, seed=2).items
    arrays = {name: np.asarray(leaf) for name, leaf in params["params"].items()}
    options = numpy_encoders.OPTIONS[backbone]
    vectors = numpy_encoders.encode(backbone, options, arrays, np.asarray(items), length=items.shape[1])
    expected = numpy_encoders.scores(vectors, numpy_encoders.item_embeddings(backbone, options, arrays))[:, 1:]
    encoded = alkd.models.encode(model, params, items, items > 0)
    scored = scoring.scores(encoded, model.apply(params, method="item_embeddings"))[:, 1:]
    return _compared({"scores": (scored, expected)})


def best_items(num_items: int, k: int) -> dict[str, Any]:
    """The k best items without excluded ones, among many equal scores: whole numbers, which are added exactly."""
    rng = np.random.default_rng(0)
    vectors, table = rng.integers(-2, 3, (32, 8)), rng.integers(-2, 3, (num_items + 1, 8))
    exclude = rng.integers(0, num_items + 1, (32, 10))
    scores = _integer_scores(vectors, table, exclude)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found, ids = scoring.top_k(_float(vectors), _float(table), k, exclude=jnp.asarray(exclude, jnp.int32))
    wrong = int((np.asarray(ids) != order).sum() + (np.asarray(found) != np.take_along_axis(scores, order, 1)).sum())
    return {"passed": wrong == 0, "wrong": wrong, "of": 2 * order.size}


def ranks(num_items: int) -> dict[str, Any]:
    """Ranks among many equal scores: the mean rank of the ties, a half rounded up."""
    rng = np.random.default_rng(1)
    vectors, table = rng.integers(-2, 3, (64, 8)), rng.integers(-2, 3, (num_items + 1, 8))
    target, exclude = rng.integers(1, num_items + 1, 64), rng.integers(1, num_items + 1, (64, 10))
    exclude[exclude == target[:, None]] = 0
    scores = _integer_scores(vectors, table, exclude)
    own = scores[np.arange(64), target][:, None]
    better, equal = (scores > own).sum(1), (scores == own).sum(1) - 1
    arrays = (jnp.asarray(array, jnp.int32) for array in (target, exclude))
    target_array, excluded = arrays
    found = scoring.full_catalogue_rank(_float(vectors), _float(table), target_array, exclude=excluded)
    wrong = int((np.asarray(found) != 1 + better + (equal + 1) // 2).sum())
    return {"passed": wrong == 0, "wrong": wrong, "of": 64}


def in_batch_gradient(batch: int) -> dict[str, Any]:
    """Loss and gradient of in-batch BPR, against float64 on the host."""
    rng = np.random.default_rng(2)
    vectors, targets = rng.normal(size=(2, batch, 10)).astype(np.float32)
    target, session = rng.integers(1, batch // 2, batch), rng.integers(0, batch, batch)
    weight = rng.integers(0, 3, batch).astype(np.float32)
    u, y = vectors.astype(np.float64), targets.astype(np.float64)
    margin = u @ y.T - (u * y).sum(1)[:, None]
    is_pair = (target[:, None] != target) & (session[:, None] != session) & (weight > 0)
    pair_weight = weight[:, None] * is_pair / (weight[:, None] * is_pair).sum()
    slope = pair_weight / (1 + np.exp(-margin))
    total = slope.sum(1, keepdims=True)
    expected = (pair_weight * np.logaddexp(0, margin)).sum(), slope @ y - total * y, slope.T @ u - total * u
    labels = (jnp.asarray(array, jnp.int32) for array in (target, session))
    with jax.default_matmul_precision("float32"):
        graded = jax.jit(jax.value_and_grad(losses.fused_in_batch_bpr, argnums=(0, 1)))
        value, gradients = graded(jnp.asarray(vectors), jnp.asarray(targets), *labels, jnp.asarray(weight))
    names = ("loss", "of_vectors", "of_targets")
    return _compared(dict(zip(names, zip((value, *gradients), expected, strict=True), strict=True)))


def steps(backbone: str, num_items: int) -> dict[str, Any]:
    """Parameters after an interval of the device's own steps, against plain steps on the same device."""
    model = alkd.models.create(backbone, num_items=num_items, dim=10)
    params = alkd.models.init_params(jax.random.key(0), model)
    train, adam = synthetic_sessions.random_sessions(2000, num_items), Adam(1e-2)
    data = jax.device_put(TrainingData(last_item_examples(train), train, train, InBatchBPR(model)))
    plain = Interval(Dense(model, default_optimizer(adam)), 512, 5, recall_at=5, validation_batch=64)
    # The steps for accelerators run on a CPU too, where they can be checked, though it has others.
    platform = "gpu" if jax.default_backend() == "cpu" else None
    own = for_platform(plain, adam, data, jax.tree.map(lambda leaf: leaf[None], params), platform)
    after = []
    for program in (own, plain):
        state = init_state(program, jax.tree.map(jnp.copy, params))
        after.append(take_steps(program, state, jax.random.key(1), data, np.int32(0))[0].params["params"])
    changed = max(float(jnp.abs(after[1][name] - leaf).max()) for name, leaf in params["params"].items())
    # Adam divides by the root of the second moment, so that a gradient near zero may step either way.
    result = _compared({name: (after[0][name], leaf) for name, leaf in after[1].items()}, tolerance=1e-2)
    return result | {
        "stepper": type(own.stepper).__name__,
        "changed": changed,
        "passed": result["passed"] and changed > 0,
    }


def resume(num_items: int) -> dict[str, Any]:
    """Training that was interrupted and continues from its checkpoint, against training without interruption."""
    model = alkd.models.create("fpmc", num_items=num_items, dim=10)
    sessions = synthetic_sessions.random_sessions(1500, num_items)
    train, validation = (
        jax.tree.map(lambda array, s=part: array[s], sessions) for part in (np.s_[:1000], np.s_[1000:])
    )
    fit = functools.partial(
        alkd.fit, jax.random.key(0), model, train, validation, batch_size=256, max_steps=20, steps_per_validation=5
    )
    whole = fit()
    with tempfile.TemporaryDirectory() as folder:
        asked = iter([False, True])
        try:
            fit(checkpoints=TrainingFolder(pathlib.Path(folder) / "run", 1, interrupted=lambda: next(asked)))
        except KeyboardInterrupt:
            continued_from = []
            again = fit(
                checkpoints=TrainingFolder(pathlib.Path(folder) / "run", 1),
                progress=lambda now: continued_from.append(now.step),
            )
        else:
            return {"passed": False, "error": "training was not interrupted"}
    pairs = zip(*map(jax.tree.leaves, (again.params, whole.params)), strict=True)
    different = sum(int((np.asarray(one) != np.asarray(other)).sum()) for one, other in pairs)
    # A scatter on a GPU adds in the order in which its threads arrive, so that two runs differ in the last bits there.
    nearest = _compared(
        {"params": (again.params["params"]["output_embedding"], whole.params["params"]["output_embedding"])}
    )
    is_exact = jax.default_backend() == "gpu" or different == 0
    return nearest | {
        "different_numbers": different,
        "first_step_after": continued_from[0] - 5,
        "passed": nearest["passed"] and is_exact and continued_from[0] > 5,
    }


def _compared(pairs: Mapping[str, tuple[Any, Any]], *, tolerance: float = _TOLERANCE) -> dict[str, Any]:
    """The largest difference of each pair relative to the largest number, and whether all are within the tolerance."""
    errors = {name: _relative_error(*pair) for name, pair in pairs.items()}
    worst = max(errors.values())
    return {"passed": bool(worst <= tolerance), "largest_error": worst, "tolerance": tolerance, "errors": errors}


def _relative_error(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def _integer_scores(
    vectors: Int[np.ndarray, "B D"], table: Int[np.ndarray, "V1 D"], exclude: Int[np.ndarray, "B X"]
) -> Float[np.ndarray, "B V1"]:
    """Exact scores; −inf for the padding and the excluded items."""
    scores = (vectors @ table.T).astype(np.float64)
    np.put_along_axis(scores, exclude, -np.inf, 1)
    scores[:, 0] = -np.inf
    return scores


def _float(array: Int[np.ndarray, "..."]) -> jax.Array:
    return jnp.asarray(array, jnp.float32)
