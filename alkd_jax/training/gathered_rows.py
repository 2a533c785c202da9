"""The loss of a batch as a function of only the rows of the item tables that the batch refers to.

The distinct items of a batch are gathered into small tables and renumbered. The backbone, cloned with the number of
these rows as its catalogue, and its loss then run on the small tables without change, so that their gradient is a
gradient of the gathered rows; no gradient of a whole table exists.

Negatives that the loss samples must be among the gathered rows, so they have to be known before. A sampled loss calls
``sampler.draw(key, shape)`` with a key that depends only on the batch's key. The loss is therefore traced once with a
backbone of a single item and a sampler that records what it draws; the compiler removes all of that except the samples.
Then the loss is traced on the gathered rows with a sampler that returns the recorded samples, renumbered.
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
from alkd_jax.ops.embedding import sorted_unique_ids
from alkd_jax.samplers import Sampler
from alkd_jax.types import PAD, Batch

MakeLoss = Callable[[Encoder], Loss]
"""Binds a loss to a backbone, as the functions of :mod:`alkd_jax.objectives` do."""


@dataclasses.dataclass(frozen=True)
class LossBinding:
    """A backbone, and how to bind the loss to a backbone of fewer items.

    Attributes:
        model: a backbone.
        make_loss: binds the loss to a backbone.
        per_item: the names of ``loss_inputs`` whose arrays have one row for each item.
    """

    model: Any
    make_loss: MakeLoss
    per_item: tuple[str, ...]


class GatheredRows:
    """The rows of the item tables that a batch refers to, and the loss as a function of them.

    On a mesh the rows are the same on every device, and the batch is split along the data axis.

    Args:
        binding: the backbone and its loss.
        tables: the item tables by name.
        batch: the batch.
        key: a JAX key for dropout and sampled negatives.
        mesh: the mesh that the tables are sharded over; None on one device.

    Attributes:
        ids: ``[R]`` the rows' numbers in the tables; free places hold numbers beyond the tables.
        tables: the gathered rows in float32, by table name.
        loss: ``loss(tables, dense)``, the batch's loss given gathered rows and the other parameters.
    """

    def __init__(
        self, binding: LossBinding, tables: Mapping[str, Array], batch: Batch, key: jax.Array, mesh: Mesh | None = None
    ) -> None:
        loss_inputs = dict(batch.loss_inputs or {})
        batch = batch.replace(loss_inputs=None)  # type: ignore[attr-defined]
        sampler = loss_inputs.get("sampler")
        samples = [] if sampler is None else _record_samples(binding, batch, loss_inputs, key)
        self.ids, indices = renumber(binding.model.num_items, batch.items, batch.target, *samples)
        self.tables = gather_rows(tables, self.ids, mesh)
        batch, (items, target, *sample_indices) = sharding.shard_batch((batch, indices), mesh)
        for name in binding.per_item:
            if name in loss_inputs:
                loss_inputs[name] = jnp.asarray(loss_inputs[name]).at[self.ids].get(mode="clip")
        log_prob = None if sampler is None else sampler.log_prob.at[self.ids].get(mode="clip")
        model = binding.model.clone(num_items=len(self.ids) - 1)

        def loss(tables: dict[str, Array], dense: dict[str, Array]) -> Float[Array, ""]:
            inputs = loss_inputs
            if sampler is not None:
                inputs = loss_inputs | {"sampler": _ReplayingSampler(log_prob, iter(sample_indices))}
            small_batch = batch.replace(items=items, target=target, loss_inputs=inputs)  # type: ignore[attr-defined]
            return binding.make_loss(model)({"params": tables | dense}, small_batch, key)

        self.loss = loss


def renumber(num_items: int, *item_arrays: Int[Array, "..."]) -> tuple[Int[Array, " R"], list[Array]]:
    """Finds the distinct items of several arrays.

    Args:
        num_items: V.
        *item_arrays: items, of any shape.

    Returns:
        The distinct items, the padding first; and every array with its items replaced by their index among them.
    """
    flat = [jnp.full(1, PAD, jnp.int32), *(array.reshape(-1) for array in item_arrays)]
    ids, index = sorted_unique_ids(jnp.concatenate(flat), num_items + 1)
    starts = [1]
    for array in item_arrays:
        starts.append(starts[-1] + array.size)
    pieces = (index[start : start + array.size] for start, array in zip(starts, item_arrays, strict=False))
    return ids, [piece.reshape(array.shape).astype(jnp.int32) for piece, array in zip(pieces, item_arrays, strict=True)]


def gather_rows(tables: Mapping[str, Array], ids: Int[Array, " R"], mesh: Mesh | None = None) -> dict[str, Array]:
    """Returns rows of every table in float32, on every device of a mesh.

    Args:
        tables: the item tables by name.
        ids: the rows.
        mesh: the mesh that the tables are sharded over; None on one device.
    """
    if mesh is None:
        return {name: table.at[ids].get(mode="clip").astype(jnp.float32) for name, table in tables.items()}
    look_up = sharding.shard_map_unchecked(lookup.local_embedding_lookup, mesh, (P(sharding.MODEL), P()), P())
    return {name: look_up(table, ids).astype(jnp.float32) for name, table in tables.items()}


@dataclasses.dataclass
class _ReplayingSampler:
    """A sampler that returns samples recorded before, in their order."""

    log_prob: Array | None
    samples: Iterator[Array]

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> Array:
        return next(self.samples)


@dataclasses.dataclass
class _RecordingSampler:
    """A sampler that records what it draws and returns item 1."""

    sampler: Sampler
    log_prob: Array
    samples: list[Array]

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> Array:
        self.samples.append(self.sampler.draw(key, shape))
        return jnp.ones(shape, jnp.int32)


def _record_samples(binding: LossBinding, batch: Batch, loss_inputs: dict[str, Any], key: jax.Array) -> list[Array]:
    """Returns the items that the loss will sample, which depend neither on parameters nor on the catalogue's size."""
    model = binding.model.clone(num_items=1)
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model, length=batch.items.shape[1]))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    recorder = _RecordingSampler(loss_inputs["sampler"], jnp.zeros(2), [])
    per_item = {name: jnp.zeros(2) for name in binding.per_item if name in loss_inputs}
    one_item_batch = batch.replace(  # type: ignore[attr-defined]
        items=batch.mask.astype(jnp.int32),
        target=jnp.ones_like(batch.target),
        loss_inputs=loss_inputs | per_item | {"sampler": recorder},
    )
    binding.make_loss(model)(params, one_item_batch, key)
    return recorder.samples
