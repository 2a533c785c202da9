"""The compiled half of training: the steps of an interval, its validation, the better parameters kept."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import metrics, scoring, sharding
from alkd_jax.examples import AnyExamples, Batch, batch_rows
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss
from alkd_jax.types import Sequences, Sessions


@flax.struct.dataclass
class TrainState:
    """All that changes while training; every leaf gets a leading seed axis.

    ``params`` may hold more collections than the model's own (a method's extra parameters); ``best_params`` does not.
    """

    params: Params
    opt_state: optax.OptState
    best_params: Params
    best_metric: Float[Array, "*seeds"]
    best_step: Int[Array, "*seeds"]
    stale: Int[Array, "*seeds"]
    stopped: Bool[Array, "*seeds"]


@flax.struct.dataclass
class Material:
    """What training reads and never changes, on the device once.

    Attributes:
        examples: what to learn.
        source: the sessions or sequences the examples point into.
        validation: sessions that decide when to stop.
        aside: what the loss may look at.
    """

    examples: AnyExamples
    source: Sessions | Sequences
    validation: Sessions
    aside: Any


class Seen(NamedTuple):
    """What the host reads after an interval, with a leading seed axis.

    Attributes:
        loss: training loss of the last batch.
        recall: validation recall.
        sound: ``[T]`` after which steps the batch's item vectors were finite.
    """

    loss: jax.Array | np.ndarray
    recall: jax.Array | np.ndarray
    sound: jax.Array | np.ndarray


def validation_recall(
    model: Encoder, params: Params, validation: Sessions, k: int, batch_size: int
) -> Float[Array, ""]:
    """Recall at k on the validation sessions, a batch of sessions and a chunk of items at a time."""
    table = model.apply(params, method="item_embeddings")
    num_sessions = len(validation)
    batch_size = min(batch_size, num_sessions)
    num_batches = -(-num_sessions // batch_size)
    # The last batch starts early enough to be whole; what it repeats is weighted 0.
    starts = jnp.minimum(jnp.arange(num_batches) * batch_size, num_sessions - batch_size)

    def hits(batch: tuple[Array, Array]) -> Float[Array, ""]:
        number, start = batch
        take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=batch_size)
        items, mask, target = take(validation.items), take(validation.mask), take(validation.target)
        ranks = scoring.catalogue_rank(model.apply(params, items, mask), table, target, exclude=items)
        fresh = start + jnp.arange(batch_size) >= number * batch_size
        return (metrics.recall(ranks, k) * fresh).sum()

    return jax.lax.map(hits, (jnp.arange(num_batches), starts)).sum() / num_sessions


@dataclasses.dataclass(frozen=True)
class Program:
    """The static half of a run: what is compiled in. Equal programs share one compilation."""

    model: Any
    loss: Loss
    optimizer: optax.GradientTransformation
    batch_size: int
    steps: int
    patience: int
    recall_at: int
    validation_batch: int
    layout: sharding.Layout | None = None

    def start(self, params: Params, own: Params, validation: Sessions) -> TrainState:
        """The state before the first step; the parameters given are the ones to beat.

        Args:
            params: all that is trained.
            own: of these, the model's.
            validation: decides how good they are.
        """
        recall = self.recall(own, validation)
        zero = jnp.zeros((), jnp.int32)
        copy = jax.tree.map(jnp.array, own)
        return TrainState(params, self.optimizer.init(params), copy, recall, zero, zero, jnp.zeros((), bool))

    def shaped(self, params: Params) -> Params:
        """The parameters in the model's own shapes."""
        return params if self.layout is None else self.layout.cut(params)

    def settled(self, tree: Any) -> Any:
        """Arrays of several seeds, a state's or parts of one, lying as they do when they go in again."""
        return tree if self.layout is None else self.layout.stacked.settle(tree)

    def recall(self, own: Params, validation: Sessions) -> Float[Array, ""]:
        """Validation recall of the model's parameters."""
        return validation_recall(self.model, self.shaped(own), validation, self.recall_at, self.validation_batch)

    def batch(self, material: Material, rows: Array, step: Array) -> Batch:
        """Gathers the examples of a step, over the data axis where there is one."""
        batch = material.examples.take(rows, material.source)  # type: ignore[arg-type]
        if self.layout is not None:
            batch = sharding.over_data(batch, self.layout.mesh)
        return batch.replace(step=step, aside=material.aside)  # type: ignore[attr-defined]

    def interval(self, state: TrainState, key: jax.Array, material: Material, step: Array) -> tuple[TrainState, Seen]:
        """Takes the interval's steps, validates, and keeps the better parameters."""
        order_key, loss_key = jax.random.split(key)
        num_examples = material.examples.weight.shape[-1]
        rows = batch_rows(order_key, step, self.steps, self.batch_size, num_examples)
        optimizer = optax.with_extra_args_support(self.optimizer)

        def loss_of(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
            return self.loss(self.shaped(params), batch, key)

        def take_step(carry: tuple[Params, optax.OptState], now: tuple[Array, Array]) -> tuple[Any, Array]:
            params, opt_state = carry
            chosen, number = now
            batch = self.batch(material, chosen, number)
            gradient = jax.grad(loss_of)(params, batch, jax.random.fold_in(loss_key, number))
            updates, opt_state = optimizer.update(gradient, opt_state, params, step=number)
            params = optax.apply_updates(params, updates)
            # A loss that is not finite leaves its mark on the vectors of the items it was about.
            table = self.model.apply(self.shaped(params), method="item_embeddings")
            sound = jnp.isfinite(sharding.rows(table, batch.target)).all()
            return (params, opt_state), sound

        numbers = step + jnp.arange(self.steps)
        (params, opt_state), sound = jax.lax.scan(take_step, (state.params, state.opt_state), (rows, numbers))
        # A loss at every step would cost as much as its gradient; one an interval tells as much.
        last = self.batch(material, rows[-1], numbers[-1])
        loss = loss_of(params, last, jax.random.fold_in(loss_key, numbers[-1]))
        own = {name: params[name] for name in state.best_params}
        recall = self.recall(own, material.validation)
        better = (recall > state.best_metric) & ~state.stopped
        stale = jnp.where(better, 0, state.stale + 1)
        new_state = TrainState(
            params=params,
            opt_state=opt_state,
            best_params=jax.tree.map(lambda new, old: jnp.where(better, new, old), own, state.best_params),
            best_metric=jnp.where(better, recall, state.best_metric),
            best_step=jnp.where(better, step + self.steps, state.best_step),
            stale=stale,
            stopped=state.stopped | (stale >= self.patience),
        )
        return new_state, Seen(loss, recall, sound)


def _of_every_seed(one: Callable[..., Any], *stacked: Any) -> Any:
    """Maps ``one`` over the seed axis. A single seed goes without it: a CPU takes longer over one more axis."""
    if jax.tree.leaves(stacked)[0].shape[0] > 1:
        return jax.vmap(one)(*stacked)
    alone = jax.tree.map(lambda leaf: jax.lax.squeeze(leaf, (0,)), stacked)
    return jax.tree.map(lambda leaf: jax.lax.expand_dims(leaf, (0,)), one(*alone))


@functools.partial(jax.jit, static_argnums=0)
def start(program: Program, params: Params, own: Params, validation: Sessions) -> TrainState:
    """The first state of every seed."""
    state = _of_every_seed(lambda params, own: program.start(params, own, validation), params, own)
    return program.settled(state)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def interval(
    program: Program, state: TrainState, keys: jax.Array, material: Material, step: Array
) -> tuple[TrainState, Seen]:
    """One interval of every seed; the state is changed in place."""

    def one(state: TrainState, key: jax.Array, examples: AnyExamples | None = None) -> tuple[TrainState, Seen]:
        own = material if examples is None else material.replace(examples=examples)  # type: ignore[attr-defined]
        return program.interval(state, key, own, step)

    own_examples = (material.examples,) if material.examples.weight.ndim == 2 else ()
    state, seen = _of_every_seed(one, state, keys, *own_examples)
    return program.settled(state), seen if program.layout is None else sharding.everywhere(seen, program.layout.mesh)
