"""How `experiments.train` trains a backbone: its loss, its optimizer, and what an epoch is."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax

import alkd_jax as alkd
from alkd_jax import sharding, training
from alkd_jax.models import Encoder
from alkd_jax.ops import embedding
from alkd_jax.training.parallel_sessions import ParallelSessions

from . import item_channels
from .backbone_defaults import has_max_length
from .loss_names import make_loss
from .train_options import Train

_ADAGRAD_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class SingleTraining:
    """The training of one backbone on one dataset.

    Attributes:
        args: the options, resolved.
        dataset: its sessions and items; its validation sessions stop every training.
    """

    args: Train
    dataset: alkd.Dataset

    @functools.cached_property
    def model(self) -> Encoder:
        """The backbone, without parameters."""
        length = {"max_length": self.args.max_length} if has_max_length(self.args.backbone) else {}
        options = length | self.args.model_options
        return alkd.models.create(
            self.args.backbone, num_items=self.dataset.num_items, dim=int(self.args.dim or 1), **options
        )

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh | None:
        """The device mesh; None for a single device."""
        return None if self.args.mesh is None else sharding.make_mesh(self.args.mesh)

    @property
    def is_parallel(self) -> bool:
        """Whether sessions are read in parallel."""
        return self.args.targets == "parallel"

    @functools.cached_property
    def item_vectors(self) -> training.ItemVectors | None:
        """The vectors of the items, None without."""
        return None if self.args.item_vectors is None else item_channels.read(self.args, self.dataset)

    def loss(self, model: Encoder | None = None) -> Any:
        """Returns the objective, by default of the backbone as it is evaluated."""
        args = self.args
        options: dict[str, Any] = {
            "targets": args.targets,
            "num_negatives": args.num_negatives,
            "negatives": args.negatives,
            "corrected": args.corrected,
            "parallel": args.parallel_options if self.is_parallel else None,
        }
        return make_loss(str(args.loss), model or self.model, self.dataset, **options)

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """Number of steps after which every example was read once."""
        if self.is_parallel:
            examples = self._parallel_examples(self.dataset)
            return len(examples.weight) // examples.batch_size
        return max(1, num_examples(self.dataset, str(self.args.targets)) // int(self.args.batch_size or 1))

    def fit(self, dataset: alkd.Dataset, number: int | list[int], **options: Any) -> training.FitResult:
        """Trains.

        Args:
            dataset: whose training sessions are read.
            number: how many seeds, or their numbers.
            **options: options of :func:`alkd_jax.training.fit`.
        """
        args, validation = self.args, self.dataset.validation
        shared: dict[str, Any] = {
            "seeds": number,
            "patience": int(args.patience or 1),
            "loss": self.loss(),
            "recall_at": args.recall_at,
            "precision": args.precision,
        }
        data = jax.random.key(args.seed), self.model, dataset.train, validation
        if self.is_parallel:
            shared |= {
                "sequences": dataset.train_sequences,
                "examples": self._parallel_examples(dataset),
                "validation_sessions": len(validation),
                **self._adagrad(),
            }
            return training.fit_large(*data, **shared | options)
        shared |= {
            "targets": str(args.targets),
            "sequences": None if args.targets == "last" else dataset.train_sequences,
            "batch_size": int(args.batch_size or 1),
            "mesh": self.mesh,
            **self._adam(),
        }
        if self.item_vectors is not None:
            del shared["loss"]
            key, model, *splits = data
            vectors: dict[str, Any] = {"make_loss": self.loss} | shared | options
            return training.fit_with_vectors(training.fit, key, model, self.item_vectors, *splits, **vectors)
        return training.fit(*data, **shared | options)

    def _parallel_examples(self, dataset: alkd.Dataset) -> ParallelSessions:
        return training.parallel_sessions(dataset.train_sequences, batch_size=int(self.args.batch_size or 1))

    def _adam(self) -> dict[str, Any]:
        """The optimizer; the default one of `fit` where β₂ is the default one, which has faster steps."""
        rate, decay = float(self.args.learning_rate or 0), self.args.published.second_decay
        return {"learning_rate": rate} if decay == 0.999 else {"optimizer": adam(rate, decay)}

    def _adagrad(self) -> dict[str, Any]:
        """The optimizers of tables and of other parameters, with the same steps."""
        rate, momentum = float(self.args.learning_rate or 0), float(self.args.momentum or 0)
        options = {"initial_accumulator_value": 0.0, "eps": _ADAGRAD_EPSILON}
        return {
            "row_optimizer": embedding.adagrad(rate, momentum=momentum, **options),
            "optimizer": adagrad(rate, momentum),
        }


@functools.lru_cache(maxsize=8)
def adam(learning_rate: float, second_decay: float) -> optax.GradientTransformation:
    """Returns one object for equal options, so that a second training reuses the first one's compilation."""
    return optax.adam(learning_rate, b2=second_decay)


@functools.lru_cache(maxsize=8)
def adagrad(learning_rate: float, momentum: float) -> optax.GradientTransformation:
    """Returns GRU4Rec's Adagrad, as :func:`adam` does: ``m ← μ m + g / √(G + ε)``, ``θ ← θ − η m``.

    Args:
        learning_rate: η.
        momentum: μ.
    """
    scaled = optax.scale_by_rss(initial_accumulator_value=0.0, eps=_ADAGRAD_EPSILON)
    return optax.chain(scaled, optax.trace(momentum), optax.scale(-learning_rate))


def num_examples(dataset: alkd.Dataset, targets: str) -> int:
    """Returns the number of training examples of targets other than "parallel"."""
    lengths = np.diff(np.asarray(dataset.train_sequences.offsets))
    if targets == "last":
        return len(dataset.train)
    if targets == "positions":
        return int((lengths > 1).sum())
    return int(lengths[lengths > 1].sum()) if targets == "cloze" else int(np.maximum(lengths - 1, 0).sum())
