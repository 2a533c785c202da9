"""Objectives whose label is a teacher's list of items for each example."""

from collections.abc import Callable, Mapping

import flax.struct
import jax
from jaxtyping import Array, Float, Int

from alkd_jax import losses, scoring
from alkd_jax.checks import check_one_of
from alkd_jax.models import Params
from alkd_jax.objectives.base import BoundLoss, Objective
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.types import Batch

_WITH_TEMPERATURE: Mapping[str, Callable[..., Array]] = {
    "listnet": losses.listnet,
    "approx_rank_mse": losses.approx_rank_mse,
}

LIST_LOSSES = ("ranknet", "lambdarank", *_WITH_TEMPERATURE, "plackett_luce")
"""The kinds of :class:`ListLoss`."""


@flax.struct.dataclass
class ListLoss(Objective):
    """A loss of the order of a teacher's list, see :mod:`alkd_jax.losses.lists`.

    The lists are those of the examples, see :func:`alkd_jax.training.list_examples.list_examples`.

    Attributes:
        kind: one of :data:`LIST_LOSSES`.
        temperature: of "listnet", in places, and of "approx_rank_mse", in units of scores.

    Raises:
        ValueError: the kind is unknown; or, when it is called, the examples have no lists.
    """

    kind: str = flax.struct.field(pytree_node=False, default="ranknet")
    temperature: float = flax.struct.field(pytree_node=False, default=1.0)

    def __post_init__(self) -> None:
        """Checks the options."""
        check_one_of("kind", self.kind, LIST_LOSSES)

    def candidates(self, batch: Batch, key: jax.Array) -> Int[Array, "B K"]:
        """Returns the listed items."""
        return _lists_of(batch)

    def loss(self, params: Params, batch: Batch, candidates: Int[Array, "B K"], key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors, where = self.encode(params, batch, key), candidates > 0
        scores = scoring.candidate_scores(vectors, embedding_lookup(self.item_embeddings(params, key), candidates))
        if self.kind in _WITH_TEMPERATURE:
            loss = _WITH_TEMPERATURE[self.kind]
            return loss(scores, temperature=self.temperature, where=where, weight=batch.weight)
        if self.kind == "plackett_luce":
            return losses.plackett_luce(scores, where=where, weight=batch.weight)
        return losses.ranknet(scores, where=where, weight=batch.weight, top_heavy=self.kind == "lambdarank")


@flax.struct.dataclass
class PartialPlackettLuce(BoundLoss):
    """Likelihood of a teacher's list as the beginning of an order of the catalogue, see ``losses.plackett_luce``.

    It joins a list loss and a full softmax: the listed items are ordered, and are all above those that are not listed.

    The lists are those of the examples, see :func:`alkd_jax.training.list_examples.list_examples`.

    Attributes:
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.
    """

    chunk_size: int | None = flax.struct.field(pytree_node=False, default=None)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors, table = self.encode(params, batch, key), self.item_embeddings(params, key)
        listed = _lists_of(batch)
        scores = scoring.candidate_scores(vectors, embedding_lookup(table, listed))
        rest = losses.log_rest(vectors, table, listed, self.chunk_size)
        return losses.plackett_luce(scores, log_rest=rest, where=listed > 0, weight=batch.weight)


def _lists_of(batch: Batch) -> Int[Array, "B K"]:
    listed = getattr(batch, "listed", None)
    if listed is None:
        raise ValueError("examples have no lists; expected those of alkd_jax.training.list_examples")
    return listed
