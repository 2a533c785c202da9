"""The compiled part of training: the steps of an interval, its validation, and the choice of the best parameters."""

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

from alkd_jax import sharding
from alkd_jax.models import Params, encode
from alkd_jax.objectives import InBatchLoss, Loss
from alkd_jax.ops import lookup
from alkd_jax.training.examples import AnyExamples, batch_rows
from alkd_jax.training.steppers import row_sparse_adam
from alkd_jax.training.steppers.row_sparse_adam import Adam
from alkd_jax.training.validation import validation_recall
from alkd_jax.types import Batch, Sequences, Sessions


@flax.struct.dataclass
class TrainState:
    """The state that training changes; on the host every leaf has a leading seed axis.

    Attributes:
        params: all parameters in training; besides the model's own collections there may be a method's extra ones.
        opt_state: the optimizer's state.
        best_params: the model's parameters after the validation with the highest recall.
        best_metric: that recall.
        best_step: the number of steps before that validation.
        patience_count: validations since then.
        stopped: whether the seed has stopped early.
    """

    params: Params
    opt_state: optax.OptState
    best_params: Params
    best_metric: Float[Array, "*seeds"]
    best_step: Int[Array, "*seeds"]
    patience_count: Int[Array, "*seeds"]
    stopped: Bool[Array, "*seeds"]


@flax.struct.dataclass
class TrainingData:
    """The arrays that training reads and never changes; they are put on the device once.

    Attributes:
        examples: the training examples.
        source: the sessions or sequences that the examples refer to.
        validation: sessions for early stopping.
        loss_inputs: further inputs of the loss.
    """

    examples: AnyExamples
    source: Sessions | Sequences
    validation: Sessions
    loss_inputs: Any


class IntervalMetrics(NamedTuple):
    """The results of an interval that the host reads, with a leading seed axis.

    Attributes:
        loss: training loss of the last batch.
        recall: validation recall.
        is_finite: ``[T]`` whether the vectors of the batch's targets were finite after each step.
    """

    loss: jax.Array | np.ndarray
    recall: jax.Array | np.ndarray
    is_finite: jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The static arguments of the compiled programs; equal ones share one compilation.

    Attributes:
        model: a backbone.
        loss: the training loss.
        optimizer: the optimizer.
        batch_size: B.
        steps: T, steps of an interval.
        patience: validations without a higher recall after which a seed stops.
        recall_at: k of the validation recall.
        validation_batch: sessions whose scores are in memory at a time.
        layout: how parameters lie on a mesh, without a seed axis; None on one device.
        adam: hyperparameters of ``optimizer`` where that is Adam, which allows row-sparse updates with equal results.
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

    def init(self, params: Params, model_params: Params, validation: Sessions) -> TrainState:
        """Returns the state before the first step; the initial parameters are the best ones so far.

        Args:
            params: all parameters to train.
            model_params: those of the model.
            validation: sessions for early stopping.
        """
        recall = self.recall(model_params, validation)
        zero = jnp.zeros((), jnp.int32)
        copy = jax.tree.map(jnp.array, model_params)
        return TrainState(params, self.optimizer.init(params), copy, recall, zero, zero, jnp.zeros((), bool))

    def unpad(self, params: Params) -> Params:
        """Returns the parameters in the model's own shapes."""
        return params if self.layout is None else self.layout.unpad_rows(params)

    def constrain_sharding(self, tree: Any) -> Any:
        """Constrains a state with a seed axis, or parts of one, to the sharding that the programs expect."""
        return tree if self.layout is None else self.layout.with_seed_axis.constrain_sharding(tree)

    def recall(self, model_params: Params, validation: Sessions) -> Float[Array, ""]:
        """Returns the validation recall of the model's parameters."""
        params = self.unpad(model_params)
        table = self.model.apply(params, method="item_embeddings")
        batch_size = sharding.even_batch_size(len(validation), self.validation_batch)
        encode_batch = functools.partial(encode, self.model, params)
        return validation_recall(encode_batch, table, validation, self.recall_at, batch_size)

    def gather_batch(self, data: TrainingData, rows: Array, step: Array) -> Batch:
        """Gathers the examples of a step, split along the data axis on a mesh."""
        batch = data.examples.take(rows, data.source)  # type: ignore[arg-type]
        if self.layout is not None:
            batch = sharding.shard_batch(batch, self.layout.mesh)
        return batch.replace(step=step, loss_inputs=data.loss_inputs)  # type: ignore[attr-defined]

    def batch_loss(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Computes the loss from parameters whose tables are padded to a multiple of the mesh's model axis."""
        return self.loss(self.unpad(params), batch, key)

    def dense_steps(
        self, state: TrainState, data: TrainingData, plan: tuple[Array, Array], key: jax.Array
    ) -> tuple[Params, optax.OptState, Bool[Array, " T"]]:
        """Takes the steps of an interval with any loss and optimizer.

        Args:
            state: the state before the interval.
            data: what training reads.
            plan: the examples ``[T, B]`` and the numbers ``[T]`` of the steps.
            key: a JAX key for the loss.

        Returns:
            Parameters and optimizer state after the interval, and whether each step's item vectors were finite.
        """
        optimizer = optax.with_extra_args_support(self.optimizer)

        def take_step(carry: tuple[Params, optax.OptState], step: tuple[Array, Array]) -> tuple[Any, Array]:
            params, opt_state = carry
            batch = self.gather_batch(data, *step)
            gradient = jax.grad(self.batch_loss)(params, batch, jax.random.fold_in(key, step[1]))
            updates, opt_state = optimizer.update(gradient, opt_state, params, step=step[1])
            params = optax.apply_updates(params, updates)
            return (params, opt_state), self.is_finite(params, batch)

        (params, opt_state), is_finite = jax.lax.scan(take_step, (state.params, state.opt_state), plan)
        return params, opt_state, is_finite

    def row_sparse_tables(self, state: TrainState, data: TrainingData, plan: tuple[Array, Array]) -> tuple[str, ...]:
        """Returns the tables for which :meth:`row_sparse_steps` is possible and faster.

        It is possible for the in-batch loss with Adam on one device, without extra parameters.
        """
        if self.adam is None or self.layout is not None or state.params.keys() != {"params"}:
            return ()
        if not isinstance(self.loss, InBatchLoss) or self.steps > row_sparse_adam.MAX_STEPS:
            return ()
        loss, params = self.loss, state.params["params"]
        shapes = jax.eval_shape(lambda rows, step: loss.table_ids(self.gather_batch(data, rows[0], step[0])), *plan)
        is_faster = row_sparse_adam.is_row_sparse_faster
        return tuple(name for name, ids in shapes.items() if is_faster(params[name].shape, ids.size))

    def row_sparse_steps(
        self,
        names: tuple[str, ...],
        state: TrainState,
        data: TrainingData,
        plan: tuple[Array, Array],
        key: jax.Array,
    ) -> tuple[Params, optax.OptState, Bool[Array, " T"]]:
        """Takes the steps of an interval with Adam; results equal those of :meth:`dense_steps` up to rounding.

        Args:
            names: tables with row-sparse updates; the other parameters get dense ones.
            state: the state before the interval.
            data: what training reads.
            plan: the examples ``[T, B]`` and the numbers ``[T]`` of the steps.
            key: a JAX key for the loss.

        Returns:
            As :meth:`dense_steps`.
        """
        loss, adam = self.loss, self.adam
        assert isinstance(loss, InBatchLoss)
        assert adam is not None
        moments = tuple(optax.tree.get(state.opt_state, name)["params"] for name in ("mu", "nu"))
        # A schedule has a count of its own, which is equal to Adam's.
        count = optax.tree.get_all_with_path(state.opt_state, "count")[0][1]
        dense = {name: (leaf, *(moment[name] for moment in moments)) for name, leaf in state.params["params"].items()}
        tables = {name: row_sparse_adam.init_table(*dense.pop(name)) for name in names}

        def take_step(carry: tuple[Any, ...], step: tuple[Array, Array, Array]) -> tuple[Any, Array]:
            dense, tables, pending = carry
            batch, interval_step = self.gather_batch(data, *step[:2]), step[2]
            ids = loss.table_ids(batch)
            unique = {name: row_sparse_adam.unique_rows(ids[name], len(table.value)) for name, table in tables.items()}
            tables = {
                name: row_sparse_adam.apply_pending(adam, table, unique[name], pending, interval_step)
                for name, table in tables.items()
            }
            table_values = {name: table.value for name, table in tables.items()}

            def loss_of(dense_values: Any, rows: Any) -> Array:
                all_rows = rows | {name: dense_values[name][at] for name, at in ids.items() if name in dense_values}
                params = {"params": table_values | dense_values}
                return loss.loss_from_rows(params, all_rows, batch, jax.random.fold_in(key, step[1]))

            dense_values = {name: param[0] for name, param in dense.items()}
            rows = {name: value[ids[name]] for name, value in table_values.items()}
            gradient, row_gradient = jax.grad(loss_of, argnums=(0, 1))(dense_values, rows)
            update = adam.update_at(count + interval_step, interval_step)
            tables = {
                name: row_sparse_adam.update_rows(adam, table, unique[name], row_gradient[name], update, interval_step)
                for name, table in tables.items()
            }
            dense = {
                name: row_sparse_adam.update_dense(adam, param, gradient[name], count + interval_step)
                for name, param in dense.items()
            }
            table_values = {name: table.value for name, table in tables.items()}
            is_finite = self.is_finite({"params": dense_values | table_values}, batch)
            return (dense, tables, pending.append(update, interval_step)), is_finite

        interval_steps = 1 + jnp.arange(self.steps)
        start = (dense, tables, row_sparse_adam.no_pending_updates(self.steps))
        (dense, tables, pending), is_finite = jax.lax.scan(take_step, start, (*plan, interval_steps))
        dense |= {
            name: row_sparse_adam.apply_all_pending(adam, table, pending, self.steps) for name, table in tables.items()
        }
        params, first, second = ({name: param[place] for name, param in dense.items()} for place in range(3))
        new_moments = {"mu": {"params": first}, "nu": {"params": second}, "count": count + self.steps}
        return {"params": params}, optax.tree.set(state.opt_state, **new_moments), is_finite

    def is_finite(self, params: Params, batch: Batch) -> Bool[Array, ""]:
        """Whether the vectors of the batch's targets are finite; a loss that is not finite makes these NaN."""
        table = self.model.apply(self.unpad(params), method="item_embeddings")
        # The sum is NaN if any number is not finite; it is several times as fast as testing every number.
        return ~jnp.isnan((0.0 * lookup.embedding_lookup(table, batch.target)).sum())

    def run_interval(
        self, state: TrainState, key: jax.Array, data: TrainingData, step: Array
    ) -> tuple[TrainState, IntervalMetrics]:
        """Takes the steps of an interval of one seed, validates, and keeps the better parameters.

        Args:
            state: the state before the interval.
            key: the seed's JAX key, the same for every interval.
            data: what training reads.
            step: steps taken so far.
        """
        order_key, loss_key = jax.random.split(key)
        num_examples = data.examples.weight.shape[-1]
        rows = batch_rows(order_key, step, self.steps, self.batch_size, num_examples)
        numbers = step + jnp.arange(self.steps)
        names = self.row_sparse_tables(state, data, (rows, numbers))
        take_steps = functools.partial(self.row_sparse_steps, names) if names else self.dense_steps
        params, opt_state, is_finite = take_steps(state, data, (rows, numbers), loss_key)
        # The loss is computed once an interval: at every step it would cost as much as its gradient.
        last = self.gather_batch(data, rows[-1], numbers[-1])
        loss = self.batch_loss(params, last, jax.random.fold_in(loss_key, numbers[-1]))
        model_params = {name: params[name] for name in state.best_params}
        recall = self.recall(model_params, data.validation)
        is_better = (recall > state.best_metric) & ~state.stopped
        patience_count = jnp.where(is_better, 0, state.patience_count + 1)
        new_state = TrainState(
            params=params,
            opt_state=opt_state,
            best_params=jax.tree.map(lambda new, old: jnp.where(is_better, new, old), model_params, state.best_params),
            best_metric=jnp.where(is_better, recall, state.best_metric),
            best_step=jnp.where(is_better, step + self.steps, state.best_step),
            patience_count=patience_count,
            stopped=state.stopped | (patience_count >= self.patience),
        )
        return new_state, IntervalMetrics(loss, recall, is_finite)


def _map_over_seeds(train_step: TrainStep, function: Callable[..., Any], *stacked: Any) -> Any:
    """Maps a function over the seed axis.

    A single seed is mapped without ``vmap``, since a CPU is slower with one more axis. On a mesh ``vmap`` is always
    used: without it, simulated devices on few cores have been observed to deadlock.
    """
    if train_step.layout is not None or jax.tree.leaves(stacked)[0].shape[0] > 1:
        return jax.vmap(function)(*stacked)
    single = jax.tree.map(lambda leaf: jax.lax.squeeze(leaf, (0,)), stacked)
    return jax.tree.map(lambda leaf: jax.lax.expand_dims(leaf, (0,)), function(*single))


@functools.partial(jax.jit, static_argnums=0)
def init_states(train_step: TrainStep, params: Params, model_params: Params, validation: Sessions) -> TrainState:
    """Returns the initial state of every seed; see :meth:`TrainStep.init`."""

    def init(params: Params, model_params: Params) -> TrainState:
        return train_step.init(params, model_params, validation)

    return train_step.constrain_sharding(_map_over_seeds(train_step, init, params, model_params))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def run_interval(
    train_step: TrainStep, state: TrainState, keys: jax.Array, data: TrainingData, step: Array
) -> tuple[TrainState, IntervalMetrics]:
    """Runs one interval of every seed; the state is donated.

    Args:
        train_step: the static arguments.
        state: the state, with a leading seed axis.
        keys: one key for each seed.
        data: what training reads; examples may have a leading seed axis.
        step: steps taken so far.
    """

    def run(
        state: TrainState, key: jax.Array, examples: AnyExamples | None = None
    ) -> tuple[TrainState, IntervalMetrics]:
        seed_data = data if examples is None else data.replace(examples=examples)  # type: ignore[attr-defined]
        return train_step.run_interval(state, key, seed_data, step)

    seed_examples = (data.examples,) if data.examples.weight.ndim == 2 else ()
    state, metrics = _map_over_seeds(train_step, run, state, keys, *seed_examples)
    state = train_step.constrain_sharding(state)
    return state, metrics if train_step.layout is None else sharding.replicate(metrics, train_step.layout.mesh)
