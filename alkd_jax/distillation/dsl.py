"""Dynamic sparse learning: one sparse network, trained from scratch, whose non-zero entries move to where they help."""

import functools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import training
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.objectives import Loss, in_batch_loss
from alkd_jax.types import PAD, Sessions

_MASK = 0x6D61
"""Folded into a seed's initial key for its mask."""
LEAST_RATIO = 0.005
"""Share of the active entries that is still replaced at the end."""


def update_ratio(
    step: Int[Array, ""] | int, *, total: int, initial: float = 0.5, least: float = LEAST_RATIO
) -> Float[Array, ""]:
    """``ρ(t) = ρ_min + (ρ₀ − ρ_min)(1 + cos(π t / t_max)) / 2``: the share of active entries that an update replaces.

    Args:
        step: t.
        total: t_max, planned steps.
        initial: ρ₀.
        least: ρ_min.
    """
    passed = jnp.minimum(jnp.asarray(step, jnp.float32) / total, 1.0)
    return least + (initial - least) * (1.0 + jnp.cos(jnp.pi * passed)) / 2.0


def random_mask(key: jax.Array, eligible: Bool[Array, "*shape"], density: float) -> Bool[Array, "*shape"]:
    """Every eligible entry is active with chance ``density``; what comes out is the budget that training keeps."""
    return eligible & jax.random.bernoulli(key, density, eligible.shape)


def prune_and_regrow(
    weights: Float[Array, "*shape"],
    mask: Bool[Array, "*shape"],
    growth: Float[Array, "*shape"],
    eligible: Bool[Array, "*shape"],
    ratio: Float[Array, ""] | float,
) -> Bool[Array, "*shape"]:
    """Gives up the smallest active weights and activates as many entries where the gradient is largest.

    The ``⌈ρ · nnz⌉`` active entries of least magnitude go, together with any that tie with the last of them. As many
    of the entries then inactive, the pruned ones included, come back in order of ``growth``, ties to the larger
    magnitude, so that a pruned entry comes back before one that was zero. The number of active entries is exactly
    kept.

    Args:
        weights: w; 0 where not active.
        mask: active entries.
        growth: non-negative merit of an entry, the magnitude of its gradient.
        eligible: entries that may be active at all.
        ratio: ρ in [0, 1].

    Returns:
        The new mask.

    Reference:
        Wang et al., Dynamic sparse learning: a novel paradigm for efficient recommendation, WSDM 2024.
    """
    magnitude = jnp.abs(weights).ravel()
    active, allowed, merit = mask.ravel(), eligible.ravel(), growth.ravel()
    leaving = jnp.ceil(ratio * active.sum()).astype(jnp.int32)
    ordered = jnp.sort(jnp.where(active, magnitude, jnp.inf))
    threshold = jnp.where(leaving > 0, ordered[jnp.maximum(leaving - 1, 0)], -1.0)
    kept = active & (magnitude > threshold)
    missing = active.sum() - kept.sum()
    candidate = allowed & ~kept
    # lexsort goes up and takes its last key first; entries that may not grow come last.
    order = jnp.lexsort((-magnitude, jnp.where(candidate, -merit, jnp.inf)))
    place = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    return (kept | (candidate & (place < missing))).reshape(mask.shape)


def is_eligible(path: tuple[Any, ...], weights: Float[Array, "*shape"]) -> Bool[Array, "*shape"] | None:
    """Which entries of a parameter may be pruned: those of a matrix, but for an item table's row 0; None for none."""
    if weights.ndim < 2:
        return None
    everything = jnp.ones(weights.shape, bool)
    is_table = str(getattr(path[-1], "key", path[-1])).endswith("_embedding")
    return everything.at[PAD].set(False) if is_table else everything


def sparsify(key: jax.Array, params: Params, density: float) -> Params:
    """Sets a random share ``1 − density`` of every matrix to 0; vectors stay whole, density 1 changes nothing.

    Raises:
        ValueError: the density is not in (0, 1].
    """
    _check_density(density)

    def thin(path: tuple[Any, ...], weights: Array) -> Array:
        eligible = is_eligible(path, weights)
        if eligible is None or density == 1.0:
            return weights
        leaf_key = jax.random.fold_in(key, zlib.crc32(jax.tree_util.keystr(path).encode()))
        return jnp.where(random_mask(leaf_key, eligible, density), weights, 0.0)

    return jax.tree_util.tree_map_with_path(thin, params)


class SparseState(NamedTuple):
    """The inner optimizer's state, the active entries, and the gradients' magnitudes since the last regrowth."""

    inner: optax.OptState
    masks: Any
    growth: Any


def dynamic_sparse(
    inner: optax.GradientTransformation,
    *,
    total: int,
    every: int = 100,
    initial_ratio: float = 0.5,
    accumulate: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that inactive entries stay 0, and so that now and then the active ones move.

    The entries that are not 0 when training starts are the budget of their tensor, for good. Gradients and the inner
    optimizer are dense: its moments are neither masked nor reset, so a regrown entry goes on with its own.
    Needs the number of steps taken, as ``update(..., step=step)``.

    Args:
        inner: the optimizer, commonly Adam.
        total: planned steps, over which the ratio falls.
        every: ΔT, steps between updates of the masks. The authors' 100 (3,000 for LightGCN).
        initial_ratio: ρ₀; see :func:`update_ratio`.
        accumulate: regrow by the sum of gradient magnitudes since the last update instead of this step's gradient,
            which is 0 for all items outside the batch. A deviation from the authors.

    Reference:
        Wang et al., Dynamic sparse learning: a novel paradigm for efficient recommendation, WSDM 2024.
    """
    inner = optax.with_extra_args_support(inner)

    def start(params: Params) -> SparseState:
        def mask(path: tuple[Any, ...], weights: Array) -> Array:
            eligible = is_eligible(path, weights)
            if eligible is None:
                return jnp.ones(weights.shape, bool)
            return eligible & (weights != 0)

        masks = jax.tree_util.tree_map_with_path(mask, params)
        return SparseState(inner.init(params), masks, jax.tree.map(jnp.zeros_like, params) if accumulate else ())

    def move(weights: Any, masks: Any, growth: Any, ratio: Array) -> Any:
        def one(path: tuple[Any, ...], weight: Array, mask: Array, merit: Array) -> Array:
            eligible = is_eligible(path, weight)
            return mask if eligible is None else prune_and_regrow(weight, mask, merit, eligible, ratio)

        return jax.tree_util.tree_map_with_path(one, weights, masks, growth)

    def update(
        gradient: Params, state: SparseState, params: Params, *, step: Int[Array, ""] | int, **extra: Any
    ) -> tuple[Params, SparseState]:
        change, inner_state = inner.update(gradient, state.inner, params, step=step, **extra)
        taken = jnp.asarray(step) + 1
        due = taken % every == 0
        growth = jax.tree.map(jnp.abs, gradient)
        if accumulate:
            growth = jax.tree.map(jnp.add, state.growth, growth)
        moved = jax.tree.map(lambda w, u, m: jnp.where(m, w + u, 0.0), params, change, state.masks)
        ratio = update_ratio(taken, total=total, initial=initial_ratio)
        masks = jax.lax.cond(due, move, lambda _, same, *__: same, moved, state.masks, growth, ratio)
        if accumulate:
            growth = jax.tree.map(lambda g: jnp.where(due, 0.0, g), growth)
        # w − w is 0 exactly, w + u the inner optimizer's own result: nothing is rounded twice.
        change = jax.tree.map(lambda w, u, old, new: jnp.where(old & new, u, -w), params, change, state.masks, masks)
        return change, SparseState(inner_state, masks, growth if accumulate else ())

    return optax.GradientTransformationExtraArgs(start, update)


@functools.lru_cache(maxsize=64)
def _optimizer(
    learning_rate: float, total: int, every: int, initial_ratio: float, accumulate: bool
) -> optax.GradientTransformationExtraArgs:
    inner = optax.adam(learning_rate)
    return dynamic_sparse(inner, total=total, every=every, initial_ratio=initial_ratio, accumulate=accumulate)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _thin(model: Encoder, density: float, length: int, keys: jax.Array) -> Params:
    """The initial values of a plain training with these seeds' keys, thinned."""

    def of_seed(key: jax.Array) -> Params:
        init_key, _ = jax.random.split(key)
        return sparsify(jax.random.fold_in(init_key, _MASK), init_params(init_key, model, length=length), density)

    return jax.vmap(of_seed)(keys)


def num_active(params: Params) -> int:
    """How many entries are not 0, in all: what a sparse model has to store."""
    return sum(int(jnp.count_nonzero(leaf)) for leaf in jax.tree.leaves(params))


def distill(
    key: jax.Array,
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    *,
    density: float = 0.1,
    every: int = 100,
    initial_ratio: float = 0.5,
    accumulate: bool = False,
    seeds: int | Sequence[int] = 1,
    base: Loss | None = None,
    learning_rate: float = 1e-3,
    max_steps: int = 10_000,
    **options: Any,
) -> training.FitResult:
    """Trains a sparse model from scratch; nothing is distilled, and there is no teacher.

    ALKDRec does not say which it compares with. A model of the teacher's width 100 at density 0.1 has as many non-zero
    entries as the dense student of width 10; a model of width 10 at density 0.5 is the other reading. All matrices are
    sparse, vectors and an item table's padding row are left out of the count.

    Args:
        key: consumed; at density 1 the same key trains the plain model.
        model: the backbone, as wide as it is to be.
        train: the training sessions.
        validation: sessions that decide when to stop.
        density: share of the entries that are active.
        every: ΔT; see :func:`dynamic_sparse`.
        initial_ratio: ρ₀; see :func:`update_ratio`.
        accumulate: see :func:`dynamic_sparse`.
        seeds: as in :func:`alkd_jax.training.fit`; each has a mask of its own.
        base: the model's loss; default in-batch BPR.
        learning_rate: of Adam.
        max_steps: as in :func:`alkd_jax.training.fit`; t_max of the ratio.
        **options: further options of :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: as :func:`alkd_jax.training.fit`; the density or the ratio is no share, ``every`` is below 1.

    Reference:
        Wang et al., Dynamic sparse learning: a novel paradigm for efficient recommendation, WSDM 2024.
    """
    if not LEAST_RATIO <= initial_ratio <= 1.0:
        raise ValueError(f"initial_ratio is {initial_ratio}; expected {LEAST_RATIO} to 1")
    if every < 1:
        raise ValueError(f"every is {every}; expected at least 1")
    _check_density(density)
    initial, optimizer = None, None
    # At density 1 there is nowhere to move: every pruned entry would come back.
    if density < 1.0:
        initial = _thin(model, density, train.items.shape[1], training.seed_keys(key, seeds))
        optimizer = _optimizer(learning_rate, max_steps, every, initial_ratio, accumulate)
    return training.fit(
        key,
        model,
        train,
        validation,
        seeds=seeds,
        loss=in_batch_loss(model) if base is None else base,
        initial=initial,
        optimizer=optimizer,
        learning_rate=learning_rate,
        max_steps=max_steps,
        **options,
    )


def _check_density(density: float) -> None:
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density is {density}; expected above 0 and at most 1")
