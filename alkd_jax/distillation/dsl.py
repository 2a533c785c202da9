"""DSL, dynamic sparse learning: a sparse network is trained from scratch, pruned and regrown while it trains."""

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import training
from alkd_jax.checks import check_between, check_count
from alkd_jax.distillation.method import check_fraction
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.types import PAD, Sessions

_MASK_STREAM = 0x6D61
"""Number folded into the key of a seed's initial values to get the key of its mask."""
MIN_RATIO = 0.005
"""Share of the active entries that an update replaces at the end of training."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of :func:`distill`.

    Attributes:
        density: in (0, 1], the share of active entries.
        every: ΔT, at least 1; see :func:`dynamic_sparse`.
        initial_ratio: ρ₀ in [:data:`MIN_RATIO`, 1]; see :func:`update_ratio`.
        accumulate: see :func:`dynamic_sparse`.
    """

    density: float = 0.1
    every: int = 100
    initial_ratio: float = 0.5
    accumulate: bool = False

    def __post_init__(self) -> None:
        check_between(MIN_RATIO, 1, initial_ratio=self.initial_ratio)
        check_count(1, every=self.every)
        check_fraction(density=self.density)


def update_ratio(
    step: Int[Array, ""] | int, *, total: int, initial: float = 0.5, minimum: float = MIN_RATIO
) -> Float[Array, ""]:
    """``ρ(t) = ρ_min + (ρ₀ − ρ_min)(1 + cos(π t / t_max)) / 2``: the share of active entries that an update replaces.

    Args:
        step: t, number of steps taken.
        total: t_max, number of planned steps.
        initial: ρ₀ in [0, 1].
        minimum: ρ_min in [0, 1].
    """
    progress = jnp.minimum(jnp.asarray(step, jnp.float32) / total, 1.0)
    return minimum + (initial - minimum) * (1.0 + jnp.cos(jnp.pi * progress)) / 2.0


def prune_and_regrow(
    weights: Float[Array, "*shape"],
    mask: Bool[Array, "*shape"],
    growth_score: Float[Array, "*shape"],
    eligible: Bool[Array, "*shape"],
    ratio: Float[Array, ""] | float,
) -> Bool[Array, "*shape"]:
    """Prunes the smallest active weights, and activates as many entries where the gradient is largest.

    The ``⌈ρ · nnz⌉`` active entries of the smallest magnitude are pruned, with any that tie with the last of them. As
    many inactive entries are then activated, the pruned ones among them, in descending order of ``growth_score``. Ties
    go to the larger magnitude, so that a pruned entry is activated before one that was zero. The number of active
    entries does not change.

    Args:
        weights: w, 0 for inactive entries.
        mask: True for active entries.
        growth_score: magnitude of each entry's gradient.
        eligible: True for entries that may be active.
        ratio: ρ in [0, 1].

    Returns:
        The new mask.

    Reference:
        Wang et al., Dynamic sparse learning: a novel paradigm for efficient recommendation, WSDM 2024.
    """
    magnitude = jnp.abs(weights).ravel()
    active, eligible, growth_score = mask.ravel(), eligible.ravel(), growth_score.ravel()
    num_pruned = jnp.ceil(ratio * active.sum()).astype(jnp.int32)
    sorted_magnitude = jnp.sort(jnp.where(active, magnitude, jnp.inf))
    threshold = jnp.where(num_pruned > 0, sorted_magnitude[jnp.maximum(num_pruned - 1, 0)], -1.0)
    remaining = active & (magnitude > threshold)
    num_regrown = active.sum() - remaining.sum()
    candidate = eligible & ~remaining
    # lexsort is ascending, and its last key is the primary one; entries that must stay inactive come last.
    order = jnp.lexsort((-magnitude, jnp.where(candidate, -growth_score, jnp.inf)))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    return (remaining | (candidate & (rank < num_regrown))).reshape(mask.shape)


def is_eligible(path: tuple[Any, ...], weights: Float[Array, "*shape"]) -> Bool[Array, "*shape"] | None:
    """Finds the entries of a parameter that may be active in a sparse model.

    Args:
        path: the parameter's path in the tree.
        weights: the parameter.

    Returns:
        True for all entries of a matrix except row 0 of an item table, the padding; None for a vector, which stays
        dense.
    """
    if weights.ndim < 2:
        return None
    all_entries = jnp.ones(weights.shape, bool)
    is_table = str(getattr(path[-1], "key", path[-1])).endswith("_embedding")
    return all_entries.at[PAD].set(False) if is_table else all_entries


def sparsify(key: jax.Array, params: Params, density: float) -> Params:
    """Sets every entry of a matrix to 0 with probability ``1 − density``; vectors stay dense.

    Training keeps the number of entries that are not 0.

    Args:
        key: a JAX key; the function consumes it.
        params: parameters.
        density: in (0, 1]; 1 changes nothing.

    Raises:
        ValueError: the density is not in (0, 1].
    """
    check_fraction(density=density)

    def sparsify_leaf(path: tuple[Any, ...], weights: Array) -> Array:
        eligible = is_eligible(path, weights)
        if eligible is None or density == 1.0:
            return weights
        leaf_key = jax.random.fold_in(key, zlib.crc32(jax.tree_util.keystr(path).encode()))
        is_active = eligible & jax.random.bernoulli(leaf_key, density, weights.shape)
        return jnp.where(is_active, weights, 0.0)

    return jax.tree_util.tree_map_with_path(sparsify_leaf, params)


class SparseState(NamedTuple):
    """State of :func:`dynamic_sparse`.

    Attributes:
        inner: the state of the inner optimizer.
        masks: True for active entries, in the structure of the parameters.
        growth_scores: sums of gradient magnitudes since the last update of the masks; empty where not accumulated.
    """

    inner: optax.OptState
    masks: Any
    growth_scores: Any


def dynamic_sparse(
    inner: optax.GradientTransformation,
    *,
    total: int,
    every: int = 100,
    initial_ratio: float = 0.5,
    accumulate: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer: inactive entries stay 0, and every ΔT steps entries are pruned and regrown.

    The number of entries of a tensor that are not 0 when training starts is kept. Gradients and the inner optimizer
    are dense: its moments are neither masked nor reset, so a regrown entry continues with its own moments. The
    optimizer needs the number of steps taken, as ``update(..., step=step)``.

    Args:
        inner: the inner optimizer, for instance Adam.
        total: number of planned steps, over which the ratio falls.
        every: ΔT, number of steps between updates of the masks. The authors use 100 (3,000 for LightGCN).
        initial_ratio: ρ₀; see :func:`update_ratio`.
        accumulate: regrow by the sum of gradient magnitudes since the last update, in place of this step's gradient,
            which is 0 for all items outside the batch. This deviates from the authors' method.

    Reference:
        Wang et al., Dynamic sparse learning: a novel paradigm for efficient recommendation, WSDM 2024.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SparseState:
        def mask(path: tuple[Any, ...], weights: Array) -> Array:
            eligible = is_eligible(path, weights)
            if eligible is None:
                return jnp.ones(weights.shape, bool)
            return eligible & (weights != 0)

        masks = jax.tree_util.tree_map_with_path(mask, params)
        return SparseState(inner.init(params), masks, jax.tree.map(jnp.zeros_like, params) if accumulate else ())

    def update_masks(weights: Any, masks: Any, growth_scores: Any, ratio: Array) -> Any:
        def update_mask(path: tuple[Any, ...], weight: Array, mask: Array, growth_score: Array) -> Array:
            eligible = is_eligible(path, weight)
            return mask if eligible is None else prune_and_regrow(weight, mask, growth_score, eligible, ratio)

        return jax.tree_util.tree_map_with_path(update_mask, weights, masks, growth_scores)

    def update(
        gradient: Params, state: SparseState, params: Params, *, step: Int[Array, ""] | int, **extra: Any
    ) -> tuple[Params, SparseState]:
        updates, inner_state = inner.update(gradient, state.inner, params, step=step, **extra)
        num_steps = jnp.asarray(step) + 1
        is_due = num_steps % every == 0
        growth_scores = jax.tree.map(jnp.abs, gradient)
        if accumulate:
            growth_scores = jax.tree.map(jnp.add, state.growth_scores, growth_scores)
        weights = jax.tree.map(lambda w, u, m: jnp.where(m, w + u, 0.0), params, updates, state.masks)
        ratio = update_ratio(num_steps, total=total, initial=initial_ratio)
        masks = jax.lax.cond(
            is_due, update_masks, lambda _, masks, *__: masks, weights, state.masks, growth_scores, ratio
        )
        if accumulate:
            growth_scores = jax.tree.map(lambda g: jnp.where(is_due, 0.0, g), growth_scores)
        # w − w is exactly 0 and w + u is the inner optimizer's result, so no weight is rounded twice.
        updates = jax.tree.map(lambda w, u, old, new: jnp.where(old & new, u, -w), params, updates, state.masks, masks)
        return updates, SparseState(inner_state, masks, growth_scores if accumulate else ())

    return optax.GradientTransformationExtraArgs(init, update)


@functools.lru_cache(maxsize=64)
def _optimizer(options: Options, learning_rate: float, total: int) -> optax.GradientTransformationExtraArgs:
    """Returns one object for equal arguments, so that a second training reuses the first one's compilation."""
    return dynamic_sparse(
        optax.adam(learning_rate),
        total=total,
        every=options.every,
        initial_ratio=options.initial_ratio,
        accumulate=options.accumulate,
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _init_sparse_params(model: Encoder, density: float, length: int, keys: jax.Array) -> Params:
    """Sparsifies the values with which a plain training with these keys, one a seed, would start."""

    def init_seed(key: jax.Array) -> Params:
        init_key, _ = jax.random.split(key)
        mask_key = jax.random.fold_in(init_key, _MASK_STREAM)
        return sparsify(mask_key, init_params(init_key, model, length=length), density)

    return jax.vmap(init_seed)(keys)


def distill(
    key: jax.Array,
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    *,
    options: Options = Options(),
    seeds: int | Sequence[int] = 1,
    learning_rate: float = 1e-3,
    max_steps: int = 10_000,
    **fit_options: Any,
) -> training.FitResult:
    """Trains a sparse model from scratch, without a teacher; its inactive entries are 0.

    ALKDRec does not say which sparse model it compares with. A model of the teacher's width 100 at density 0.1 has as
    many non-zero entries as the dense student of width 10; a model of width 10 at density 0.5 is the other reading. All
    matrices are sparse; vectors are dense, and the padding row of an item table is not counted.

    The parameters are those of :class:`alkd_jax.distillation.DistillationMethod`, without a teacher. At density 1 the
    same key trains the plain model. Each seed has its own mask.

    Reference:
        Wang et al., Dynamic sparse learning: a novel paradigm for efficient recommendation, WSDM 2024.
    """
    initial, optimizer = None, None
    # At density 1 every pruned entry would be activated again.
    if options.density < 1.0:
        initial = _init_sparse_params(model, options.density, train.items.shape[1], training.seed_keys(key, seeds))
        optimizer = _optimizer(options, learning_rate, max_steps)
    return training.fit(
        key,
        model,
        train,
        validation,
        seeds=seeds,
        initial=initial,
        optimizer=optimizer,
        learning_rate=learning_rate,
        max_steps=max_steps,
        **fit_options,
    )
