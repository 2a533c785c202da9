"""NARM: a recurrent network whose states are also attended to, with the last state as the query."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_one_of
from alkd_jax.models.causal import known_positions
from alkd_jax.models.encoder import drop
from alkd_jax.models.fpmc import xavier_normal_table
from alkd_jax.models.gru import RESETS, gru_states
from alkd_jax.models.initial_values import glorot_blocks
from alkd_jax.ops import lookup
from alkd_jax.ops.products import linear


class NARM(nn.Module):
    """The neural attentive recommendation machine.

    A gated recurrent unit without biases reads the session and has the states ``h_1 … h_t``. ``c_g = h_t``,
    ``α_j = vᵀ σ(A₁ h_t + A₂ h_j)`` (no softmax), ``c_l = Σ_j α_j h_j``, ``u = [c_g, c_l] B``,
    ``score(s, v) = u · X_v`` with the input table.

    With H = ``state_factor`` D, parameters: ``(V + 1) D + 3 D H + 5 H² + H + 2 H D``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D of the item table.
        state_factor: H / D, the width of the states; 2 in the paper, whose tables have width 50.
        reset: "before", as in the paper, or "after", see :func:`alkd_jax.models.gru.gru_step`.
        embedding_dropout: dropout rate of the input in training.
        context_dropout: dropout rate of ``[c_g, c_l]`` in training.

    Reference:
        Li et al., Neural attentive session-based recommendation, CIKM 2017, eq. 1-10.
    """

    num_items: int
    dim: int
    state_factor: int = 2
    reset: str = "before"
    embedding_dropout: float = 0.25
    context_dropout: float = 0.5

    def setup(self) -> None:
        """Declares the item table, the recurrent unit, the attention and the bilinear map."""
        check_one_of("reset", self.reset, RESETS)
        width = self.state_factor * self.dim
        square = functools.partial(glorot_blocks, num_blocks=1)
        self.input_embedding = self.param("input_embedding", xavier_normal_table, (self.num_items + 1, self.dim))
        self.input_kernel = self.param("input_kernel", glorot_blocks, (self.dim, 3 * width))
        self.hidden_kernel = self.param("hidden_kernel", glorot_blocks, (width, 3 * width))
        self.attention_last_kernel = self.param("attention_last_kernel", square, (width, width))
        self.attention_item_kernel = self.param("attention_item_kernel", square, (width, width))
        self.attention_out_kernel = self.param("attention_out_kernel", square, (width, 1))
        self.merge_kernel = self.param("merge_kernel", square, (2 * width, self.dim))

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u; zero for an empty session. With ``train``, dropout uses the random stream "dropout"."""
        states = self._states(items, mask, train=train)
        last = states[:, -1]
        hidden = (last @ self.attention_last_kernel)[:, None] + linear(states, self.attention_item_kernel)
        energy = linear(jax.nn.sigmoid(hidden), self.attention_out_kernel)[..., 0]
        attended = jnp.einsum("bl,bld->bd", jnp.where(mask, energy, 0.0), states)
        return self._merge(last, attended, train=train)

    def encode_positions(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Returns at each position the u of the session up to it, in one pass over the session."""
        states = self._states(items, mask, train=train)
        queries, keys = linear(states, self.attention_last_kernel), linear(states, self.attention_item_kernel)
        hidden = jax.nn.sigmoid(queries[:, :, None] + keys[:, None])
        energy = linear(hidden, self.attention_out_kernel)[..., 0]
        attended = jnp.einsum("btl,bld->btd", jnp.where(known_positions(mask), energy, 0.0), states)
        return self._merge(states, attended, train=train)

    def _states(self, items: Array, mask: Array, *, train: bool) -> Float[Array, "B L H"]:
        x = lookup.embedding_lookup(self.input_embedding, items)
        x = drop(self, x, self.embedding_dropout) if train else x
        return gru_states(linear(x, self.input_kernel), mask, self.hidden_kernel, reset=self.reset)

    def _merge(self, last: Array, attended: Array, *, train: bool) -> Array:
        context = jnp.concatenate([last, attended], axis=-1)
        context = drop(self, context, self.context_dropout) if train else context
        return linear(context, self.merge_kernel)

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the input table, which also scores items; row 0 is padding."""
        return self.input_embedding
