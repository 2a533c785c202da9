"""GRU4Rec: a recurrent network over the session, whose last state scores the items."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_count, check_one_of
from alkd_jax.models.encoder import drop, zero_padding_row
from alkd_jax.models.gru import gru_states, gru_step
from alkd_jax.models.initial_values import glorot_blocks, glorot_bound, uniform_table
from alkd_jax.ops import lookup
from alkd_jax.ops.products import linear

EMBEDDINGS = ("constrained", "separate", "none")


class GRU4Rec(nn.Module):
    """Session-based recommendation with recurrent neural networks.

    ``h_t = GRU(x_t, h_{t−1})`` from a state of zeros, ``score(s, v) = h_last · Y_v + b_v``. The input x of an item is
    its row of Y ("constrained"), its row of a table of its own ("separate"), or there is none and the item's row of a
    table ``[V + 1, 3 D]`` is what enters the gates ("none"). The bias is the last column of the table that scores
    items, and session vectors end with a 1.

    As published, units with an embedding multiply by the reset gate after the product with the state and have two
    biases; the unit without embedding multiplies before it and has one. The update gate weights the new state, see
    :func:`alkd_jax.models.gru.gru_step`.

    Parameters with N layers: "constrained" ``(V + 1) (D + 1) + N (6 D² + 6 D)``; "separate" ``(V + 1) D`` more; "none"
    ``(V + 1) (4 D + 1) + 3 D² + 3 D + (N − 1) (6 D² + 6 D)``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D.
        embedding: "constrained", "separate" or "none".
        layers: N, the number of units on top of each other.
        embedding_dropout: dropout rate of the input in training.
        hidden_dropout: dropout rate of the states in training, also where they enter the next step.

    Reference:
        Hidasi et al., ICLR 2016; Hidasi and Karatzoglou, Recurrent neural networks with top-k gains, CIKM 2018.
    """

    num_items: int
    dim: int
    embedding: str = "constrained"
    layers: int = 1
    embedding_dropout: float = 0.0
    hidden_dropout: float = 0.0

    def setup(self) -> None:
        """Declares tables and units; initial values are uniform in ``±√(6 / (rows + columns))`` of each block."""
        check_one_of("embedding", self.embedding, EMBEDDINGS)
        check_count(1, layers=self.layers)
        if self.embedding == "none" and self.embedding_dropout:
            raise ValueError(f"embedding_dropout is {self.embedding_dropout}; expected 0, since embedding is 'none'")
        rows, dim = self.num_items + 1, self.dim
        table = uniform_table(glorot_bound(self.num_items, dim))
        width = 3 * dim if self.embedding == "none" else dim
        self.input_embedding = self.param("input_embedding", table, (rows, width))
        if self.embedding != "constrained":
            self.output_embedding = self.param("output_embedding", table, (rows, dim))
        self.output_bias = self.param("output_bias", nn.initializers.zeros, (rows,))
        self.units = [self._unit(number) for number in range(1, self.layers + 1)]

    def _unit(self, number: int) -> dict[str, Any]:
        """Declares the parameters of a unit; the first one has no input kernel where there is no embedding."""
        name, dim = f"unit_{number}", self.dim
        unit = {"kernel": self.param(f"{name}_hidden_kernel", glorot_blocks, (dim, 3 * dim))}
        unit["input_bias"] = self.param(f"{name}_input_bias", nn.initializers.zeros, (3 * dim,))
        if number > 1 or self.embedding != "none":
            unit["input_kernel"] = self.param(f"{name}_input_kernel", glorot_blocks, (dim, 3 * dim))
            unit["bias"] = self.param(f"{name}_hidden_bias", nn.initializers.zeros, (3 * dim,))
        return unit

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B E"]:
        """Returns ``[h_last, 1]``. With ``train``, dropout uses the random stream "dropout"."""
        return self.encode_positions(items, mask, train=train)[:, -1]

    def encode_positions(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L E"]:
        """Returns ``[h, 1]`` after each position, in one pass; where there is no item, that after the last one."""
        x = self._inputs(items, train=train)
        for unit in self.units:
            scale = drop(self, jnp.ones((*mask.shape, self.dim), x.dtype), self.hidden_dropout) if train else None
            gates, options = self._gates(unit, x)
            x = gru_states(gates, mask, unit["kernel"], unit.get("bias"), scale=scale, **options)
        return _with_one(x)

    def initial_state(self, batch_size: int) -> Float[Array, "B N D"]:
        """Returns the states of all units before the first item of a session."""
        return jnp.zeros((batch_size, self.layers, self.dim))

    def step(
        self, items: Int[Array, " B"], state: Float[Array, "B N D"], *, train: bool = False
    ) -> tuple[Float[Array, "B E"], Float[Array, "B N D"]]:
        """Reads one item of each session; returns ``[h, 1]`` and the states after it."""
        x, states = self._inputs(items, train=train), []
        for number, unit in enumerate(self.units):
            gates, options = self._gates(unit, x)
            x = gru_step(gates, state[:, number], unit["kernel"], unit.get("bias"), **options)
            x = drop(self, x, self.hidden_dropout) if train else x
            states.append(x)
        return _with_one(x), jnp.stack(states, axis=1)

    def item_embeddings(self) -> Float[Array, "V E"]:
        """Returns the table that scores items, ``[Y, b]``; row 0 is padding."""
        table = self.input_embedding if self.embedding == "constrained" else self.output_embedding
        return zero_padding_row(jnp.concatenate([table, self.output_bias[:, None]], axis=1))

    def _inputs(self, items: Int[Array, "*batch"], *, train: bool) -> Float[Array, "*batch E"]:
        x = lookup.embedding_lookup(self.input_embedding, items)
        return drop(self, x, self.embedding_dropout) if train else x

    def _gates(
        self, unit: Mapping[str, Any], x: Float[Array, "*batch E"]
    ) -> tuple[Float[Array, "*batch G"], dict[str, str]]:
        """Returns what enters the gates, and the form of the unit."""
        if "input_kernel" in unit:
            return linear(x, unit["input_kernel"], unit["input_bias"]), {"reset": "after"}
        return x + jnp.expand_dims(unit["input_bias"], range(x.ndim - 1)), {"reset": "before"}


def _with_one(states: Float[Array, "*batch D"]) -> Float[Array, "*batch E"]:
    return jnp.concatenate([states, jnp.ones_like(states[..., :1])], axis=-1)
