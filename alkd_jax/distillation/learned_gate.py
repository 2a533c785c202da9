"""S-LLMR's learned gate: the list of each session counts as much as a gate, trained with the student, lets it.

The gate is a logistic regression on three features of a session: how long it is, how popular its items are, and how
uncertain the student is. Without a prior it would close, because a list can only add to the loss.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alkd_jax import losses, scoring, training
from alkd_jax.checks import check_finite, check_share
from alkd_jax.distillation.method import check_weight
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import BoundLoss, InBatchBPR, Loss
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.training.list_examples import ListExamples
from alkd_jax.types import Batch, Rankings, Sessions

NUM_FEATURES = 3
_GATE = "gate"


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of :func:`distill`.

    Attributes:
        weight: λ, at least 0.
        share: ρ in (0, 1), the expected mean of the gate.
        prior: κ, at least 0, the weight of the prior.
    """

    weight: float = 1.0
    share: float = 0.5
    prior: float = 1.0

    def __post_init__(self) -> None:
        check_weight(weight=self.weight, prior=self.prior)
        check_share("share", self.share)
        if self.share == 1:
            raise ValueError("share is 1; expected a number below 1, the mean of a gate that is never quite open")


def gate_features(
    sessions: Sessions, popularity: Float[np.ndarray, " V1"], uncertainty: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "N F"]:
    """Returns the features of each session, with mean 0 and standard deviation 1 over the sessions.

    Args:
        sessions: N sessions; their targets are not read.
        popularity: how often each item occurs in the training sessions.
        uncertainty: of the student about the next item, see :func:`alkd_jax.selection.entropy`.

    Returns:
        Logarithm of the length, mean log popularity of the items, and uncertainty; a feature without spread is 0.

    Raises:
        ValueError: the number of uncertainties is another than that of the sessions, or one is not finite.
    """
    if len(uncertainty) != len(sessions):
        raise ValueError(f"uncertainty has {len(uncertainty)} numbers; expected {len(sessions)}, one for each session")
    check_finite("uncertainty", uncertainty)
    mask = np.asarray(sessions.mask)
    length = np.maximum(mask.sum(1), 1)
    log_popularity = np.where(mask, np.log1p(popularity)[np.asarray(sessions.items)], 0.0).sum(1) / length
    features = np.stack([np.log(length), log_popularity, uncertainty], axis=1)
    centered = features - features.mean(0)
    spread = centered.std(0)
    return (centered / np.where(spread > 1e-8, spread, 1.0)).astype(np.float32)


def gate_values(gate: Params, features: Float[Array, "B F"]) -> Float[Array, " B"]:
    """``g = σ(w · x + c)``, with the parameters ``weights`` w ``[F]`` and ``bias`` c."""
    return jax.nn.sigmoid(features @ gate["weights"] + gate["bias"])


def sparsity_prior(mean: Float[Array, ""], share: Float[Array, ""] | float) -> Float[Array, ""]:
    """``KL(m ‖ ρ) = m log(m/ρ) + (1 − m) log((1 − m)/(1 − ρ))`` of the mean m of the gate and its expected value ρ."""
    mean = jnp.clip(mean, 1e-6, 1 - 1e-6)
    return mean * jnp.log(mean / share) + (1 - mean) * jnp.log((1 - mean) / (1 - share))


@flax.struct.dataclass
class GatedListLoss(BoundLoss):
    """``L = L_student + λ mean_b g_b L_list(b) + κ KL(mean_b g_b ‖ ρ)``, with means over the sessions that have a list.

    ``L_list`` is RankNet's loss of the pairs of a list, see :func:`alkd_jax.losses.ranknet`.

    Attributes:
        student: the student's own loss of the sessions' labels.
        features: ``[N, F]`` features of each training session.
        weight: λ.
        share: ρ.
        prior: κ.
    """

    student: Loss
    features: Float[Array, "N F"]
    weight: Float[Array, ""] | float
    share: Float[Array, ""] | float
    prior: Float[Array, ""] | float

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch of :func:`gated_examples`."""
        listed = batch.listed  # type: ignore[attr-defined]
        has_list = (listed > 0).any(1) & (batch.weight > 0)
        gate = jnp.where(has_list, gate_values(params[_GATE], self.features[batch.session]), 0.0)
        vectors = self.encode(params, batch, key)
        scores = scoring.candidate_scores(vectors, embedding_lookup(self.item_embeddings(params, key), listed))
        num_lists = jnp.maximum(has_list.sum(), 1)
        mean_gate = gate.sum() / num_lists
        # The loss with weights is divided by their sum, and not by the number of lists.
        of_lists = losses.ranknet(scores, where=listed > 0, weight=gate) * mean_gate
        prior = jnp.where(has_list.any(), sparsity_prior(mean_gate, self.share), 0.0)
        return self.student(params, batch, key) + self.weight * of_lists + self.prior * prior


def gated_examples(rankings: Rankings, train: Sessions) -> ListExamples:
    """Returns one example for every training session, with its own next item as target, and its list where it has one.

    Raises:
        ValueError: a list belongs to no training session.
    """
    mask, num = np.asarray(rankings.mask), len(train)
    listed = np.zeros((num, mask.shape[1]), np.int32)
    listed[train.rows_of(rankings.session_id)] = np.where(mask, np.asarray(rankings.items), 0)
    session, target = jnp.arange(num, dtype=jnp.int32), jnp.asarray(train.target, jnp.int32)
    return ListExamples(session=session, target=target, weight=jnp.ones(num), listed=jnp.asarray(listed))


def distill(
    key: jax.Array,
    model: Encoder,
    student_params: Params,
    train: Sessions,
    validation: Sessions,
    rankings: Rankings,
    *,
    features: Float[np.ndarray, "N F"],
    options: Options = Options(),
    loss: Loss | None = None,
    patience: int = 20,
    **fit_options: Any,
) -> training.FitResult:
    """Trains a student further on all labels and on the lists of some sessions, each list as far as the gate is open.

    Args:
        key: a JAX key; the function consumes it.
        model: the student's backbone.
        student_params: its trained parameters, with a leading seed axis.
        train: the training sessions.
        validation: the sessions that decide when training stops.
        rankings: the teacher's lists for some training sessions.
        features: ``[N, F]`` features of each training session, see :func:`gate_features`; those without a list are not
            read.
        options: the weights and the expected mean of the gate.
        loss: the student's own loss; default in-batch BPR.
        patience: as in :func:`alkd_jax.training.fit`.
        **fit_options: further options of :func:`alkd_jax.training.fit`.

    Returns:
        The student, without the gate.

    Raises:
        ValueError: a list belongs to no training session, features are not ``[N, 3]`` finite numbers, or as in
            :func:`alkd_jax.training.fit`.

    Reference:
        S-LLMR, selective LLM-guided regularization, arXiv 2512.21526, with pairs of a list in place of pairwise answers
        and a prior for the mean of the gate.
    """
    if features.shape != (len(train), NUM_FEATURES):
        raise ValueError(f"shape of features is {list(features.shape)}; expected [{len(train)}, {NUM_FEATURES}]")
    check_finite("features", features)
    numbers = {name: jnp.float32(value) for name, value in dataclasses.asdict(options).items()}
    gated = GatedListLoss(model, InBatchBPR(model) if loss is None else loss, jnp.asarray(features), **numbers)
    bias = float(np.log(options.share) - np.log1p(-options.share))

    def init_gate(key: jax.Array, model: Encoder) -> Params:
        return {_GATE: {"weights": jnp.zeros(NUM_FEATURES), "bias": jnp.full((), bias)}}

    return training.fit(
        key,
        model,
        train,
        validation,
        initial=student_params,
        extra_params_init=init_gate,
        examples=gated_examples(rankings, train),
        loss=gated,
        patience=patience,
        **fit_options,
    )
