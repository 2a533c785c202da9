"""Initial parameters: of all seeds in one program, or of one seed with tables that barely fit the memory."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax import sharding
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.ops import packed_rows
from alkd_jax.training.steppers.lazy_rows import LazyRows, LazyState, item_tables

ExtraParamsInit: TypeAlias = Callable[[jax.Array, Encoder], Params]
"""``extra_params_init(key, model)`` returns further collections to train beside the model's."""

_EXTRA_PARAMS = 1
"""Folded into a seed's initial key for extra parameters, so that the model's own initial values do not change."""


@functools.partial(jax.jit, static_argnums=(0, 1, 2), static_argnames="length")
def _init_seeds(
    init: Callable[..., Params], model: Encoder, layout: sharding.Layout | None, keys: jax.Array, **options: int
) -> Params:
    """Initializes the parameters of every seed in one program; on a mesh each device initializes its own shard."""
    params = jax.vmap(lambda key: init(key, model, **options))(keys)
    return params if layout is None else layout.with_seed_axis.pad_rows(params)


def init_all_seeds(
    keys: jax.Array,
    model: Encoder,
    length: int,
    initial: Params | None,
    extra_params_init: ExtraParamsInit | None,
    mesh: jax.sharding.Mesh | None,
) -> tuple[Params, tuple[str, ...], sharding.Layout | None]:
    """Returns all parameters to train, with a seed axis.

    Args:
        keys: one key for each seed.
        model: the backbone.
        length: L, the number of positions that random parameters are drawn for.
        initial: the model's parameters, if given; by default random ones.
        extra_params_init: initializes further collections.
        mesh: the mesh of devices.

    Returns:
        The parameters, on a mesh padded and sharded; the names of the further collections; and how parameters lie.

    Raises:
        ValueError: a further collection has the name of one of the model's.
    """
    extra_keys = jax.vmap(lambda key: jax.random.fold_in(key, _EXTRA_PARAMS))(keys)

    def init(layout: sharding.Layout | None, keys: jax.Array, extra_keys: jax.Array) -> tuple[Params, Params]:
        model_params = _init_seeds(init_params, model, layout, keys, length=length) if initial is None else {}
        return model_params, {} if extra_params_init is None else _init_seeds(
            extra_params_init, model, layout, extra_keys
        )

    shapes = jax.eval_shape(functools.partial(init, None), keys, extra_keys)
    model_shapes = shapes[0] if initial is None else initial
    if clash := model_shapes.keys() & shapes[1].keys():
        raise ValueError(f"extra parameters are named {sorted(clash)}, as the model's own; expected other names")
    layout = sharding.layout_of({**model_shapes, **shapes[1]}, model.num_items + 1, mesh, leading_axes=1)
    if layout is not None:
        keys, extra_keys = sharding.device_put_global((keys, extra_keys), layout.replicated)
        layout = dataclasses.replace(layout, leading_axes=0)
    with sharding.use_mesh(mesh):
        model_params, extra_params = init(layout, keys, extra_keys)
    if initial is not None:
        model_params = initial if layout is None else layout.with_seed_axis.device_put(initial)
    return {**model_params, **extra_params}, tuple(sorted(extra_params)), layout


@dataclasses.dataclass(frozen=True)
class LazyInitializer:
    """Makes the initial state of a seed with lazy rows.

    Attributes:
        stepper: the steps.
        length: L, the number of positions that random parameters are drawn for.
        dtype: the type that tables are stored in.
        initial: the initial parameters, if given.
    """

    stepper: LazyRows
    length: int
    dtype: Any
    initial: Params | None

    def state(self, key: jax.Array) -> LazyState:
        """Returns the state before the first step; it is donated from step to step, the given parameters are not."""
        stepper, layout = self.stepper, self.stepper.layout
        if self.initial is None:
            tables = item_tables(stepper.model)
            # One program for each table: the random bits of all tables together would need the most memory of the run.
            programs = [((name,), self.dtype) for name in tables] + [(tables, None)]
            parts = [_init_part(stepper, self.length, names, dtype, key) for names, dtype in programs]
            params = {"params": {name: leaf for part in parts for name, leaf in part.items()}}
        else:
            params = {"params": {n: self._copy(leaf, dtype) for n, (leaf, dtype) in self._given_params().items()}}
            params = params if layout is None else layout.device_put(params)
        return stepper.init(params)

    def _copy(self, leaf: Any, dtype: Any) -> Any:
        """Returns a copy of a given parameter on the device, packed where the stepper packs."""
        if self.stepper.packs and packed_rows.is_narrow(leaf):
            return jax.device_put(packed_rows.pack(np.asarray(leaf).astype(dtype)))
        return jnp.array(leaf, dtype, copy=True)

    def shapes(self, key: jax.Array) -> LazyState:
        """Returns the shapes of the state."""
        if self.initial is None:
            return jax.eval_shape(self.state, key)
        shapes = {name: jax.ShapeDtypeStruct(leaf.shape, dtype) for name, (leaf, dtype) in self._given_params().items()}
        layout = self.stepper.layout
        pad_rows = layout.pad_rows if layout is not None else lambda params: params
        return jax.eval_shape(lambda params: self.stepper.init(pad_rows(params)), {"params": shapes})

    def _given_params(self) -> dict[str, tuple[Any, Any]]:
        """Returns the given parameters and the types they are stored in."""
        tables, params = item_tables(self.stepper.model), self.initial["params"]  # type: ignore[index]
        return {name: (leaf, self.dtype if name in tables else leaf.dtype) for name, leaf in params.items()}


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _init_part(stepper: LazyRows, length: int, names: tuple[str, ...], dtype: Any, key: jax.Array) -> dict[str, Any]:
    """Returns the parameters of these names in this type; without a type, all parameters except these."""
    with packed_rows.drawing_packed() if stepper.packs else contextlib.nullcontext():
        params = init_params(key, stepper.model, length=length)["params"]
    if dtype is None:
        return {name: leaf for name, leaf in params.items() if name not in names}
    part = {name: jax.tree.map(lambda leaf: leaf.astype(dtype), params[name]) for name in names}
    if stepper.packs:
        part = {name: packed_rows.pack(leaf) if packed_rows.is_narrow(leaf) else leaf for name, leaf in part.items()}
    return part if stepper.layout is None else stepper.layout.pad_rows({"params": part})["params"]
