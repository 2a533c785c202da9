"""The protocol of steppers: how a training step changes the parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from alkd_jax import sharding
from alkd_jax.models import Encoder, Params
from alkd_jax.ops.packed_rows import ItemTable
from alkd_jax.types import Batch


class ValidationModel(NamedTuple):
    """What validation needs of a state: ``encode(items, mask)`` returns session vectors, ``table`` scores them.

    ``encode`` takes times after these for a backbone that reads them.
    """

    encode: Callable[..., Float[Array, "B *L D"]]
    table: ItemTable


@runtime_checkable
class Stepper(Protocol):
    """The steps of one seed. A stepper is static: equal ones share one compilation.

    A state is what an interval starts from and what a checkpoint holds. Within an interval a stepper may carry another
    form of it: :meth:`begin` makes that, and :meth:`finish` returns to a state.

    Attributes:
        model: the backbone.
        layout: how parameters lie on a mesh, without a seed axis; None on one device.
        step_mesh: the mesh that is current while steps are traced, see :func:`alkd_jax.sharding.use_mesh`.
    """

    @property
    def model(self) -> Encoder: ...  # noqa: D102

    @property
    def layout(self) -> sharding.Layout | None: ...  # noqa: D102

    @property
    def step_mesh(self) -> Mesh | None: ...  # noqa: D102

    def init(self, params: Params) -> Any:
        """Returns the state before the first step, inside jit."""

    def begin(self, state: Any) -> Any:
        """Returns what the steps of an interval carry."""

    def prepare(self, loss: Any, batch: Batch) -> Any:
        """Returns what a step reads of a batch; it depends on no parameter, and may be computed ahead."""

    def step(self, carry: Any, loss: Any, batch: Any, key: jax.Array) -> tuple[Any, Float[Array, "..."]]:
        """Takes a step, given what :meth:`prepare` returned; also returns zeros, or NaN where it is not finite."""

    def finish(self, state: Any, carry: Any) -> Any:
        """Returns the state after an interval, given the one before it."""

    def loss(self, state: Any, carry: Any, loss: Any, batch: Any, key: jax.Array) -> Float[Array, ""]:
        """Computes the loss of a prepared batch after an interval, given what the steps carried."""

    def model_params(self, state: Any) -> Params:
        """Returns the backbone's parameters, on a mesh with padded rows."""

    def for_validation(self, state: Any) -> ValidationModel:
        """Returns what validation needs."""
