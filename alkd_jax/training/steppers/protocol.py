"""The protocol of steppers: how a training step changes the parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from alkd_jax import sharding
from alkd_jax.models import Encoder, Params
from alkd_jax.types import Batch


class ValidationModel(NamedTuple):
    """What validation needs of a state: ``encode(items, mask)`` returns session vectors, ``table`` scores them."""

    encode: Callable[[Array, Array], Float[Array, "B *L D"]]
    table: Float[Array, "V1 D"]


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

    def step(self, carry: Any, loss: Any, batch: Batch, key: jax.Array) -> tuple[Any, Bool[Array, ""]]:
        """Takes a step; also returns whether its numbers are finite."""

    def finish(self, state: Any, carry: Any) -> Any:
        """Returns the state after an interval, given the one before it."""

    def loss(self, state: Any, loss: Any, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Computes the loss of a batch."""

    def model_params(self, state: Any) -> Params:
        """Returns the backbone's parameters, on a mesh with padded rows."""

    def for_validation(self, state: Any) -> ValidationModel:
        """Returns what validation needs."""
