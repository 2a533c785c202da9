"""Training of a late-interaction student on the soft labels of item-to-item rules: each item is a session by itself."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from alkd_jax import objectives, training
from alkd_jax.checks import check_between
from alkd_jax.distillation.item_rules.rules import RuleTargets
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.training.examples import Examples
from alkd_jax.types import Sessions


def fit_rule_targets(
    key: jax.Array,
    model: Encoder,
    targets: RuleTargets,
    validation: Sessions,
    *,
    damping: float = 0.3,
    seeds: int | Sequence[int] = 1,
    learning_rate: float = 0.05,
    kernel_learning_rate: float = 0.003,
    bias_learning_rate: float = 0.3,
    scale: float = 0.3,
    length: float | None = None,
    frozen: Sequence[str] = (),
    smoothing: float = 0.0,
    batch_size: int = 1024,
    max_steps: int = 300,
    steps_per_validation: int = 100,
    recall_at: int = 10,
    **options: object,
) -> training.FitResult:
    """Trains a late-interaction student on the soft labels of item-to-item rules alone.

    Every item x with rules is a session by itself, weighted by the sum of its rules. The loss fits the student's
    distribution over the catalogue to the soft labels, and ``Σ_v exp(score(x, v))`` to ``(Σ_v R_xv)^(1 − δ)``. The
    scores of a longer session are then a mixture of the rules of its items.

    Args:
        key: a JAX key; the function consumes it.
        model: the student, of backbone "late".
        targets: the soft labels.
        validation: the sessions that decide which parameters are returned.
        damping: δ in [0, 1]; the larger it is, the smaller the weight of frequent items in a session's scores.
        seeds: as in :func:`alkd_jax.training.fit`.
        learning_rate: of the tables, with cosine decay to 0 over ``max_steps``.
        kernel_learning_rate: of the interaction kernel of shared tables, with the same decay.
        bias_learning_rate: of the input biases, with the same decay; they fit the sums of scores, which change fast.
        scale: standard deviation of the tables' initial values.
        length: norm of every row of the tables, so that their products are cosines times its square; None leaves the
            norms free.
        frozen: names of parameters that keep their initial values.
        smoothing: see :class:`alkd_jax.objectives.SelfNormalizedSoftmax`.
        batch_size: number of items in a batch.
        max_steps: number of steps.
        steps_per_validation: as in :func:`alkd_jax.training.fit`.
        recall_at: as in :func:`alkd_jax.training.fit`.
        **options: further options of :func:`alkd_jax.training.fit`.

    Returns:
        The trained student.

    Raises:
        ValueError: an option is out of its range, a frozen parameter is not one of the model's, or as in
            :func:`alkd_jax.training.fit`.
    """
    check_between(0, 1, damping=damping)
    if length is not None and not length > 0:
        raise ValueError(f"length is {length}; expected above 0, or None")
    train, examples = _single_item_sessions(targets)
    log_mass = (1 - damping) * np.log(np.maximum(targets.mass, 1e-6)).astype(np.float32)
    loss = objectives.SelfNormalizedSoftmax(model, targets.list_items, targets.list_gain, log_mass, smoothing=smoothing)
    keys = training.seed_keys(key, seeds)
    initial = jax.vmap(lambda seed_key: _init_params(seed_key, model, scale, length))(keys)
    if unknown := set(frozen) - set(initial["params"]):
        raise ValueError(f"frozen has {sorted(unknown)}; expected some of {', '.join(sorted(initial['params']))}")
    learning_rates = _LearningRates(learning_rate, kernel_learning_rate, bias_learning_rate)
    return training.fit(
        key,
        model,
        train,
        validation,
        seeds=seeds,
        examples=examples,
        initial=initial,
        loss=loss,
        optimizer=_make_optimizer(learning_rates, max_steps, length, tuple(frozen)),
        batch_size=batch_size,
        max_steps=max_steps,
        steps_per_validation=steps_per_validation,
        recall_at=recall_at,
        patience=max_steps,
        **options,  # type: ignore[arg-type]
    )


def _single_item_sessions(targets: RuleTargets) -> tuple[Sessions, Examples]:
    """Makes a session of every item with rules, and an example of every session, weighted by the sum of the rules."""
    num_sessions = len(targets.items)
    train = Sessions(
        items=targets.items[:, None],
        mask=np.ones((num_sessions, 1), bool),
        target=targets.list_items[:, 0],
        session_id=np.arange(num_sessions, dtype=np.int32),
    )
    examples = Examples(
        session=jnp.arange(num_sessions, dtype=jnp.int32),
        target=jnp.asarray(targets.list_items[:, 0]),
        weight=jnp.asarray(targets.mass),
    )
    return train, examples


def _init_params(key: jax.Array, model: Encoder, scale: float, length: float | None) -> Params:
    """Initializes wider tables than the model does, and biases so that ``Σ_v exp(score(x, v))`` is near 1."""
    params = init_params(key, model)["params"]
    input_key, output_key = jax.random.split(jax.random.fold_in(key, 1))
    for table_key, name in ((input_key, "input_embedding"), (output_key, "output_embedding")):
        table = (scale * jax.random.normal(table_key, params[name].shape)).at[0].set(0.0)
        params[name] = table if length is None else _rescale_rows(table, length)
    params["input_bias"] = params["input_bias"] - np.log(model.num_items)
    return {"params": params}


def _rescale_rows(table: Float[Array, "V1 D"], length: float) -> Float[Array, "V1 D"]:
    """Scales every row to this norm; a row of zeros does not change."""
    norm = jnp.linalg.norm(table, axis=-1, keepdims=True)
    return jnp.where(norm > 0, length * table / jnp.where(norm > 0, norm, 1.0), 0.0)


class _LearningRates(NamedTuple):
    """The learning rates of the parameters by name; "tables" is that of all others."""

    tables: float
    interaction_kernel: float
    input_bias: float


@functools.lru_cache(maxsize=64)
def _make_optimizer(
    learning_rates: _LearningRates, max_steps: int, length: float | None, frozen: tuple[str, ...]
) -> optax.GradientTransformation:
    """Makes Adam with cosine decay; one object for equal arguments, so that training again compiles nothing.

    Args:
        learning_rates: the learning rates at the first step.
        max_steps: number of steps of the decay.
        length: norm of the tables' rows, or None.
        frozen: names of parameters that keep their values.
    """
    optimizers = {
        name: optax.adam(optax.cosine_decay_schedule(learning_rate, max_steps))
        for name, learning_rate in learning_rates._asdict().items()
    }
    optimizers["frozen"] = optax.set_to_zero()
    if length is not None:
        optimizers["tables"] = optax.chain(optimizers["tables"], _project_rows(length))

    def label(path: tuple[Any, ...], _: Array) -> str:
        name = path[-1].key
        return "frozen" if name in frozen else name if name in optimizers else "tables"

    return optax.partition(optimizers, lambda params: jax.tree_util.tree_map_with_path(label, params))


def _project_rows(length: float) -> optax.GradientTransformation:
    """Changes the updates so that after each step every row of a table has this norm."""

    def update(updates: Params, state: optax.EmptyState, params: Params) -> tuple[Params, optax.EmptyState]:
        def project(update: Array, param: Array) -> Array:
            return update if param.ndim < 2 else _rescale_rows(param + update, length) - param

        return jax.tree.map(project, updates, params), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)
