"""The options by which vectors of the items enter a student, and what they stand for."""

import pathlib
from typing import Annotated, Any

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.checks import check_at_least, check_one_of
from alkd_jax.data import item_vectors
from alkd_jax.io import digest_of
from alkd_jax.training import CHANNELS, ItemVectors

from .compact_students import has_titles
from .options import choices, described

TITLES = "titles"
"""The vectors that need no file: components of the words of titles."""

VectorsFile = Annotated[
    str | None,
    described(
        'vectors of the items: a file (.npz, .npy, .safetensors), or "titles" for components of the words of their '
        "titles; see docs/item_vectors.md.",
        "FILE|titles",
    ),
]
Channel = Annotated[
    str,
    choices(
        CHANNELS,
        help='how vectors of the items enter the tables: "pca" and "graph_pca" as initial values, "projection" and '
        '"whitened" by a learned projection, "alphafuse" as entries that stay beside learned ones.',
    ),
]
Scale = Annotated[
    float, described("standard deviation of the entries that come from vectors, where these are not projected.")
]
Shuffled = Annotated[
    bool, described("permute the vectors among the items, a control without what they say of the items.")
]


def check(args: Any) -> None:
    """Raises ValueError where an option of vectors is out of range, or the file is not there.

    Args:
        args: options with the fields `item_vectors`, `vector_channel`, `vector_scale` and `shuffled_vectors`.
    """
    check_one_of("--vector-channel", args.vector_channel, CHANNELS)
    check_at_least(1e-6, **{"--vector-scale": args.vector_scale})
    if args.item_vectors is None:
        if args.shuffled_vectors:
            raise ValueError("--shuffled-vectors without --item-vectors; expected both")
        return
    if args.item_vectors != TITLES:
        file = pathlib.Path(args.item_vectors)
        check_one_of("the ending of --item-vectors", file.suffix, item_vectors.FORMS)
        if not file.is_file():
            raise ValueError(f"--item-vectors is {file}; expected a file, or {TITLES}")


def inputs(args: Any) -> dict[str, Any]:
    """Returns what a training with these options depends on; nothing without vectors."""
    if args.item_vectors is None:
        return {}
    is_file = args.item_vectors != TITLES
    found = {"vectors": digest_of(pathlib.Path(args.item_vectors)) if is_file else TITLES}
    return found | {
        "channel": args.vector_channel,
        "vector_scale": args.vector_scale,
        "shuffled_vectors": args.shuffled_vectors,
    }


def read(args: Any, dataset: alkd.Dataset) -> ItemVectors:
    """Reads the vectors that the options name.

    Raises:
        ValueError: the file is damaged or of other items, or the items have no titles.
    """
    if args.item_vectors != TITLES:
        vectors = item_vectors.read_vectors(args.item_vectors, dataset.num_items, item_ids=dataset.item_ids)
    elif has_titles(dataset):
        vectors = item_vectors.title_vectors(dataset.titles)
    else:
        raise ValueError(f"--item-vectors is {TITLES}, and most items of {dataset.name} have none; expected a file")
    if args.shuffled_vectors:
        vectors = item_vectors.shuffled_vectors(vectors, seed=args.seed)
    co_occurrence = None
    if args.vector_channel == "graph_pca":
        co_occurrence = baselines.count(dataset.train_sequences, dataset.num_items).co_occurrence
    return ItemVectors(vectors, args.vector_channel, args.vector_scale, co_occurrence=co_occurrence)
