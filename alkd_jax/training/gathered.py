"""The rows of the item tables that a batch names, and its loss as a function of these.

The rows are gathered into small tables and the items of the batch numbered anew; the backbone, as if its catalogue were
these rows, and the loss run on them unchanged.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from alkd_jax import sharding
from alkd_jax.models import Encoder, init_params
from alkd_jax.objectives import Loss
from alkd_jax.ops import lookup
from alkd_jax.ops.embedding import distinct_ids
from alkd_jax.samplers import Sampler
from alkd_jax.types import PAD, Batch

LossOf = Callable[[Encoder], Loss]
"""Binds a loss to a backbone, as the functions of :mod:`alkd_jax.objectives` do."""


@dataclasses.dataclass(frozen=True)
class Binding:
    """What a loss needs to run on the rows of a batch alone.

    Attributes:
        model: a backbone.
        loss_of: binds the loss to the small backbone.
        per_item: names in ``loss_inputs`` of arrays with a row an item.
    """

    model: Any
    loss_of: LossOf
    per_item: tuple[str, ...]


class Gathered:
    """A batch with the rows it names, under new numbers.

    On a mesh the rows are the same on every device, and the batch is cut along the data axis.

    Attributes:
        ids: ``[R]`` the rows' old numbers; places left over hold numbers beyond the table.
        tables: their rows in float32.
    """

    def __init__(
        self, binding: Binding, tables: Mapping[str, Array], batch: Batch, key: jax.Array, mesh: Mesh | None = None
    ) -> None:
        loss_inputs = dict(batch.loss_inputs or {})
        batch = batch.replace(loss_inputs=None)  # type: ignore[attr-defined]
        sampler = loss_inputs.get("sampler")
        drawn = [] if sampler is None else _draws(binding, batch, loss_inputs, key)
        self.ids, named = renumbered(binding.model.num_items, batch.items, batch.target, *drawn)
        self.tables = rows_of(tables, self.ids, mesh)
        batch, (items, target, *places) = sharding.shard_batch((batch, named), mesh)
        for name in binding.per_item:
            if name in loss_inputs:
                loss_inputs[name] = jnp.asarray(loss_inputs[name]).at[self.ids].get(mode="clip")
        log_chance = None if sampler is None else sampler.log_chance.at[self.ids].get(mode="clip")
        model = binding.model.clone(num_items=len(self.ids) - 1)

        def loss(tables: dict[str, Array], dense: dict[str, Array]) -> Float[Array, ""]:
            told = loss_inputs if sampler is None else loss_inputs | {"sampler": _Told(log_chance, iter(places))}
            small = batch.replace(items=items, target=target, loss_inputs=told)  # type: ignore[attr-defined]
            return binding.loss_of(model)({"params": tables | dense}, small, key)

        self.loss = loss


def renumbered(num_items: int, *groups: Int[Array, "..."]) -> tuple[Int[Array, " R"], list[Array]]:
    """The distinct items of all groups, padding first, and the groups in terms of their places."""
    flat = [jnp.full(1, PAD, jnp.int32), *(group.reshape(-1) for group in groups)]
    ids, places = distinct_ids(jnp.concatenate(flat), num_items + 1)
    starts = [1]
    for group in groups:
        starts.append(starts[-1] + group.size)
    cut = (places[start : start + group.size] for start, group in zip(starts, groups, strict=False))
    return ids, [piece.reshape(group.shape).astype(jnp.int32) for piece, group in zip(cut, groups, strict=True)]


def rows_of(tables: Mapping[str, Array], ids: Int[Array, " R"], mesh: Mesh | None = None) -> dict[str, Array]:
    """These rows of every table in float32; on a mesh, whose model axis the tables are cut along, on every device."""
    if mesh is None:
        return {name: table.at[ids].get(mode="clip").astype(jnp.float32) for name, table in tables.items()}
    look_up = sharding.shard_map_unchecked(lookup.local_embedding_lookup, mesh, (P(sharding.MODEL), P()), P())
    return {name: look_up(table, ids).astype(jnp.float32) for name, table in tables.items()}


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


def _draws(binding: Binding, batch: Batch, loss_inputs: dict[str, Any], key: jax.Array) -> list[Array]:
    """What the loss will draw. It does not depend on parameters: the loss of a catalogue of one item draws the same.

    Only the draws are used; the rest of that loss is never computed, since the compiler drops it.
    """
    model = binding.model.clone(num_items=1)
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model, length=batch.items.shape[1]))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    noting = _Noting(loss_inputs["sampler"], jnp.zeros(2), [])
    small = loss_inputs | {name: jnp.zeros(2) for name in binding.per_item if name in loss_inputs} | {"sampler": noting}
    ones = batch.mask.astype(jnp.int32)
    told = batch.replace(items=ones, target=jnp.ones_like(batch.target), loss_inputs=small)  # type: ignore[attr-defined]
    binding.loss_of(model)(params, told, key)
    return noting.drawn
