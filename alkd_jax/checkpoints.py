"""Parameters on disk, as Orbax checkpoints: arrays only, nothing executable."""

import pathlib

import jax
import orbax.checkpoint as ocp

from alkd_jax.models import Encoder, Params, init_params


def save_params(path: pathlib.Path, params: Params) -> None:
    """Writes a parameter tree; the folder appears whole or not at all.

    Args:
        path: a folder that does not exist yet.
        params: with or without a leading seed axis.

    Raises:
        ValueError: the folder exists.
    """
    path = path.absolute()
    if path.exists():
        raise ValueError(f"{path} exists; expected a new folder")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, params)


def restore_params(path: pathlib.Path, model: Encoder, *, seeds: int | None = None) -> Params:
    """Reads what :func:`save_params` wrote.

    Args:
        path: the folder.
        model: the backbone the parameters belong to; they must have its shapes.
        seeds: S of the leading seed axis; None where there is none.

    Raises:
        ValueError: the folder is missing, damaged, or holds another model's parameters.
    """
    path = path.absolute()
    if not path.is_dir():
        raise ValueError(f"{path} is missing; expected a checkpoint folder")
    lead = () if seeds is None else (seeds,)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model))
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(lead + leaf.shape, leaf.dtype, sharding=here), shapes)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(path, target)
    except Exception as error:
        raise ValueError(f"{path} does not hold parameters of {model}: {str(error).splitlines()[0]}") from error
    for kept, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(target), strict=True):
        if kept.shape != wanted.shape:
            raise ValueError(f"{path} holds an array of shape {kept.shape}; {model} needs {wanted.shape}")
    return params
