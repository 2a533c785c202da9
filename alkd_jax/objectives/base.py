"""What a loss is: a callable pytree of parameters, batch and key; and the base classes of those of this package."""

import abc
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.models import Encoder, Params
from alkd_jax.models.encoder import drops_item_embeddings, times_for
from alkd_jax.ops.precision import at_least_float32
from alkd_jax.types import Batch

_TABLE_STREAM = 1000
"""Number of the random stream for dropout of the output table, far from those that a split of the key gives."""
PER_ITEM = {"per_item": True}
"""Metadata of an objective's field that has one row for each item."""


@runtime_checkable
class Loss(Protocol):
    """``loss(params, batch, key)``; the key is for dropout and sampled negatives."""

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        ...


@flax.struct.dataclass
class FunctionLoss:
    """A user's function as a :class:`Loss`.

    Attributes:
        function: ``function(params, batch)`` or ``function(params, batch, key)``; a pytree.
        takes_key: whether the function takes a key.
    """

    function: Any
    takes_key: bool = flax.struct.field(pytree_node=False)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the function's value."""
        return self.function(params, batch, key) if self.takes_key else self.function(params, batch)


def as_loss(loss: Callable[..., Any]) -> Loss:
    """Returns a user's function of ``(params, batch)`` or ``(params, batch, key)`` as a pytree that takes a key.

    Args:
        loss: a function, whose identity is static, or a callable pytree, whose arrays are leaves.
    """
    parameters = inspect.signature(loss).parameters.values()
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    third = [parameter for parameter in parameters if parameter.kind in kinds][2:3]
    # A third parameter with a default is an option of the function, unless it is the key.
    takes_key = any(parameter.kind == inspect.Parameter.VAR_POSITIONAL for parameter in parameters) or any(
        parameter.default is inspect.Parameter.empty or parameter.name == "key" for parameter in third
    )
    is_pytree = not jax.tree_util.all_leaves([loss])
    if is_pytree and takes_key:
        return loss
    return FunctionLoss(loss if is_pytree else jax.tree_util.Partial(loss), takes_key)


def encode(model: Encoder, params: Params, batch: Batch, key: jax.Array) -> Float[Array, "B *L D"]:
    """Encodes a batch with dropout on; returns vectors in float32 whatever the type of the parameters.

    Args:
        model: a backbone.
        params: its parameters; further collections are ignored.
        batch: the batch to encode.
        key: a JAX key for dropout.
    """
    inputs = batch.items, batch.mask, *times_for(model, batch.seconds)
    return at_least_float32(model.apply(params, *inputs, train=True, rngs={"dropout": key}))


@flax.struct.dataclass
class BoundLoss(abc.ABC):
    """A loss bound to a backbone, which may score all items; subclasses define :meth:`__call__`.

    Attributes:
        model: the backbone.
        reads_positions: whether batches have a target for every position rather than for every session.
    """

    model: Encoder = flax.struct.field(pytree_node=False)
    reads_positions: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch; the key is for dropout and sampled negatives."""

    def encode(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, "B *L D"]:
        """Returns the vectors of a batch's sessions; the key is for dropout."""
        return encode(self.model, params, batch, key)

    def item_embeddings(self, params: Params, key: jax.Array | None = None) -> Float[Array, "V1 D"]:
        """Returns the backbone's output table; given the key of the loss, with dropout where the backbone has it."""
        if key is None or not drops_item_embeddings(self.model):
            return self.model.apply(params, method="item_embeddings")
        rngs = {"dropout": jax.random.fold_in(key, _TABLE_STREAM)}
        return self.model.apply(params, train=True, rngs=rngs, method="item_embeddings")


@flax.struct.dataclass
class Objective(BoundLoss):
    """A loss that scores few items, so that it can be computed from the rows of a batch, as ``fit_large`` does.

    Subclasses define :meth:`loss`, and :meth:`candidates` if they score items beside those of the batch.
    """

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch; the key is for dropout and sampled negatives."""
        return self.loss(params, batch, self.candidates(batch, key), key)

    def candidates(self, batch: Batch, key: jax.Array) -> Int[Array, "B C"] | None:
        """Returns the items that the loss scores beside the batch's targets: sampled ones, or lists; None without."""
        return None

    @abc.abstractmethod
    def loss(self, params: Params, batch: Batch, candidates: Any, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch, given the result of :meth:`candidates`."""

    def on_rows(self, ids: Int[Array, " R"]) -> "Objective":
        """Returns the objective of a small backbone, whose items are some rows of the tables, the padding first.

        Args:
            ids: the rows; numbers beyond the tables stand for free places.
        """
        per_item = {name: jnp.asarray(array).at[ids].get(mode="clip") for name, array in self.per_item().items()}
        return self.replace(model=self.model.clone(num_items=len(ids) - 1), **per_item)  # type: ignore[attr-defined]

    def per_item(self) -> dict[str, Any]:
        """Returns the arrays that have one row for each item, by name."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields if field.metadata.get("per_item")}
