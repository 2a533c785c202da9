"""A student of late interaction taught item by item: one-item sessions whose lists are an item's rules."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from alkd_jax import objectives, training
from alkd_jax.distillation.item_rules.rules import RuleTargets
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.training.examples import Examples
from alkd_jax.types import Sessions


def teach(
    key: jax.Array,
    model: Encoder,
    lessons: RuleTargets,
    validation: Sessions,
    *,
    damping: float = 0.3,
    seeds: int | Sequence[int] = 1,
    learning_rate: float = 0.05,
    meeting_rate: float = 0.003,
    bias_rate: float = 0.3,
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
    """Trains a late-interaction student on rules alone.

    An item x is a session of its own, its list what x speaks for; examples weigh as much as their item has to say, and
    the student's scores for x are drawn to a mass of ``(Σ_v R_xv)^(1 − δ)``. A session's score is then the mixture of
    its items' rules, as narrow as the student is.

    Args:
        key: consumed.
        model: the student, :class:`alkd_jax.models.Late`.
        lessons: what it is to learn.
        validation: decides which parameters are kept.
        damping: δ in [0, 1], how much less a frequent item says.
        seeds: as in :func:`alkd_jax.training.fit`.
        learning_rate: of the tables, falling to 0 by a half cosine over ``max_steps``.
        meeting_rate: of the kernel of shared tables, likewise.
        bias_rate: of the items' own biases, likewise; they follow the sums of scores, which move fast.
        scale: standard deviation of the tables' initial values.
        length: of every item's row in each table, so that products are cosines times its square; None leaves it free.
        frozen: parameters that keep their initial values, by name.
        smoothing: see :func:`alkd_jax.objectives.measure_softmax`.
        batch_size: items a step.
        max_steps: steps in all.
        steps_per_validation: as in :func:`alkd_jax.training.fit`.
        recall_at: as in :func:`alkd_jax.training.fit`.
        **options: further options of :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: damping or length is out of range, a frozen parameter is not the model's, or as in
            :func:`alkd_jax.training.fit`.
    """
    if not 0.0 <= damping <= 1.0:
        raise ValueError(f"damping is {damping}; expected in [0, 1]")
    if length is not None and not length > 0:
        raise ValueError(f"length is {length}; expected above 0, or None")
    alone = Sessions(
        items=lessons.item[:, None],
        mask=np.ones((len(lessons.item), 1), bool),
        target=lessons.listed[:, 0],
        session_id=np.arange(len(lessons.item), dtype=np.int32),
    )
    examples = Examples(
        session=jnp.arange(len(lessons.item), dtype=jnp.int32),
        target=jnp.asarray(lessons.listed[:, 0]),
        weight=jnp.asarray(lessons.mass),
    )
    log_mass = (1 - damping) * np.log(np.maximum(lessons.mass, 1e-6)).astype(np.float32)
    keys = training.seed_keys(key, seeds)
    initial = jax.vmap(lambda one: _initial(one, model, scale, length))(keys)
    if unknown := set(frozen) - set(initial["params"]):
        raise ValueError(f"frozen has {sorted(unknown)}; expected some of {', '.join(sorted(initial['params']))}")
    return training.fit(
        key,
        model,
        alone,
        validation,
        seeds=seeds,
        examples=examples,
        initial=initial,
        loss=objectives.self_normalized_softmax(model, smoothing=smoothing),
        loss_inputs={"list_items": lessons.listed, "list_gain": lessons.gain, "log_mass": log_mass},
        optimizer=_optimizer(learning_rate, meeting_rate, bias_rate, max_steps, length=length, frozen=frozen),
        batch_size=batch_size,
        max_steps=max_steps,
        steps_per_validation=steps_per_validation,
        recall_at=recall_at,
        patience=max_steps,
        **options,  # type: ignore[arg-type]
    )


def _initial(key: jax.Array, model: Encoder, scale: float, length: float | None) -> Params:
    """Tables wide enough apart to tell items from the first step on; items say as much as the catalogue is large."""
    own = init_params(key, model)["params"]
    first, second = jax.random.split(jax.random.fold_in(key, 1))
    for draw, name in ((first, "input_embedding"), (second, "output_embedding")):
        table = (scale * jax.random.normal(draw, own[name].shape)).at[0].set(0.0)
        own[name] = table if length is None else _at_length(table, length)
    own["input_bias"] = own["input_bias"] - np.log(model.num_items)
    return {"params": own}


def _at_length(table: Float[Array, "V D"], length: float) -> Float[Array, "V D"]:
    """Every row at this length; a row of zeros stays one."""
    norm = jnp.linalg.norm(table, axis=-1, keepdims=True)
    return jnp.where(norm > 0, length * table / jnp.where(norm > 0, norm, 1.0), 0.0)


def _optimizer(
    learning_rate: float,
    meeting_rate: float,
    bias_rate: float,
    max_steps: int,
    *,
    length: float | None,
    frozen: Sequence[str],
) -> optax.GradientTransformation:
    """Adam, at a pace of its own for what all items share and for the biases."""
    rates = {"tables": learning_rate, "meeting_kernel": meeting_rate, "input_bias": bias_rate}
    groups = {name: optax.adam(optax.cosine_decay_schedule(rate, max_steps)) for name, rate in rates.items()}
    groups["frozen"] = optax.set_to_zero()
    if length is not None:
        groups["tables"] = optax.chain(groups["tables"], _back_to_length(length))

    def group(params: Params) -> Params:
        def of(name: str) -> str:
            return "frozen" if name in frozen else name if name in rates else "tables"

        return jax.tree_util.tree_map_with_path(lambda path, _: of(path[-1].key), params)

    return optax.partition(groups, group)


def _back_to_length(length: float) -> optax.GradientTransformation:
    """After each step, rows of tables at this length."""

    def update(updates: Params, state: optax.EmptyState, params: Params) -> tuple[Params, optax.EmptyState]:
        def one(update: Array, param: Array) -> Array:
            return update if param.ndim < 2 else _at_length(param + update, length) - param

        return jax.tree.map(one, updates, params), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)
