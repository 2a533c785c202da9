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

from alkd_jax import scoring, sharding
from alkd_jax.evaluation import metrics
from alkd_jax.models import Encoder, Params, encode
from alkd_jax.objectives import InBatchLoss, Loss
from alkd_jax.ops import lookup
from alkd_jax.training.examples import AnyExamples, batch_rows
from alkd_jax.training.steppers import row_sparse_adam
from alkd_jax.training.steppers.row_sparse_adam import Adam
from alkd_jax.types import Batch, Sequences, Sessions


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
class TrainingData:
    """What training reads and never changes, on the device once.

    Attributes:
        examples: what to learn.
        source: the sessions or sequences the examples point into.
        validation: sessions that decide when to stop.
        loss_inputs: what the loss may look at.
    """

    examples: AnyExamples
    source: Sessions | Sequences
    validation: Sessions
    loss_inputs: Any


class IntervalMetrics(NamedTuple):
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
    batch_size = sharding.even_batch(num_sessions, batch_size)
    num_batches = -(-num_sessions // batch_size)
    # The last batch starts early enough to be whole; what it repeats is weighted 0.
    starts = jnp.minimum(jnp.arange(num_batches) * batch_size, num_sessions - batch_size)

    def hits(batch: tuple[Array, Array]) -> Float[Array, ""]:
        number, start = batch
        take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=batch_size)
        items, mask, target = take(validation.items), take(validation.mask), take(validation.target)
        ranks = scoring.full_catalogue_rank(encode(model, params, items, mask), table, target, exclude=items)
        fresh = start + jnp.arange(batch_size) >= number * batch_size
        return (metrics.recall(ranks, k) * fresh).sum()

    return jax.lax.map(hits, (jnp.arange(num_batches), starts)).sum() / num_sessions


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The static half of a run: what is compiled in. Equal programs share one compilation.

    ``adam`` says that ``optimizer`` is Adam with these numbers, so that a step may take a shorter way to the same end.
    """

    model: Any
    loss: Loss
    optimizer: optax.GradientTransformation
    batch_size: int
    steps: int
    patience: int
    recall_at: int
    validation_batch: int
    layout: sharding.Layout | None = None
    adam: Adam | None = None

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
        return params if self.layout is None else self.layout.unpad_rows(params)

    def constrain_sharding(self, tree: Any) -> Any:
        """Arrays of several seeds, a state's or parts of one, lying as they do when they go in again."""
        return tree if self.layout is None else self.layout.stacked.constrain_sharding(tree)

    def recall(self, own: Params, validation: Sessions) -> Float[Array, ""]:
        """Validation recall of the model's parameters."""
        return validation_recall(self.model, self.shaped(own), validation, self.recall_at, self.validation_batch)

    def batch(self, material: TrainingData, rows: Array, step: Array) -> Batch:
        """Gathers the examples of a step, over the data axis where there is one."""
        batch = material.examples.take(rows, material.source)  # type: ignore[arg-type]
        if self.layout is not None:
            batch = sharding.shard_batch(batch, self.layout.mesh)
        return batch.replace(step=step, loss_inputs=material.loss_inputs)  # type: ignore[attr-defined]

    def loss_of(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """The loss, of parameters in whatever shapes they are kept."""
        return self.loss(self.shaped(params), batch, key)

    def by_tables(
        self, state: TrainState, material: TrainingData, plan: tuple[Array, Array], key: jax.Array
    ) -> tuple[Params, optax.OptState, Bool[Array, " T"]]:
        """Takes the steps with whatever loss and optimizer there is."""
        optimizer = optax.with_extra_args_support(self.optimizer)

        def take_step(carry: tuple[Params, optax.OptState], now: tuple[Array, Array]) -> tuple[Any, Array]:
            params, opt_state = carry
            batch = self.batch(material, *now)
            gradient = jax.grad(self.loss_of)(params, batch, jax.random.fold_in(key, now[1]))
            updates, opt_state = optimizer.update(gradient, opt_state, params, step=now[1])
            params = optax.apply_updates(params, updates)
            return (params, opt_state), self.sound(params, batch)

        (params, opt_state), sound = jax.lax.scan(take_step, (state.params, state.opt_state), plan)
        return params, opt_state, sound

    def row_tables(self, state: TrainState, material: TrainingData, plan: tuple[Array, Array]) -> tuple[str, ...]:
        """The tables best updated by rows: those of which a step reads few, if this is plain Adam and no more."""
        if self.adam is None or self.layout is not None or state.params.keys() != {"params"}:
            return ()
        if not isinstance(self.loss, InBatchLoss) or self.steps > row_sparse_adam.MAX_STEPS:
            return ()
        loss, parts = self.loss, state.params["params"]
        places = jax.eval_shape(lambda rows, step: loss.places(self.batch(material, rows[0], step[0])), *plan)
        return tuple(name for name, ids in places.items() if row_sparse_adam.worth_it(parts[name].shape, ids.size))

    def by_rows(
        self,
        names: tuple[str, ...],
        state: TrainState,
        material: TrainingData,
        plan: tuple[Array, Array],
        key: jax.Array,
    ) -> tuple[Params, optax.OptState, Bool[Array, " T"]]:
        """:meth:`by_tables` for plain Adam, to the same numbers up to rounding, these tables by rows."""
        loss, adam = self.loss, self.adam
        assert isinstance(loss, InBatchLoss)
        assert adam is not None
        moments = tuple(optax.tree.get(state.opt_state, name)["params"] for name in ("mu", "nu"))
        # A schedule counts for itself, to the same number.
        taken = optax.tree.get_all_with_path(state.opt_state, "count")[0][1]
        parts = {name: (leaf, *(moment[name] for moment in moments)) for name, leaf in state.params["params"].items()}
        tables = {name: row_sparse_adam.begin(*parts.pop(name)) for name in names}

        def take_step(carry: tuple[Any, ...], now: tuple[Array, Array, Array]) -> tuple[Any, Array]:
            parts, tables, missed = carry
            batch, since = self.batch(material, *now[:2]), now[2]
            places = loss.places(batch)
            named = {name: row_sparse_adam.named(places[name], len(table.at)) for name, table in tables.items()}
            tables = {
                name: row_sparse_adam.apply_pending(adam, table, named[name], missed, since)
                for name, table in tables.items()
            }
            whole = {name: table.value for name, table in tables.items()}

            def of(rest: Any, rows: Any) -> Array:
                read = rows | {name: rest[name][ids] for name, ids in places.items() if name in rest}
                return loss.of_rows({"params": whole | rest}, read, batch, jax.random.fold_in(key, now[1]))

            rest = {name: part[0] for name, part in parts.items()}
            rows = {name: value[places[name]] for name, value in whole.items()}
            gradient, of_rows = jax.grad(of, argnums=(0, 1))(rest, rows)
            move = adam.move(taken + since, since)
            tables = {
                name: row_sparse_adam.take_step(adam, table, named[name], of_rows[name], move, since)
                for name, table in tables.items()
            }
            parts = {
                name: row_sparse_adam.dense_step(adam, part, gradient[name], taken + since)
                for name, part in parts.items()
            }
            whole = {name: table.value for name, table in tables.items()}
            return (parts, tables, missed.after(move, since)), self.sound({"params": rest | whole}, batch)

        since = 1 + jnp.arange(self.steps)
        start = (parts, tables, row_sparse_adam.nothing_missed(self.steps))
        (parts, tables, missed), sound = jax.lax.scan(take_step, start, (*plan, since))
        parts |= {
            name: row_sparse_adam.apply_all_pending(adam, table, missed, self.steps) for name, table in tables.items()
        }
        params, first, second = ({name: part[place] for name, part in parts.items()} for place in range(3))
        found = {"mu": {"params": first}, "nu": {"params": second}, "count": taken + self.steps}
        return {"params": params}, optax.tree.set(state.opt_state, **found), sound

    def sound(self, params: Params, batch: Batch) -> Bool[Array, ""]:
        """Whether a loss was finite: one that is not leaves its mark on the vectors of the items it was about."""
        table = self.model.apply(self.shaped(params), method="item_embeddings")
        # NaN if any number is not finite: a sum is several times as fast as asking every one.
        return ~jnp.isnan((0.0 * lookup.embedding_lookup(table, batch.target)).sum())

    def interval(
        self, state: TrainState, key: jax.Array, material: TrainingData, step: Array
    ) -> tuple[TrainState, IntervalMetrics]:
        """Takes the interval's steps, validates, and keeps the better parameters."""
        order_key, loss_key = jax.random.split(key)
        num_examples = material.examples.weight.shape[-1]
        rows = batch_rows(order_key, step, self.steps, self.batch_size, num_examples)
        numbers = step + jnp.arange(self.steps)
        names = self.row_tables(state, material, (rows, numbers))
        advance = functools.partial(self.by_rows, names) if names else self.by_tables
        params, opt_state, sound = advance(state, material, (rows, numbers), loss_key)
        # A loss at every step would cost as much as its gradient; one an interval tells as much.
        last = self.batch(material, rows[-1], numbers[-1])
        loss = self.loss_of(params, last, jax.random.fold_in(loss_key, numbers[-1]))
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
        return new_state, IntervalMetrics(loss, recall, sound)


def _of_every_seed(program: TrainStep, one: Callable[..., Any], *stacked: Any) -> Any:
    """Maps ``one`` over the seed axis. A single seed goes without it: a CPU takes longer over one more axis.

    Not on a mesh: without that axis, virtual devices of few cores were seen to wait for each other for ever.
    """
    if program.layout is not None or jax.tree.leaves(stacked)[0].shape[0] > 1:
        return jax.vmap(one)(*stacked)
    alone = jax.tree.map(lambda leaf: jax.lax.squeeze(leaf, (0,)), stacked)
    return jax.tree.map(lambda leaf: jax.lax.expand_dims(leaf, (0,)), one(*alone))


@functools.partial(jax.jit, static_argnums=0)
def start(program: TrainStep, params: Params, own: Params, validation: Sessions) -> TrainState:
    """The first state of every seed."""
    state = _of_every_seed(program, lambda params, own: program.start(params, own, validation), params, own)
    return program.constrain_sharding(state)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def interval(
    program: TrainStep, state: TrainState, keys: jax.Array, material: TrainingData, step: Array
) -> tuple[TrainState, IntervalMetrics]:
    """One interval of every seed; the state is changed in place."""

    def one(
        state: TrainState, key: jax.Array, examples: AnyExamples | None = None
    ) -> tuple[TrainState, IntervalMetrics]:
        own = material if examples is None else material.replace(examples=examples)  # type: ignore[attr-defined]
        return program.interval(state, key, own, step)

    own_examples = (material.examples,) if material.examples.weight.ndim == 2 else ()
    state, seen = _of_every_seed(program, one, state, keys, *own_examples)
    return program.constrain_sharding(state), seen if program.layout is None else sharding.replicate(
        seen, program.layout.mesh
    )
