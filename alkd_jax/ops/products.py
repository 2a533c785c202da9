"""Scores of items for sessions with one vector or several, and products over a session's items.

Their shapes are chosen so that XLA computes them fast; the docstrings say why where a plain formula would be slower.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_one_of
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.ops.platforms import cpu_or_device, cuda_or_tpu_or_other
from alkd_jax.ops.precision import SCORE_PRECISIONS, at_least_float32

_NARROW_WIDTH = 32
"""Rows of at most this width are combined, because shorter rows leave a CPU's vector registers partly empty."""
_LEVELS_PER_PRODUCT = 2
_CACHED_BYTES = 4 * 2**20
"""Size of gathered rows that a CPU's cache holds."""


def scores(
    session_vectors: Float[Array, "B *L D"], item_embeddings: Float[Array, "V D"], *, precision: str = "highest"
) -> Float[Array, "B V"]:
    """Computes ``u_b · Y_v`` for every item, by default in full float32 precision, since rankings are defined by it.

    A session with several vectors is scored by their log-sum-exp, ``log Σ_l exp(u_bl · Y_v)``. Where vectors and table
    are stored in bfloat16, products are still accumulated in float32.

    Args:
        session_vectors: u; one vector for each session, or one for each position.
        item_embeddings: Y; row 0 is the padding.
        precision: how products are computed, with the errors that :mod:`alkd_jax.ops.precision` states.

    Raises:
        ValueError: ``precision`` is unknown.
    """
    # An einsum rather than a product with the transposed table, which XLA would copy for a single row, or read with
    # a stride.
    return logsumexp_pool(_score_products("b...d,vd->b...v", session_vectors, item_embeddings, precision))


def block_scores(
    session_vectors: Float[Array, "B *L D"], blocks: Float[Array, "N W D"], *, precision: str = "highest"
) -> Float[Array, "B N W"]:
    """Computes :func:`scores` of items in blocks.

    Args:
        session_vectors: u; one vector for each session, or one for each position.
        blocks: the rows of Y.
        precision: as of :func:`scores`.
    """
    products = _score_products("b...d,nwd->b...nw", session_vectors, blocks, precision)
    return products if products.ndim == 3 else jax.nn.logsumexp(products, axis=1)


def _score_products(equation: str, session_vectors: Array, rows: Array, precision: str) -> Array:
    """An einsum of session vectors and rows of the table, accumulated at least in float32."""
    check_one_of("precision", precision, SCORE_PRECISIONS)
    operand_dtype = jnp.result_type(session_vectors, rows)
    dtype = jnp.promote_types(operand_dtype, jnp.float32)

    def product(precision: Any) -> Callable[[Array, Array], Array]:
        return functools.partial(jnp.einsum, equation, precision=precision, preferred_element_type=dtype)

    highest = product(jax.lax.Precision.HIGHEST)
    # Numbers of 16 bits are multiplied exactly in a single pass, and those of 64 bits are not split.
    if precision == "highest" or operand_dtype != jnp.float32:
        return highest(session_vectors, rows)
    on_gpu = product(jax.lax.DotAlgorithmPreset[precision])
    on_tpu = product(jax.lax.Precision.HIGH) if precision == "BF16_BF16_F32_X3" else highest
    return cuda_or_tpu_or_other(on_gpu, on_tpu, highest)(session_vectors, rows)


def candidate_scores(session_vectors: Float[Array, "B *L D"], candidates: Float[Array, "B K D"]) -> Float[Array, "B K"]:
    """Computes :func:`scores` of each session's own candidates, in the device's default precision, for losses.

    Args:
        session_vectors: u; one vector for each session, or one for each position.
        candidates: the rows of Y of each session's candidates.
    """
    session_vectors, candidates = at_least_float32(session_vectors), at_least_float32(candidates)
    return logsumexp_pool(jnp.einsum("b...d,bkd->b...k", session_vectors, candidates))


def position_scores(
    vectors: Float[Array, "B L D"], table: Float[Array, "V D"], candidates: Int[Array, "B L C"]
) -> Float[Array, "B L C"]:
    """Computes ``u_bl · Y_c`` of each position's own candidates c, in the device's default precision, for losses.

    The rows of a few positions are gathered at a time, and again for the gradient: those of all positions together
    would take C times as much memory as the vectors. On a CPU they are so few that their rows stay in its cache.

    Args:
        vectors: u, one for each position.
        table: Y.
        candidates: rows of the table.
    """
    num_sessions, bytes_of_one = len(vectors), candidates.shape[-1] * table.shape[-1] * 4
    few = _largest_divisor(num_sessions, most=_CACHED_BYTES // bytes_of_one)
    scores = cpu_or_device(
        functools.partial(_position_scores, sessions=few), functools.partial(_position_scores, sessions=num_sessions)
    )
    return scores(at_least_float32(vectors), table, candidates)


def _largest_divisor(number: int, *, most: int) -> int:
    """Returns the largest divisor of a number that is at most ``most``, and 1 where there is none."""
    return max(n for n in range(1, number + 1) if number % n == 0 and (n == 1 or n <= most))


def _position_scores(vectors: Array, table: Array, candidates: Array, *, sessions: int) -> Array:
    """Scores one position of some sessions at a time, which lie apart so that a mesh's parts of a batch stay whole."""
    (batch, length), count = vectors.shape[:2], candidates.shape[-1]
    parts = batch // sessions

    def apart(x: Array) -> Array:
        return x.reshape(sessions, parts * length, -1).swapaxes(0, 1)

    @jax.checkpoint
    def scores_of(position: tuple[Array, Array]) -> Array:
        vector, rows = position
        return jnp.einsum("bd,bcd->bc", vector, at_least_float32(embedding_lookup(table, rows)))

    found = jax.lax.map(scores_of, (apart(vectors), apart(candidates)))
    return found.swapaxes(0, 1).reshape(batch, length, count)


def logsumexp_pool(products: Float[Array, "B *L C"]) -> Float[Array, "B C"]:
    """Returns one score for each item: the product itself, or the log-sum-exp over a session's vectors."""
    return products if products.ndim == 2 else jax.nn.logsumexp(products, axis=1)


def linear(
    x: Float[Array, "*batch I"], kernel: Float[Array, "I D"], bias: Float[Array, " D"] | None = None
) -> Float[Array, "*batch D"]:
    """``x W + b``, as one product of two matrices.

    The gradient of W contracts the rows of x, which takes twice as long over two axes on a CPU.
    """
    flat = x.reshape(-1, x.shape[-1]) @ kernel
    flat = flat if bias is None else flat + bias[None]
    return flat.reshape(*x.shape[:-1], kernel.shape[1])


def linear_of_stored(
    x: Float[Array, "*batch I"], kernel: Float[Array, "I D"], bias: Float[Array, " D"] | None = None
) -> Float[Array, "*batch D"]:
    """:func:`linear` of an array that is stored row by row before it is multiplied, and so is the result's gradient.

    Products of the heads of attention have the positions innermost, and XLA lays out all that is added to them alike.
    It would then transpose inside of this product, for which jaxlib 0.10.2 has no tiles on a GPU. A CPU stores the
    operands of a product anyway.
    """
    flat = jax.lax.optimization_barrier(x.reshape(-1, x.shape[-1]))
    return _with_stored_gradient(linear(flat, kernel, bias)).reshape(*x.shape[:-1], kernel.shape[1])


@jax.custom_jvp
def _with_stored_gradient(x: Array) -> Array:
    return x


@_with_stored_gradient.defjvp
def _store_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return primals[0], jax.lax.optimization_barrier(tangents[0])


def weighted_sum(weight: Float[Array, "B L"], x: Float[Array, "B L D"]) -> Float[Array, "B D"]:
    """``Σ_l w_bl x_bl``, as a product: on a CPU a sum over a middle axis takes several times as long."""
    return jnp.einsum("bl,bld->bd", weight, x, precision=jax.lax.Precision.HIGHEST)


def project_items(x: Float[Array, "B L D"], kernel: Float[Array, "D E"]) -> Float[Array, "B L E"]:
    """``x_bl W`` for every item of every session, as :func:`linear`.

    Narrow vectors are concatenated, several per row, with a block-diagonal kernel.
    """
    (batch, length, dim), width = x.shape, kernel.shape[1]
    per_row = _largest_divisor(length, most=_NARROW_WIDTH // dim)
    product = x.reshape(-1, per_row * dim) @ jnp.kron(jnp.eye(per_row, dtype=kernel.dtype), kernel)
    return product.reshape(batch, length, width)


def add_to_items(x: Float[Array, "B L D"], session_vector: Float[Array, "B D"]) -> Float[Array, "B L D"]:
    """``x_bl + q_b`` for every item of every session.

    A product repeats narrow vectors q, because copies of a few numbers each take twice as long on a CPU.
    """
    _, length, dim = x.shape
    if dim > _NARROW_WIDTH:
        return x + session_vector[:, None]
    repeat = jnp.tile(jnp.eye(dim, dtype=session_vector.dtype), length)
    copies = jnp.matmul(session_vector, repeat, precision=jax.lax.Precision.HIGHEST)
    return (x.reshape(copies.shape) + copies).reshape(x.shape)


def prefix_products(x: Float[Array, "B K D"], kernels: Sequence[Float[Array, "_ D"]]) -> Float[Array, "B K D"]:
    """``[x_b1, …, x_bi] W_i`` for every i: the concatenation of the first i vectors, times the i-th kernel.

    Kernels of adjacent i form one block matrix, padded with zeros below the shorter kernel: on a CPU two of them, which
    multiplies little by the padding, and all of them elsewhere, where a product of so small matrices takes no longer
    than its start. (XLA of jaxlib 0.10.2 has no tiles for some of the pairs on a GPU.)

    Args:
        x: K vectors of each session.
        kernels: K kernels, W_i of shape ``[i D, D]``.
    """
    pairs = functools.partial(_prefix_products, per_product=_LEVELS_PER_PRODUCT)
    return cpu_or_device(pairs, functools.partial(_prefix_products, per_product=len(kernels)))(x, tuple(kernels))


def _prefix_products(x: Array, kernels: Sequence[Array], *, per_product: int) -> Array:
    batch, num, dim = x.shape
    flat = x.reshape(batch, num * dim)
    products = []
    for first in range(0, num, per_product):
        some = kernels[first : first + per_product]
        height = some[-1].shape[0]
        block = jnp.concatenate([jnp.pad(kernel, ((0, height - kernel.shape[0]), (0, 0))) for kernel in some], axis=1)
        products.append((flat[:, :height] @ block).reshape(batch, len(some), dim))
    return jnp.concatenate(products, axis=1)


@jax.custom_vjp
def batched_product(queries: Float[Array, "N K P"], keys: Float[Array, "N L P"]) -> Float[Array, "N K L"]:
    """``Q_n K_nᵀ`` for every n; the custom gradient takes a quarter of the time on a CPU."""
    return jnp.einsum("nkp,nlp->nkl", queries, keys)


def _forward(queries: Array, keys: Array) -> tuple[Array, tuple[Array, Array]]:
    return batched_product(queries, keys), (queries, keys)


def _backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    queries, keys = residuals
    # The cotangent is transposed before the product, because small products that contract the first axis of both
    # operands take seven times as long. The barrier keeps XLA from merging the transpose into the product.
    transposed = jax.lax.optimization_barrier(cotangent.transpose(0, 2, 1))
    return jnp.einsum("nkl,nlp->nkp", cotangent, keys), jnp.einsum("nlk,nkp->nlp", transposed, queries)


batched_product.defvjp(_forward, _backward)
