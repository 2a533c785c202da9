"""Training of a backbone with the items' vectors from outside, after which its tables are plain ones."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from alkd_jax.checks import check_at_least, check_finite, check_one_of
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.models.vector_components import graph_components, principal_components, whitened_components
from alkd_jax.models.vector_tables import VectorTables, table_names, vector_tables
from alkd_jax.training.results import FitResult
from alkd_jax.training.seeds import seed_keys

CHANNELS = ("pca", "graph_pca", "projection", "whitened", "alphafuse")
"""How vectors enter a backbone: as initial tables, by a learned projection, or beside learned entries."""

_PROJECTIONS = ("projection", "whitened")
_STREAM = 0x7665
"""Number folded into a seed's initial key to get the key of a projection."""


@dataclasses.dataclass(frozen=True, eq=False)
class ItemVectors:
    """Vectors of the items, and how they enter a backbone.

    Attributes:
        vectors: ``[V1, Z]``, of length 1 or 0; row 0 is 0.
        channel: "pca" and "graph_pca" make initial tables of the components of
            :func:`~alkd_jax.models.vector_components.principal_components` or
            :func:`~alkd_jax.models.vector_components.graph_components`, which are then trained; "projection" learns
            ``z_v W + b``, and "whitened" the same of whitened vectors; "alphafuse" leaves the first components as they
            are and adds learned entries to the others.
        scale: standard deviation of the entries of the components of "pca", "graph_pca" and "alphafuse", above 0.
        num_learned: learned entries of "alphafuse"; by default half of the width.
        smoothness: γ of "graph_pca".
        co_occurrence: ``[V1, V1]`` counts of pairs of items, for "graph_pca".
    """

    vectors: Float[np.ndarray, "V1 Z"]
    channel: str = "pca"
    scale: float = 0.03
    num_learned: int | None = None
    smoothness: float = 1.0
    co_occurrence: csr_array | None = None

    def __post_init__(self) -> None:
        check_one_of("channel", self.channel, CHANNELS)
        check_finite("vectors", self.vectors)
        check_at_least(0, smoothness=self.smoothness)
        if not 0 < self.scale < np.inf:
            raise ValueError(f"scale is {self.scale}; expected a finite number above 0")
        if self.channel == "graph_pca" and self.co_occurrence is None:
            raise ValueError("co_occurrence is None with channel graph_pca; expected counts of pairs of items")

    def components(self, dim: int) -> Float[np.ndarray, "V1 D"]:
        """Returns what enters tables of this width: scaled components, or the vectors that are projected."""
        if self.channel == "projection":
            return principal_components(self.vectors, self.vectors.shape[1])
        if self.channel == "whitened":
            return whitened_components(self.vectors, min(self.vectors.shape[1], len(self.vectors) - 1))
        if self.channel == "graph_pca":
            assert self.co_occurrence is not None
            found = graph_components(self.vectors, dim, self.co_occurrence, smoothness=self.smoothness)
        else:
            found = principal_components(self.vectors, dim)
        deviation = np.sqrt((found**2).sum() / (len(found) - 1) / dim)
        return (found * (self.scale / max(float(deviation), 1e-12))).astype(np.float32)

    def wrapped(self, model: Encoder) -> Encoder:
        """Returns the backbone as it is trained: with tables made of vectors, or as it is."""
        self._check(model)
        found: Any = model
        if self.channel in _PROJECTIONS:
            found = vector_tables(model, self.components(model.dim).shape[1])
        elif self.channel == "alphafuse":
            num_learned = max(1, model.dim // 2) if self.num_learned is None else self.num_learned
            found = vector_tables(model, model.dim, num_learned=num_learned)
        return found

    def initial(self, key: jax.Array, model: Encoder, seeds: int | Sequence[int], *, length: int) -> Params:
        """Returns initial parameters with a seed axis; what is no table is as without vectors.

        Args:
            key: a JAX key, as of :func:`alkd_jax.training.fit`.
            model: the backbone.
            seeds: as of :func:`alkd_jax.training.fit`.
            length: L.
        """
        init_keys = jax.vmap(lambda seed_key: jax.random.split(seed_key)[0])(seed_keys(key, seeds))
        params = jax.vmap(lambda each: init_params(each, model, length=length))(init_keys)
        vectors, wrapped = jnp.asarray(self.components(model.dim)), self.wrapped(model)
        if isinstance(wrapped, VectorTables):
            keys = jax.vmap(lambda each: jax.random.fold_in(each, _STREAM))(init_keys)
            return jax.vmap(lambda each, own: wrapped.initial(each, vectors, own))(keys, params)
        tables = {
            name: jnp.broadcast_to(vectors, params["params"][name].shape)
            for name in table_names(model, params["params"])
        }
        return {**params, "params": params["params"] | tables}

    def _check(self, model: Encoder) -> None:
        if len(self.vectors) != model.num_items + 1:
            raise ValueError(
                f"vectors have {len(self.vectors)} rows; expected {model.num_items + 1}, items and padding"
            )


def fit_with_vectors(
    fit: Callable[..., FitResult],
    key: jax.Array,
    model: Encoder,
    item_vectors: ItemVectors,
    *splits: Any,
    make_loss: Callable[[Encoder], Any],
    seeds: int | Sequence[int] = 1,
    **fit_options: Any,
) -> FitResult:
    """Trains a backbone with vectors of the items.

    Args:
        fit: :func:`alkd_jax.training.fit`, or a function with its arguments.
        key: as of ``fit``.
        model: the backbone.
        item_vectors: the vectors, and how they enter it.
        *splits: the training and the validation sessions.
        make_loss: function of the backbone as it is trained that returns the loss, such as
            :class:`alkd_jax.objectives.InBatchBPR`.
        seeds: as of ``fit``.
        **fit_options: further options of ``fit``.

    Returns:
        The result with plain tables: parameters of ``model``, which need no vectors.

    Raises:
        ValueError: the vectors are not those of the backbone's items, or as of ``fit``.

    Example:
        >>> ds = alkd.data.synthetic(num_items=50, num_sessions=200)
        >>> vectors = np.random.default_rng(0).normal(size=(51, 8)).astype(np.float32)
        >>> fitted = alkd.training.fit_with_vectors(
        ...     alkd.fit,
        ...     jax.random.key(0),
        ...     alkd.models.create("fpmc", num_items=50, dim=4),
        ...     alkd.training.ItemVectors(vectors, "whitened"),
        ...     ds.train,
        ...     ds.validation,
        ...     make_loss=alkd.objectives.InBatchBPR,
        ...     max_steps=20,
        ... )
        >>> fitted.params["params"]["output_embedding"].shape
        (1, 51, 4)
    """
    trained = item_vectors.wrapped(model)
    initial = item_vectors.initial(key, model, seeds, length=splits[0].items.shape[1])
    fitted = fit(key, trained, *splits, loss=make_loss(trained), seeds=seeds, initial=initial, **fit_options)
    if not isinstance(trained, VectorTables):
        return fitted
    return dataclasses.replace(fitted, params=jax.vmap(trained.fold)(fitted.params))
