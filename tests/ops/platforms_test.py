"""One jitted function, lowered for a TPU, a CUDA device and a CPU in one process: each program has its own branch."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import losses, maxmin, models, scoring
from alkd_jax.ops.platforms import cpu_or_device


class Case(NamedTuple):
    """A function, its arguments and its result by a plain formula; and arrays that only one kind of program has.

    The shape of a device is None where all its arrays are also in the program of a CPU.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    expected: Any
    cpu_shape: str
    device_shape: str | None
    tpu_shape: str | None = None


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def session_items(num):
    return jax.random.randint(jax.random.key(9), (num, 6), 1, 50)


def bpr_gradient():
    vectors, target_vectors, weight = normal(0, 600, 4), normal(1, 600, 4), jnp.ones(600)
    target, session = jnp.arange(600) % 20 + 1, jnp.arange(600) // 2

    def plain(u, y):
        return losses.in_batch_bpr(u @ y.T, target, negatives=session[:, None] != session[None])

    def fused(u, y):
        return jax.grad(losses.fused_in_batch_bpr, argnums=(0, 1))(u, y, target, session, weight)

    expected = jax.grad(plain, argnums=(0, 1))(vectors, target_vectors)
    return Case(fused, (vectors, target_vectors), expected, "256x600", "600x600")


def session_vectors():
    model, items = models.create("stamp", num_items=50, dim=6), session_items(300)
    args = models.init_params(jax.random.key(0), model), items, items > 3
    return Case(functools.partial(models.encode, model), args, model.apply(*args), "100x6x6", "300x6x6")


def ranks():
    vectors, table, target, exclude = normal(0, 20, 4), normal(1, 3001, 4), jnp.arange(20) + 5, session_items(20)

    def rank(vectors, table):
        return scoring.full_catalogue_rank(vectors, table, target, exclude=exclude)

    expected = scoring.target_rank(scoring.scores(vectors, table), target, exclude=exclude)
    return Case(rank, (vectors, table), expected, "20x768", "20x3021")


def lists():
    vectors, table = normal(0, 300, 2), normal(1, 40_001, 2)
    nothing = jnp.zeros((300, 1), jnp.int32)
    expected = jax.lax.top_k(scoring.scores(vectors, table)[:, 1:], 3)[1] + 1
    search = functools.partial(scoring.top_k, k=3, exclude=nothing)
    shapes = "100x16384", "300x40001", "313x304x128"
    return Case(lambda u, y: search(u, y)[1], (vectors, table), expected, *shapes)


def game():
    """Equal gains: all instances are alike, and the value is that of the uniform policy."""
    gains = tuple(jnp.full(70_000, gain) for gain in (4.0, 2.0, 1.0))

    def value(*gains):
        return maxmin.solve(*gains, num_effective=7_000, num_similar=35_000).value

    return Case(value, gains, jnp.float32(0.1 * 4 + 0.5 * 2 - 0.4 * 1), "65536", None)


CASES = [bpr_gradient, session_vectors, ranks, lists, game]


def check(case, found, texts):
    for platform, text in texts.items():
        tpu_shape = case.tpu_shape or case.device_shape
        own = {"cpu": case.cpu_shape, "cuda": case.device_shape, "tpu": tpu_shape}[platform]
        assert own is None or f"tensor<{own}x" in text, platform
        for other in {case.cpu_shape, case.device_shape, tpu_shape} - {own, None}:
            assert f"tensor<{other}x" not in text, platform
    for one, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(case.expected), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("runs_first", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("make", CASES)
def test_programs_for_other_platforms_and_for_the_cpu_each_have_their_branch(make, runs_first):
    case = make()
    jax.clear_caches()
    jitted = jax.jit(case.function)
    found = jitted(*case.args) if runs_first else None
    texts = {
        platform: jitted.trace(*case.args).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("tpu", "cuda", "cpu")
    }
    check(case, found if runs_first else jitted(*case.args), texts)
    assert "conditional(" not in jitted.lower(*case.args).compile().as_text(), "the choice is made before it runs"


@pytest.mark.parametrize("make", CASES)
def test_a_program_exported_for_all_platforms_holds_both_branches_and_runs_the_one_of_the_cpu(make):
    case = make()
    # JAX gives no guarantee that a later version knows the layouts that a TPU's branch asks for.
    layouts = [jax.export.DisabledSafetyCheck.custom_call("LayoutConstraint")]
    export = jax.export.export(jax.jit(case.function), platforms=("cpu", "cuda", "tpu"), disabled_checks=layouts)
    exported = export(*case.args)
    text = exported.mlir_module()
    assert f"tensor<{case.cpu_shape}x" in text
    assert case.device_shape is None or f"tensor<{case.device_shape}x" in text
    check(case, exported.call(*case.args), {})


def test_the_choice_stays_under_a_gradient_and_a_map_over_seeds():
    double_or_triple = cpu_or_device(lambda x: 2 * x, lambda x: 3 * x)
    gradient = jax.jit(jax.vmap(jax.grad(lambda x: double_or_triple(x) ** 2)))
    text = gradient.trace(jnp.arange(3.0)).lower(lowering_platforms=("tpu",)).as_text()
    assert gradient(jnp.arange(3.0)).tolist() == [0, 8, 16]
    assert "3.000000e+00" in text
