"""Scores of items for sessions that have one vector or several."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def scores(session_vectors: Float[Array, "B *L D"], item_embeddings: Float[Array, "V D"]) -> Float[Array, "B V"]:
    """Computes ``u_b · Y_v`` for every item, in full float32 precision, since rankings are defined by it.

    A session with several vectors is scored by their log-sum-exp, ``log Σ_l exp(u_bl · Y_v)``. Where vectors and table
    are stored in bfloat16, products are still accumulated in float32.

    Args:
        session_vectors: u; one vector for each session, or one for each position.
        item_embeddings: Y; row 0 is the padding.
    """
    dtype = jnp.promote_types(jnp.result_type(session_vectors, item_embeddings), jnp.float32)
    # An einsum rather than a product with the transposed table, which XLA would copy for a single row, or read with
    # a stride.
    products = jnp.einsum(
        "b...d,vd->b...v",
        session_vectors,
        item_embeddings,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype,
    )
    return logsumexp_pool(products)


def candidate_scores(session_vectors: Float[Array, "B *L D"], candidates: Float[Array, "B K D"]) -> Float[Array, "B K"]:
    """Computes :func:`scores` of each session's own candidates, in the device's default precision, for losses.

    Args:
        session_vectors: u; one vector for each session, or one for each position.
        candidates: the rows of Y of each session's candidates.
    """
    return logsumexp_pool(jnp.einsum("b...d,bkd->b...k", session_vectors, candidates))


def logsumexp_pool(products: Float[Array, "B *L C"]) -> Float[Array, "B C"]:
    """Returns one score for each item: the product itself, or the log-sum-exp over a session's vectors."""
    return products if products.ndim == 2 else jax.nn.logsumexp(products, axis=1)
