"""SR-GNN: a gated graph network over a session's items, and attention with the last item as the query."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_count, check_one_of
from alkd_jax.models.gru import RESETS, gru_step
from alkd_jax.models.initial_values import uniform, uniform_table
from alkd_jax.ops import lookup
from alkd_jax.ops.products import linear

EDGES = ("counted", "binary")


def session_graph(
    items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, edges: str = "counted"
) -> tuple[Float[Array, "B L L"], Float[Array, "B L L"]]:
    """Returns the weights of a session graph's incoming and outgoing edges, between positions.

    The nodes of the graph are the session's distinct items, and its edges lead from each item to the next one. Here
    every position stands for its item: position i has the weight 1 to each position j whose successor is i's item
    (incoming), or whose predecessor is (outgoing), divided by the sum of its weights. So positions of the same item
    have equal rows, and receive what their node receives.

    Args:
        items: items of the sessions.
        mask: True on real items.
        edges: "counted" weights an edge by how often it occurs, "binary" counts each edge once.

    Returns:
        ``A_in`` and ``A_out``; a row without an edge, and one without an item, is 0.
    """
    is_same = (items[:, :, None] == items[:, None, :]) & mask[:, :, None] & mask[:, None, :]
    is_edge = mask[:, :-1] & mask[:, 1:]
    if edges == "binary":
        # Edge t repeats edge s where both of its ends do.
        repeats = is_same[:, :-1, :-1] & is_same[:, 1:, 1:] & is_edge[:, None, :]
        is_edge &= ~jnp.tril(repeats, -1).any(2)
    # Edge t leads from position t to position t + 1.
    incoming = jnp.pad(is_same[:, :, 1:] & is_edge[:, None], ((0, 0), (0, 0), (0, 1)))
    outgoing = jnp.pad(is_same[:, :, :-1] & is_edge[:, None], ((0, 0), (0, 0), (1, 0)))
    return _normalize_rows(incoming), _normalize_rows(outgoing)


def _normalize_rows(is_neighbor: Bool[Array, "B L L"]) -> Float[Array, "B L L"]:
    return is_neighbor / jnp.maximum(is_neighbor.sum(2, keepdims=True), 1)


class SRGNN(nn.Module):
    """Session-based recommendation with graph neural networks.

    In each step, with node vectors V: ``a = [A_in V W_in + b_in, A_out V W_out + b_out]``, and the gated recurrent unit
    takes V to the next V with ``a W`` as its input. ``α_i = qᵀ σ(W₁ v_n + W₂ v_i + c)`` over the session's positions
    (no softmax), ``s_g = Σ α_i v_i``, ``u = [v_n, s_g] W₃``, ``score(s, v) = u · X_v`` with the input table.

    Parameters: ``(V + 1) D + 15 D² + 4 D``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D.
        steps: number of gated steps.
        edges: "counted", as in the paper, or "binary", see :func:`session_graph`.
        reset: "before", as in the paper, or "after", see :func:`alkd_jax.models.gru.gru_step`.

    Reference:
        Wu et al., Session-based recommendation with graph neural networks, AAAI 2019, eq. 1-8.
    """

    num_items: int
    dim: int
    steps: int = 1
    edges: str = "counted"
    reset: str = "before"

    def setup(self) -> None:
        """Declares the item table, the graph network and the attention; initial values are uniform in ±1/√D."""
        check_one_of("edges", self.edges, EDGES)
        check_one_of("reset", self.reset, RESETS)
        check_count(1, steps=self.steps)
        dim, bound = self.dim, self.dim**-0.5

        def parameter(name: str, *shape: int) -> Any:
            return self.param(name, uniform(bound), shape)

        self.input_embedding = self.param("input_embedding", uniform_table(bound), (self.num_items + 1, dim))
        self.incoming_kernel, self.incoming_bias = (
            parameter("incoming_kernel", dim, dim),
            parameter("incoming_bias", dim),
        )
        self.outgoing_kernel, self.outgoing_bias = (
            parameter("outgoing_kernel", dim, dim),
            parameter("outgoing_bias", dim),
        )
        self.input_kernel = parameter("input_kernel", 2 * dim, 3 * dim)
        self.hidden_kernel = parameter("hidden_kernel", dim, 3 * dim)
        self.attention_last_kernel = parameter("attention_last_kernel", dim, dim)
        self.attention_item_kernel = parameter("attention_item_kernel", dim, dim)
        self.attention_bias = parameter("attention_bias", dim)
        self.attention_out_kernel = parameter("attention_out_kernel", dim, 1)
        self.merge_kernel = parameter("merge_kernel", 2 * dim, dim)

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u; zero for an empty session. No dropout is applied."""
        vectors = lookup.embedding_lookup(self.input_embedding, items)
        graph = session_graph(items, mask, edges=self.edges)
        for _ in range(self.steps):
            vectors = self._step(vectors, *graph)
        # A sum of products with 0 and 1: the last item is that without an item after it.
        is_last = mask & (jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1] == 1)
        last = jnp.einsum("bl,bld->bd", is_last.astype(vectors.dtype), vectors)
        query = last @ self.attention_last_kernel + self.attention_bias[None]
        hidden = query[:, None] + linear(vectors, self.attention_item_kernel)
        energy = linear(jax.nn.sigmoid(hidden), self.attention_out_kernel)[..., 0]
        attended = jnp.einsum("bl,bld->bd", jnp.where(mask, energy, 0.0), vectors)
        return jnp.concatenate([last, attended], axis=1) @ self.merge_kernel

    def _step(
        self, vectors: Float[Array, "B L D"], incoming: Float[Array, "B L L"], outgoing: Float[Array, "B L L"]
    ) -> Float[Array, "B L D"]:
        """Returns the vectors after a gated step."""
        batch, length, dim = vectors.shape
        from_before = incoming @ linear(vectors, self.incoming_kernel) + self.incoming_bias[None, None]
        from_after = outgoing @ linear(vectors, self.outgoing_kernel) + self.outgoing_bias[None, None]
        received = linear(jnp.concatenate([from_before, from_after], axis=-1), self.input_kernel)
        state = vectors.reshape(batch * length, dim)
        updated = gru_step(received.reshape(batch * length, -1), state, self.hidden_kernel, reset=self.reset)
        return updated.reshape(batch, length, dim)

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the input table, which also scores items; row 0 is padding."""
        return self.input_embedding
