"""The precisions of scores: their stated errors, and what each platform computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import scoring
from alkd_jax.ops.precision import SCORE_ERRORS, SCORE_PRECISIONS

# Precision → significant bits of a part, number of parts, and the largest sum of two parts' numbers that is multiplied.
SPLITS = {"BF16_BF16_F32_X6": (8, 3, 2), "TF32_TF32_F32_X3": (11, 2, 1), "BF16_BF16_F32_X3": (8, 2, 1)}
SPLITS["highest"] = SPLITS["BF16_BF16_F32_X6"]


def split(x, bits, parts, is_rounded):
    """Parts of numbers with so many significant bits each, the largest first, rounded or cut."""
    rest, found = x.astype(np.float64), []
    for _ in range(parts):
        unit = 2.0 ** (np.frexp(rest)[1] - bits)
        part = (np.rint if is_rounded else np.trunc)(rest / unit) * unit
        found.append(part)
        rest = rest - part
    return found


@pytest.mark.parametrize("is_rounded", [True, False])
@pytest.mark.parametrize("name", SCORE_PRECISIONS)
def test_a_product_of_parts_has_at_most_the_stated_error(name, is_rounded):
    bits, parts, most = SPLITS[name]
    rng = np.random.default_rng(0)
    # Near a power of two the parts that are left out are largest, relative to the number.
    worst = np.float32(1) + rng.integers(2**15, 2**17, 200_000).astype(np.float32) * np.float32(2**-23)
    numbers = np.concatenate([rng.normal(size=200_000).astype(np.float32), worst, 1 + (1 << 12) * worst * 2**-23])
    u, y = rng.permutation(numbers.astype(np.float32)), rng.permutation(numbers.astype(np.float32))
    of_u, of_y = (split(x, bits, parts, is_rounded) for x in (u, y))
    product = sum(of_u[i] * of_y[j] for i in range(parts) for j in range(parts) if i + j <= most)
    exact = u.astype(np.float64) * y.astype(np.float64)
    error = (np.abs(product - exact) / np.abs(exact)).max()
    assert error <= SCORE_ERRORS[name]
    if not is_rounded:
        assert error > SCORE_ERRORS[name] / 16, "the bound says little"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", SCORE_PRECISIONS)
def test_each_platform_computes_what_is_stated(name, dtype):
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((3, 8), (5, 8))]
    traced = jax.jit(functools.partial(scoring.scores, precision=name)).trace(*arrays)
    texts = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda", "tpu")}
    is_split = name != "highest" and dtype == jnp.float32
    assert "HIGHEST" in texts["cpu"]
    passes = "precision = [HIGH, HIGH]" if is_split and name == "BF16_BF16_F32_X3" else "HIGHEST"
    assert passes in texts["tpu"]
    assert not any("algorithm" in texts[platform] for platform in ("cpu", "tpu"))
    if not is_split:
        assert "algorithm" not in texts["cuda"]
        assert "HIGHEST" in texts["cuda"]
        return
    part, products = ("tf32" if name.startswith("TF32") else "bf16"), name[-1]
    assert f"lhs_precision_type = {part}, rhs_precision_type = {part}, accumulation_type = f32" in texts["cuda"]
    assert f"num_primitive_operations = {products}" in texts["cuda"]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("what", ["top_k", "ranks", "counts"])
def test_lists_and_ranks_are_computed_in_the_precision(what, platform):
    functions = {
        "top_k": lambda u, y, t, e: scoring.top_k(u, y, 2, exclude=e, precision="BF16_BF16_F32_X3"),
        "ranks": lambda u, y, t, e: scoring.full_catalogue_rank(u, y, t, exclude=e, precision="BF16_BF16_F32_X3"),
        "counts": lambda u, y, t, e: scoring.full_catalogue_counts(u, y, t, exclude=e, precision="BF16_BF16_F32_X3"),
    }
    items = jax.ShapeDtypeStruct((3,), jnp.int32), jax.ShapeDtypeStruct((3, 2), jnp.int32)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 8), (50, 8))]
    text = jax.jit(functions[what]).trace(*arrays, *items).lower(lowering_platforms=(platform,)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all("num_primitive_operations = 3" in p or "[HIGH, HIGH]" in p for p in products)


def test_on_a_cpu_every_precision_is_float32(key):
    vectors, table = jax.random.normal(key, (4, 2, 16)), jax.random.normal(jax.random.key(1), (90, 16))
    target, exclude = jnp.arange(4) + 3, jnp.arange(8).reshape(4, 2)
    expected = scoring.top_k(vectors, table, 7, exclude=exclude)
    ranks = scoring.full_catalogue_rank(vectors[:, 0], table, target, exclude=exclude)
    for name in SCORE_PRECISIONS[1:]:
        for one, other in zip(scoring.top_k(vectors, table, 7, exclude=exclude, precision=name), expected, strict=True):
            np.testing.assert_array_equal(one, other)
        found = scoring.full_catalogue_rank(vectors[:, 0], table, target, exclude=exclude, precision=name)
        np.testing.assert_array_equal(found, ranks)


def test_an_unknown_precision_is_refused():
    u, y, target, exclude = jnp.ones((1, 2)), jnp.ones((3, 2)), jnp.ones(1, jnp.int32), jnp.ones((1, 1), jnp.int32)
    for call in (
        lambda: scoring.scores(u, y, precision="low"),
        lambda: scoring.top_k(u, y, 1, exclude=exclude, precision="low"),
        lambda: scoring.full_catalogue_rank(u, y, target, exclude=exclude, precision="low"),
        lambda: scoring.full_catalogue_counts(u, y, target, exclude=exclude, precision="low"),
    ):
        with pytest.raises(ValueError, match="precision is 'low'; expected"):
            call()
