"""Ranking distillation: the head of the teacher's list joins the label as positives, by position and by need."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import training
from alkd_jax.distillation.entities import draw_items
from alkd_jax.distillation.inputs import fit_with_distillation, noise_key, teacher_vectors, top_lists, whole_sessions
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss, encode
from alkd_jax.ops import lookup
from alkd_jax.types import PAD, Batch, Sequences, Sessions


def static_weights(length: int, *, sharpness: Float[Array, ""] | float = 1.0) -> Float[Array, " K"]:
    """``a_r = exp(−r / λ) / Σ``, r = 1..K.

    Args:
        length: K.
        sharpness: λ; the smaller, the more the first position has.
    """
    return jax.nn.softmax(-jnp.arange(1, length + 1) / sharpness)


def dynamic_weights(
    listed: Float[Array, "B K"], sampled: Float[Array, "B C"], *, num_items: int, mu: Float[Array, ""] | float = 0.1
) -> Float[Array, "B K"]:
    """``max(0, tanh(μ (R_r − (r − 1))))``: what the student already ranks where the teacher does weighs nothing.

    R_r = ``⌊(V − 1) n_r / C⌋`` estimates an item's rank in the student from the n_r of C random items above it.

    Args:
        listed: the student's scores of the list, best position first.
        sampled: its scores of items drawn uniformly.
        num_items: V.
        mu: μ.

    Returns:
        Weights in [0, 1), without gradient.
    """
    above = (sampled[:, None, :] > listed[:, :, None]).sum(-1)
    rank = (num_items - 1) * above // sampled.shape[1]
    return jnp.maximum(0.0, jnp.tanh(mu * (rank - jnp.arange(listed.shape[1])[None])))


def list_loss(
    listed: Float[Array, "B K"],
    position_weight: Float[Array, "B K"],
    *,
    where: Bool[Array, "B K"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """``−mean_b Σ_r w_br log σ(s_br)``; weights are not made to sum to 1, so all may be 0.

    Args:
        listed: the student's scores of the list.
        position_weight: w, which has no gradient.
        where: which positions hold an item.
        weight: of the rows; 0 takes one out.

    Reference:
        Tang and Wang, Ranking distillation: learning compact ranking models with high performance, KDD 2018.
    """
    position_weight = jax.lax.stop_gradient(position_weight)
    terms = position_weight * jax.nn.softplus(-listed)
    return weighted_mean((terms if where is None else jnp.where(where, terms, 0.0)).sum(-1), weight)


def final_weights(
    listed: Float[Array, "B K"],
    sampled: Float[Array, "B C"],
    *,
    step: Int[Array, ""] | int,
    dynamic_from: Float[Array, ""] | float,
    num_items: int,
    sharpness: Float[Array, ""] | float = 1.0,
    mu: Float[Array, ""] | float = 0.1,
) -> Float[Array, "B K"]:
    """``a_r``, and from step ``dynamic_from`` on ``a_r d_r``."""
    static = jnp.broadcast_to(static_weights(listed.shape[1], sharpness=sharpness)[None], listed.shape)
    needed = dynamic_weights(listed, sampled, num_items=num_items, mu=mu)
    return jnp.where(step >= dynamic_from, static * needed, static)


@functools.lru_cache(maxsize=64)
def list_term(model: Encoder, *, num_sampled: int = 100) -> Loss:
    """:func:`list_loss` of the teacher's lists.

    ``batch.aside["distillation"]`` holds "lists" ``[N, K]`` by training session, 0 after the last, "dynamic_from",
    "sharpness" and "mu".

    Args:
        model: the student's backbone.
        num_sampled: C, uniform items by which a rank in the student is estimated.
    """

    def term(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        guide = batch.loss_inputs["distillation"]
        lists = guide["lists"][batch.session]
        rows = lists.shape[0]
        drawn = draw_items(noise_key(key), model, rows * num_sampled).reshape(rows, num_sampled)
        vectors, table = encode(model, params, batch, key), model.apply(params, method="item_embeddings")
        listed, sampled = (
            jnp.einsum("bd,bcd->bc", vectors, lookup.embedding_lookup(table, items)) for items in (lists, drawn)
        )
        settings = {name: guide[name] for name in ("dynamic_from", "sharpness", "mu")}
        weights = final_weights(listed, sampled, step=batch.step, num_items=model.num_items, **settings)
        return list_loss(listed, weights, where=lists != PAD, weight=batch.weight)

    return term


def distill(
    key: jax.Array,
    model: Encoder,
    teacher_model: Encoder,
    teacher_params: Params,
    train: Sessions,
    validation: Sessions,
    *,
    weight: float = 1.0,
    length: int = 10,
    sharpness: float = 1.0,
    mu: float = 0.1,
    dynamic_from: int = 100,
    num_sampled: int = 100,
    sequences: Sequences | None = None,
    **options: Any,
) -> training.FitResult:
    """Trains a student that takes the head of the teacher's list for positives too.

    Args:
        key: consumed; the same key trains the plain student.
        model: the student's backbone.
        teacher_model: the teacher's.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions.
        validation: sessions that decide when to stop.
        weight: α.
        length: K, of the teacher's lists, which hold nothing of the session, target included.
        sharpness: λ of :func:`static_weights`.
        mu: μ of :func:`dynamic_weights`.
        dynamic_from: step from which the dynamic weight counts; the authors' ten epochs are about 100 steps here.
        num_sampled: C of :func:`dynamic_weights`.
        sequences: the training sessions uncut, for what to leave out; by default as much of them as ``train`` holds.
        **options: ``base`` and ``loss_inputs`` of the student's own loss; options of :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: as :func:`alkd_jax.training.fit`; the weight is negative, a size is below 1.

    Reference:
        Tang and Wang, Ranking distillation: learning compact ranking models with high performance, KDD 2018.
    """
    for name, size in (("length", length), ("num_sampled", num_sampled)):
        if size < 1:
            raise ValueError(f"{name} is {size}; expected at least 1")
    teacher = teacher_vectors(teacher_model, teacher_params, train)
    lists = np.maximum(top_lists(teacher, length, whole_sessions(train, sequences)), PAD)
    guide = {"lists": lists, "weight": weight, "sharpness": sharpness, "mu": mu, "dynamic_from": dynamic_from}
    return fit_with_distillation(
        key, model, train, validation, list_term(model, num_sampled=num_sampled), guide, **options
    )
