"""A backbone whose item tables are functions of the items' vectors while it trains, and plain tables afterwards."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.models.encoder import CausalEncoder, Encoder, Params, init_params
from alkd_jax.types import PAD

VECTORS = "item_vectors"
"""Name of the parameter that holds the items' vectors, which do not change."""
_PROJECTION, _SHIFT = "_projection", "_shift"


@dataclasses.dataclass(frozen=True)
class VectorTables:
    """A backbone with item tables made of vectors z, which are a parameter that gets no gradient.

    With a projection a table is ``z_v W + b``, W and b learned for each table. Without one it is ``z_v + [0; p_v]``:
    the last ``num_learned`` entries have a learned part p_v for each item, the first ones stay as they are (AlphaFuse).
    :meth:`fold` makes the plain tables, with which the backbone alone gives the same scores.

    Reference:
        Hu et al., AlphaFuse, SIGIR 2025, for the learned part; Hou et al., UniSRec, KDD 2022, for projections.

    Attributes:
        model: the backbone.
        width: Z of a projection; the backbone's width without one.
        num_learned: number of entries with a learned part; None with a projection.
    """

    model: Encoder
    width: int
    num_learned: int | None = None
    separate_tables: ClassVar[bool] = False

    @property
    def num_items(self) -> int:
        """V."""
        return self.model.num_items

    @property
    def dim(self) -> int:
        """The backbone's width D."""
        return self.model.dim

    def __getattr__(self, name: str) -> Any:
        """Returns what is said of the backbone: its greatest length, and whether it reads times."""
        if name in ("max_length", "reads_times"):
            return getattr(self.model, name)
        raise AttributeError(name)

    def tables(self) -> tuple[str, ...]:
        """Returns the names of the backbone's item tables of its width."""
        shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), self.model))["params"]
        return table_names(self.model, shapes)

    def init(self, key: jax.Array, items: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Params:
        """Returns initial parameters without vectors: those of the backbone, and 0 for the vectors."""
        return self.initial(key, jnp.zeros((self.num_items + 1, self.width)), self.model.init(key, items, mask))

    def initial(self, key: jax.Array, vectors: Float[Array, "V1 Z"], params: Params) -> Params:
        """Returns initial parameters with these vectors.

        The entries of W are normal, of a size with which those of a table are as large as in the backbone's initial
        tables; b is 0, and the learned parts p are 0.

        Args:
            key: a JAX key.
            vectors: z, 0 in the padding row.
            params: initial parameters of the backbone.
        """
        own = dict(params["params"])
        found: dict[str, Any] = {VECTORS: jnp.asarray(vectors, jnp.float32)}
        length = jnp.sqrt((found[VECTORS] ** 2).sum() / self.num_items)
        for number, name in enumerate(self.tables()):
            table = own.pop(name)
            if self.num_learned is None:
                size = jnp.std(table[1:]) / jnp.maximum(length, 1e-12)
                shape = (self.width, self.dim)
                found[name + _PROJECTION] = size * jax.random.normal(jax.random.fold_in(key, number), shape)
                found[name + _SHIFT] = jnp.zeros(self.dim)
            else:
                found[name] = jnp.zeros((self.num_items + 1, self.num_learned))
        return {**params, "params": own | found}

    def fold(self, params: Params) -> Params:
        """Returns the parameters of the backbone alone, with plain tables."""
        own = dict(params["params"])
        vectors = jax.lax.stop_gradient(own.pop(VECTORS))
        tables = {}
        for name in self.tables():
            if self.num_learned is None:
                table = vectors @ own.pop(name + _PROJECTION) + own.pop(name + _SHIFT)[None, :]
            else:
                fixed = self.dim - self.num_learned
                table = vectors + jnp.pad(own.pop(name), ((0, 0), (fixed, 0)))
            tables[name] = table.at[PAD].set(0.0)
        return {**params, "params": own | tables}

    def apply(self, params: Params, *args: Any, **options: Any) -> Any:
        """Calls the backbone, or the method named by ``method``, with the tables made of these parameters."""
        return self.model.apply(self.fold(params), *args, **options)

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B *L D"]:
        """Is called by :meth:`apply`, of the backbone."""
        raise TypeError("a backbone is called by apply")

    def item_embeddings(self) -> Float[Array, "V1 D"]:
        """Is called by :meth:`apply`, of the backbone."""
        raise TypeError("a backbone is called by apply")


@dataclasses.dataclass(frozen=True)
class CausalVectorTables(VectorTables):
    """:class:`VectorTables` of a causal backbone."""

    def encode_positions(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Is called by :meth:`apply`, of the backbone."""
        raise TypeError("a backbone is called by apply")


def vector_tables(model: Encoder, width: int, *, num_learned: int | None = None) -> VectorTables:
    """Returns a backbone with tables made of vectors, causal where it is; see :class:`VectorTables`.

    Raises:
        ValueError: the backbone has no item table of its width, or ``num_learned`` is outside ``1..D``.
    """
    kind = CausalVectorTables if isinstance(model, CausalEncoder) else VectorTables
    found = kind(model, width, num_learned)
    if num_learned is not None and not 1 <= num_learned <= model.dim:
        raise ValueError(f"num_learned is {num_learned}; expected from 1 to {model.dim}, the width")
    if not found.tables():
        raise ValueError(f"{type(model).__name__} has no item table of width {model.dim}; expected one")
    return found


def table_names(model: Encoder, params: Any) -> tuple[str, ...]:
    """Returns the names of the item tables of a backbone's width, of its parameters or their shapes."""
    shape = (model.num_items + 1, model.dim)
    return tuple(
        sorted(name for name, leaf in params.items() if name.endswith("_embedding") and leaf.shape[-2:] == shape)
    )
