"""What recommenders lose when the histories of test sessions are shuffled, as the audit of a dataset shows it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines, evaluation, objectives, scoring, training
from alkd_jax.checks import check_count
from alkd_jax.data.sequentiality import shuffle_items
from alkd_jax.data.sessions import leave_one_out, take_sequences
from alkd_jax.types import PAD

K = 10
"""Length of the lists that are compared, and cut-off of the metrics."""

METRICS = (f"recall@{K}", f"ndcg@{K}")


@dataclasses.dataclass(frozen=True)
class Recommender:
    """A recommender that was made from the training sessions.

    Attributes:
        name: its name in tables.
        max_length: number of most recent items that it reads; None for all.
        answer: function of N sessions that returns the ranks of their targets and lists of K items.
    """

    name: str
    max_length: int | None
    answer: Callable[[alkd.Sessions], tuple[np.ndarray, np.ndarray]]


def counting_recommenders(dataset: alkd.Dataset) -> list[Recommender]:
    """Returns the Markov chain, which reads the last item, and sequential rules, which weight items by recency."""
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    methods = {"Markov": baselines.method("markov"), "Sequential rules": baselines.method("sequential_rules")}

    def recommender(name: str, method: baselines.Method) -> Recommender:
        scorer = method(counts)

        def answer(sessions: alkd.Sessions) -> tuple[np.ndarray, np.ndarray]:
            ranks = baselines.rank_targets(scorer, counts, sessions)
            return ranks, np.asarray(baselines.top_k_lists(scorer, counts, sessions, K).items)

        return Recommender(name, None, answer)

    return [recommender(name, method) for name, method in methods.items()]


def trained_recommender(dataset: alkd.Dataset, backbone: str, *, dim: int = 64, max_steps: int = 2000) -> Recommender:
    """Trains a backbone to predict every item of the training sessions from those before it, by the full softmax.

    Args:
        dataset: the data.
        backbone: name of the backbone.
        dim: its width.
        max_steps: the largest number of training steps; training stops early by validation recall.
    """
    model = alkd.models.create(backbone, num_items=dataset.num_items, dim=dim)
    fitted = training.fit(
        jax.random.key(0),
        model,
        dataset.train,
        dataset.validation,
        targets="all",
        sequences=dataset.train_sequences,
        loss=objectives.FullSoftmax(model),
        max_steps=max_steps,
    )
    params = jax.tree.map(lambda leaf: leaf[0], fitted.params)

    def answer(sessions: alkd.Sessions) -> tuple[np.ndarray, np.ndarray]:
        ranks = evaluation.evaluate(model, params, sessions).ranks
        table = model.apply(params, method="item_embeddings")
        lists = [
            scoring.top_k(
                alkd.models.encode(model, params, part.items, part.mask), table, K, exclude=jnp.asarray(part.items)
            )[1]
            for part in (sessions.take(slice(start, start + 512)) for start in range(0, len(sessions), 512))
        ]
        return ranks, np.concatenate([np.asarray(ids) for ids in lists])

    return Recommender(backbone, dataset.train.items.shape[1], answer)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mean Jaccard index |A ∩ B| / |A ∪ B| of two ``[N, K]`` lists of distinct items; 0 and −1 are none."""
    in_second = (first[:, :, None] == second[:, None, :]).any(axis=2) & (first > PAD)
    common = in_second.sum(axis=1)
    union = (first > PAD).sum(axis=1) + (second > PAD).sum(axis=1) - common
    return float(np.mean(np.where(union > 0, common / np.maximum(union, 1), 1.0)))


def measure_order(
    dataset: alkd.Dataset,
    recommenders: list[Recommender],
    *,
    repeats: int = 3,
    max_sessions: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Ranks the last item of every test session by its history in order and in random order.

    All known items before the last one are shuffled, before a recommender takes the most recent of them. Items of the
    history are not ranked.

    Args:
        dataset: the data.
        recommenders: what ranks the items; trained on sessions in order.
        repeats: number of shuffles, whose mean is taken.
        max_sessions: number of test sessions that are ranked; of more, so many are taken at random.
        seed: random seed of the shuffles.

    Returns:
        For each name, plain JSON values: ``ordered`` and ``shuffled``, the metrics; ``change``, their relative change,
        None where the metric in order is 0; and ``overlap@10``, the mean Jaccard index of the lists of both histories.

    Reference:
        Klenitskiy, Volodkevich, Pembek, Vasilev: Does It Look Sequential?, RecSys 2024, arXiv 2408.12008.
    """
    check_count(1, repeats=repeats, max_sessions=max_sessions)
    rng = np.random.default_rng(seed)
    sequences = dataset.test_sequences.sequences
    if len(sequences) > max_sessions:
        sequences = take_sequences(sequences, np.sort(rng.choice(len(sequences), max_sessions, replace=False)))
    shuffles = [shuffle_items(sequences, rng, keep_last=True) for _ in range(repeats)]
    longest = int(np.diff(np.asarray(sequences.offsets)).max()) - 1
    result: dict[str, Any] = {}
    for recommender in recommenders:
        length = recommender.max_length or longest
        ranks, lists = recommender.answer(leave_one_out(sequences, max_length=length))
        ordered = _metrics(ranks)
        answers = [recommender.answer(leave_one_out(shuffle, max_length=length)) for shuffle in shuffles]
        found = [_metrics(ranks) for ranks, _ in answers]
        shuffled = {name: float(np.mean([metrics[name] for metrics in found])) for name in METRICS}
        result[recommender.name] = {
            "ordered": ordered,
            "shuffled": shuffled,
            "change": {name: shuffled[name] / ordered[name] - 1 if ordered[name] else None for name in METRICS},
            f"overlap@{K}": float(np.mean([overlap(lists, other) for _, other in answers])),
        }
    return result


def _metrics(ranks: np.ndarray) -> dict[str, float]:
    metrics = evaluation.metrics.from_ranks(ranks, (K,))
    return {name: metrics[name] for name in METRICS}
