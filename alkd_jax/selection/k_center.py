"""Sessions that cover all others: the greedy solution of the k-center problem on session vectors."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_finite
from alkd_jax.maxmin.game import FloatArray
from alkd_jax.selection.difficulty import check_num
from alkd_jax.selection.sampling import RandomKey


def k_center(key: RandomKey, session_vectors: FloatArray, *, num: int = 500) -> Int[Array, " num"]:
    """Selects one session after another that is farthest from those selected before.

    The first one is random. The largest distance of a session from its nearest selected one is then at most twice the
    least that any selection with the same first session has. Memory is that of the vectors and N numbers.

    Args:
        key: a JAX key; the function consumes it.
        session_vectors: ``[N, D]``, such as the student's encoding of each session.
        num: number of sessions to select.

    Returns:
        ``[num]`` distinct indices in the order of selection; ties go to the lower index.

    Raises:
        ValueError: ``num`` is not in 1..N, or a number is not finite.

    Reference:
        Gonzalez, Clustering to minimize the maximum intercluster distance, 1985; Sener and Savarese, Active learning
        for convolutional neural networks: a core-set approach, ICLR 2018.

    Example:
        >>> chosen = alkd.selection.k_center(jax.random.key(0), jnp.array([[0.0], [0.1], [9.0]]), num=2)
        >>> 2 in chosen.tolist()
        True
    """
    check_num(num, session_vectors)
    check_finite("session_vectors", session_vectors)
    return _k_center(key, jnp.asarray(session_vectors, jnp.float32), num=num)


@functools.partial(jax.jit, static_argnames="num")
def _k_center(key: RandomKey, vectors: Float[Array, "N D"], *, num: int) -> Int[Array, " num"]:
    def select_farthest(place: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, distance = state
        squared = ((vectors - vectors[chosen[place - 1]][None]) ** 2).sum(1)
        # A selected session has a distance below all others, also below that of its duplicates.
        distance = jnp.minimum(distance, squared).at[chosen[place - 1]].set(-1.0)
        return chosen.at[place].set(jnp.argmax(distance).astype(jnp.int32)), distance

    first = jax.random.randint(key, (), 0, vectors.shape[0], jnp.int32)
    start = jnp.zeros(num, jnp.int32).at[0].set(first), jnp.full(vectors.shape[0], jnp.inf)
    return jax.lax.fori_loop(1, num, select_farthest, start)[0]
