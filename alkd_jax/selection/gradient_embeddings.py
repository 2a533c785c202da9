"""Sessions of large and different gradients: k-means++ on gradient embeddings that are never written out.

The embedding of a session is the gradient, with respect to the item table, of the cross-entropy of the item that the
model itself finds best: ``G_s = q_s u_sᵀ`` ``[V, D]`` with ``q_s = p_s − e_best``. Products of two of them factorize,
``⟨G_a, G_b⟩ = (q_a · q_b)(u_a · u_b)``, so that C numbers and a vector for each session suffice.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_count, check_finite, check_span, check_where
from alkd_jax.maxmin.game import FloatArray, IntArray
from alkd_jax.selection.difficulty import check_num
from alkd_jax.selection.sampling import RandomKey


@flax.struct.dataclass
class GradientEmbeddings:
    """The factors of the gradient embeddings of N sessions.

    Attributes:
        items: ``[N, C]`` int32, the candidates of each session; 0 where there are fewer than C.
        residual: ``[N, C]`` float32, q, the probabilities of the candidates minus 1 for the best; 0 for item 0.
        vectors: ``[N, D]`` float32, u.
        num_items: V.
    """

    items: Int[Array, "N C"]
    residual: Float[Array, "N C"]
    vectors: Float[Array, "N D"]
    num_items: int = flax.struct.field(pytree_node=False)

    def squared_norms(self) -> Float[Array, " N"]:
        """Returns ``‖G_s‖² = ‖q_s‖² ‖u_s‖²``."""
        return (self.residual**2).sum(1) * (self.vectors**2).sum(1)

    def squared_distances(self, center: Int[Array, ""] | int) -> Float[Array, " N"]:
        """Returns ``‖G_s − G_c‖²`` for the session c, in the memory of one number for each item and session."""
        q = jnp.zeros(self.num_items + 1).at[self.items[center]].add(self.residual[center])
        of_items = (q[self.items] * self.residual).sum(1)
        of_vectors = self.vectors @ self.vectors[center]
        norms = self.squared_norms()
        return jnp.maximum(norms + norms[center] - 2.0 * of_items * of_vectors, 0.0)


def gradient_embeddings(
    scores: FloatArray, items: IntArray, session_vectors: FloatArray, *, num_items: int
) -> GradientEmbeddings:
    """Computes the factors of gradient embeddings, with probabilities over each session's candidates.

    Args:
        scores: ``[N, C]`` scores of the candidates; −inf where a session has fewer than C.
        items: ``[N, C]`` the candidates, distinct in each row; 0 or −1 where there are fewer.
        session_vectors: ``[N, D]`` u.
        num_items: V.

    Raises:
        ValueError: shapes disagree, a score is NaN or +inf, an item is unknown, a session has no candidate, or a vector
            is not finite.
    """
    num_sessions = session_vectors.shape[0]
    if scores.ndim != 2 or scores.shape != items.shape or scores.shape[0] != num_sessions:
        shapes = f"scores {list(scores.shape)}, items {list(items.shape)}"
        raise ValueError(f"shapes are {shapes}; expected [{num_sessions}, C] for both, as session_vectors")
    check_count(1, num_items=num_items)
    check_where(scores < jnp.inf, "scores", scores, "a number, or −inf where there is no candidate")
    check_span("items", items, -1, num_items)
    is_candidate = (scores > -jnp.inf) & (items > 0)
    check_where(is_candidate.any(1), "number of candidates", is_candidate.sum(1), "at least 1 in each session")
    check_finite("session_vectors", session_vectors)
    masked = jnp.where(is_candidate, jnp.asarray(scores, jnp.float32), -jnp.inf)
    best = jax.nn.one_hot(jnp.argmax(masked, axis=1), masked.shape[1])
    residual = jax.nn.softmax(masked, axis=1) - best
    return GradientEmbeddings(
        jnp.where(is_candidate, jnp.asarray(items, jnp.int32), 0),
        jnp.where(is_candidate, residual, 0.0),
        jnp.asarray(session_vectors, jnp.float32),
        num_items,
    )


def k_means_plus_plus(key: RandomKey, embeddings: GradientEmbeddings, *, num: int = 500) -> Int[Array, " num"]:
    """Samples sessions as k-means++ seeds its centers: the first uniformly, each further one by its squared distance.

    ``P(s) ∝ min_{c ∈ chosen} ‖G_s − G_c‖²``. Where all distances are 0, each session that is left is as likely.

    Args:
        key: a JAX key; the function consumes it.
        embeddings: of N sessions.
        num: number of sessions to select.

    Returns:
        ``[num]`` distinct indices in the order of selection.

    Raises:
        ValueError: ``num`` is not in 1..N.

    Reference:
        Ash et al., Deep batch active learning by diverse, uncertain gradient lower bounds (BADGE), ICLR 2020; Arthur
        and Vassilvitskii, k-means++, SODA 2007.
    """
    check_num(num, embeddings.vectors)
    return _k_means_plus_plus(key, embeddings, num=num)


@functools.partial(jax.jit, static_argnames="num")
def _k_means_plus_plus(key: RandomKey, embeddings: GradientEmbeddings, *, num: int) -> Int[Array, " num"]:
    num_sessions = embeddings.vectors.shape[0]
    tiny = jnp.finfo(jnp.float32).tiny

    def sample_next(place: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, distance = state
        last = chosen[place - 1]
        distance = jnp.minimum(distance, jnp.maximum(embeddings.squared_distances(last), tiny)).at[last].set(0.0)
        drawn = jax.random.categorical(jax.random.fold_in(key, place), jnp.log(distance))
        return chosen.at[place].set(drawn.astype(jnp.int32)), distance

    first = jax.random.randint(jax.random.fold_in(key, 0), (), 0, num_sessions, jnp.int32)
    start = jnp.zeros(num, jnp.int32).at[0].set(first), jnp.full(num_sessions, jnp.inf)
    return jax.lax.fori_loop(1, num, sample_next, start)[0]
