"""Training steps that touch only the rows of the item tables a batch names.

The rows are gathered into small tables and the items of the batch numbered anew; the backbone, as if its catalogue were
these rows, and the loss run on them unchanged. What they give is a gradient of rows: none of a whole table exists.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import metrics, scoring
from alkd_jax.examples import Batch, batch_rows
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.objectives import Loss
from alkd_jax.samplers import Sampler
from alkd_jax.sparse_rows import RowOptimizer, distinct_ids
from alkd_jax.training.program import Material
from alkd_jax.types import PAD, Sessions

LossOf = Callable[[Encoder], Loss]
"""Binds a loss to a backbone, as the functions of :mod:`alkd_jax.objectives` do."""


@flax.struct.dataclass
class RowState:
    """All that changes while training.

    Attributes:
        tables: the item tables by name, as they are stored.
        slots: of the row optimizer, one a table.
        dense: the other parameters.
        opt_state: of their optimizer.
    """

    tables: dict[str, Any]
    slots: dict[str, Any]
    dense: dict[str, Any]
    opt_state: optax.OptState

    @property
    def params(self) -> Params:
        """The backbone's parameter tree."""
        return {"params": self.tables | self.dense}


@dataclasses.dataclass(frozen=True)
class RowProgram:
    """The static half of a run: what is compiled in.

    Attributes:
        model: a backbone.
        loss_of: binds the loss to the small backbone.
        rows: optimizer of the item tables.
        optimizer: of the other parameters.
        per_item: names in ``aside`` of arrays with a row an item.
        batch_size: B.
        steps: of an interval.
        recall_at: k of the validation recall.
        validation_batch: sessions ranked at a time.
    """

    model: Any
    loss_of: LossOf
    rows: RowOptimizer
    optimizer: optax.GradientTransformation
    per_item: tuple[str, ...]
    batch_size: int
    steps: int
    recall_at: int
    validation_batch: int

    def start(self, params: Params) -> RowState:
        """The state before the first step."""
        names = item_tables(self.model)
        tables = {name: leaf for name, leaf in params["params"].items() if name in names}
        dense = {name: leaf for name, leaf in params["params"].items() if name not in names}
        slots = {name: self.rows.init(table) for name, table in tables.items()}
        return RowState(tables, slots, dense, self.optimizer.init(dense))

    def interval(
        self, state: RowState, key: jax.Array, material: Material, step: Array
    ) -> tuple[RowState, tuple[Array, Array]]:
        """Takes the interval's steps; the loss of the last batch after them, and the validation recall."""
        order_key, loss_key = jax.random.split(key)
        rows = batch_rows(order_key, step, self.steps, self.batch_size, material.examples.weight.shape[-1])
        numbers = step + jnp.arange(self.steps)

        def batch_of(chosen: Array, number: Array) -> Batch:
            batch = material.examples.take(chosen, material.source)  # type: ignore[arg-type]
            return batch.replace(step=number, aside=material.aside)  # type: ignore[attr-defined]

        def take_step(state: RowState, now: tuple[Array, Array]) -> tuple[RowState, None]:
            return self.step(state, batch_of(*now), jax.random.fold_in(loss_key, now[1])), None

        state, _ = jax.lax.scan(take_step, state, (rows, numbers))
        gathered = Gathered(
            self, state.tables, batch_of(rows[-1], numbers[-1]), jax.random.fold_in(loss_key, numbers[-1])
        )
        loss = gathered.loss(gathered.tables, state.dense)
        return state, (loss, self.recall(state, material.validation))

    def step(self, state: RowState, batch: Batch, key: jax.Array) -> RowState:
        """One step: rows by the row optimizer, the rest by the other."""
        gathered = Gathered(self, state.tables, batch, key)
        of_rows, of_dense = jax.grad(gathered.loss, argnums=(0, 1))(gathered.tables, state.dense)
        tables, slots = {}, {}
        for number, (name, gradient) in enumerate(of_rows.items()):
            # A row no gradient reaches (an input item in the output table) counts as not named.
            is_named = (gradient != 0).reshape(len(gradient), -1).any(1)
            ids = jnp.where(is_named, gathered.ids, -1)
            rounding = jax.random.fold_in(jax.random.fold_in(key, 1), number)
            tables[name], slots[name] = self.rows.update(
                state.tables[name], state.slots[name], ids, gradient, distinct=True, key=rounding
            )
        optimizer = optax.with_extra_args_support(self.optimizer)
        updates, opt_state = optimizer.update(of_dense, state.opt_state, state.dense, step=batch.step)
        return RowState(tables, slots, optax.apply_updates(state.dense, updates), opt_state)

    def recall(self, state: RowState, validation: Sessions) -> Float[Array, ""]:
        """Recall at k, a batch of sessions and a chunk of items at a time."""
        table = self.model.apply(state.params, method="item_embeddings")
        size = min(self.validation_batch, len(validation))
        num_batches = -(-len(validation) // size)
        starts = jnp.minimum(jnp.arange(num_batches) * size, len(validation) - size)

        def hits(batch: tuple[Array, Array]) -> Float[Array, ""]:
            number, start = batch
            take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=size)
            items, mask, target = take(validation.items), take(validation.mask), take(validation.target)
            ranks = scoring.catalogue_rank(self.encode(state, items, mask), table, target, exclude=items)
            fresh = start + jnp.arange(size) >= number * size
            return (metrics.recall(ranks, self.recall_at) * fresh).sum()

        return jax.lax.map(hits, (jnp.arange(num_batches), starts)).sum() / len(validation)

    def encode(self, state: RowState, items: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Float[Array, "B *L D"]:
        """Encodes sessions from their rows in float32, however the tables are stored."""
        ids, (items,) = renumbered(self.model.num_items, items)
        params = {"params": rows_of(state.tables, ids) | state.dense}
        return self.model.clone(num_items=len(ids) - 1).apply(params, items, mask)


class Gathered:
    """A batch with the rows it names, under new numbers.

    Attributes:
        ids: ``[R]`` the rows' old numbers; places left over hold numbers beyond the table.
        tables: their rows in float32.
    """

    def __init__(self, program: RowProgram, tables: Mapping[str, Array], batch: Batch, key: jax.Array) -> None:
        aside = dict(batch.aside or {})
        sampler = aside.get("sampler")
        drawn = [] if sampler is None else _draws(program, batch, aside, key)
        self.ids, (items, target, *places) = renumbered(program.model.num_items, batch.items, batch.target, *drawn)
        self.tables = rows_of(tables, self.ids)
        for name in program.per_item:
            if name in aside:
                aside[name] = jnp.asarray(aside[name]).at[self.ids].get(mode="clip")
        log_chance = None if sampler is None else sampler.log_chance.at[self.ids].get(mode="clip")
        model = program.model.clone(num_items=len(self.ids) - 1)

        def loss(tables: dict[str, Array], dense: dict[str, Array]) -> Float[Array, ""]:
            told = aside if sampler is None else aside | {"sampler": _Told(log_chance, iter(places))}
            small = batch.replace(items=items, target=target, aside=told)  # type: ignore[attr-defined]
            return program.loss_of(model)({"params": tables | dense}, small, key)

        self.loss = loss


def item_tables(model: Encoder) -> tuple[str, ...]:
    """Names of the parameters with a row an item: those that grow with the catalogue."""

    def shapes(num_items: int) -> dict[str, Any]:
        sized = model.clone(num_items=num_items)  # type: ignore[attr-defined]
        return jax.eval_shape(lambda: init_params(jax.random.key(0), sized))["params"]

    few, more = shapes(1), shapes(2)
    return tuple(name for name in few if few[name].shape != more[name].shape)


def renumbered(num_items: int, *groups: Int[Array, "..."]) -> tuple[Int[Array, " R"], list[Array]]:
    """The distinct items of all groups, padding first, and the groups in terms of their places."""
    flat = [jnp.full(1, PAD, jnp.int32), *(group.reshape(-1) for group in groups)]
    ids, places = distinct_ids(jnp.concatenate(flat), num_items + 1)
    starts = [1]
    for group in groups:
        starts.append(starts[-1] + group.size)
    cut = (places[start : start + group.size] for start, group in zip(starts, groups, strict=False))
    return ids, [piece.reshape(group.shape).astype(jnp.int32) for piece, group in zip(cut, groups, strict=True)]


def rows_of(tables: Mapping[str, Array], ids: Int[Array, " R"]) -> dict[str, Array]:
    """These rows of every table in float32."""
    return {name: table.at[ids].get(mode="clip").astype(jnp.float32) for name, table in tables.items()}


@dataclasses.dataclass
class _Told:
    """A sampler whose draws are known beforehand, in their order."""

    log_chance: Array | None
    places: Iterator[Array]

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> Array:
        return next(self.places)


@dataclasses.dataclass
class _Noting:
    """A sampler that notes what it draws and tells of item 1."""

    sampler: Sampler
    log_chance: Array
    drawn: list[Array]

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> Array:
        self.drawn.append(self.sampler.draw(key, shape))
        return jnp.ones(shape, jnp.int32)


def _draws(program: RowProgram, batch: Batch, aside: dict[str, Any], key: jax.Array) -> list[Array]:
    """What the loss will draw. It does not depend on parameters: the loss of a catalogue of one item draws the same.

    Only the draws are used; the rest of that loss is never computed, since the compiler drops it.
    """
    model = program.model.clone(num_items=1)
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model, length=batch.items.shape[1]))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    noting = _Noting(aside["sampler"], jnp.zeros(2), [])
    small = aside | {name: jnp.zeros(2) for name in program.per_item if name in aside} | {"sampler": noting}
    ones = batch.mask.astype(jnp.int32)
    told = batch.replace(items=ones, target=jnp.ones_like(batch.target), aside=small)  # type: ignore[attr-defined]
    program.loss_of(model)(params, told, key)
    return noting.drawn


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def interval(
    program: RowProgram, state: RowState, key: jax.Array, material: Material, step: Array
) -> tuple[RowState, tuple[Array, Array]]:
    """One interval; the state is changed in place."""
    return program.interval(state, key, material, step)
