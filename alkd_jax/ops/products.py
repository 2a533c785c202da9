"""Scores of items for sessions, of one vector or several."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def scores(session_vectors: Float[Array, "B *L D"], item_embeddings: Float[Array, "V D"]) -> Float[Array, "B V"]:
    """``u_b · Y_v`` for every item, in full float32 precision, since rankings are defined by it.

    A session of several vectors scores by their soft maximum, ``log Σ_l exp(u_bl · Y_v)``. Where vectors and table are
    stored in bfloat16, products are still added up in float32.

    Args:
        session_vectors: u; one vector a session, or one a position.
        item_embeddings: Y, row 0 the padding.
    """
    kept = jnp.promote_types(jnp.result_type(session_vectors, item_embeddings), jnp.float32)
    # Not with the transposed table: for a single row XLA would copy it, or walk through it against its order.
    products = jnp.einsum(
        "b...d,vd->b...v",
        session_vectors,
        item_embeddings,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=kept,
    )
    return logsumexp_pool(products)


def candidate_scores(session_vectors: Float[Array, "B *L D"], listed: Float[Array, "B K D"]) -> Float[Array, "B K"]:
    """:func:`scores` of each session's own items, in the device's default precision, for losses.

    Args:
        session_vectors: u; one vector a session, or one a position.
        listed: rows of Y.
    """
    return logsumexp_pool(jnp.einsum("b...d,bkd->b...k", session_vectors, listed))


def logsumexp_pool(products: Float[Array, "B *L C"]) -> Float[Array, "B C"]:
    """Scores from the products of each vector of a session: the soft maximum where there are several."""
    return products if products.ndim == 2 else jax.nn.logsumexp(products, axis=1)
