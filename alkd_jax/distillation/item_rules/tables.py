"""Sparse-table students by the byte: rules from counts and titles, of which the most useful ones are kept and packed.

Nothing is trained. The options of a recipe are chosen on validation sessions, and a budget of bytes decides how many
entries the table has.
"""

import dataclasses

import numpy as np
from scipy.sparse import csr_array, diags_array

from alkd_jax import baselines
from alkd_jax.checks import check_at_least, check_count
from alkd_jax.distillation.item_rules.labels import add_labels, places_in_rows, sharpened
from alkd_jax.distillation.item_rules.rules import cooccurrence_rules
from alkd_jax.models import PackedStudent, counted_table, packed_sessions, packed_table
from alkd_jax.ops import bit_packing
from alkd_jax.ops.packed_tables import most_useful
from alkd_jax.types import Dataset

_NUM_POPULAR = 32
_MARGIN = 512
"""Bytes that are set aside for arrays whose size depends on neither items nor entries."""


@dataclasses.dataclass(frozen=True)
class TableRecipe:
    """Options of a sparse table: ``R = pop^−δ (F + β Fᵀ) + a C²``, of which the entries of the largest use are kept.

    F counts followers, see :func:`alkd_jax.baselines.count`, and C has the cosines of titles. A re-ranker's labels p of
    items are added as ``c √(Σ_v R_xv) p^(1/τ)``, with ``p^(1/τ)`` scaled to sum 1 for each item. The use of an entry is
    ``R_xv (pop(x) / Σ_v R_xv)^α``: an entry of a popular item is read often, and one of an item with many rules says
    less.

    Attributes:
        recency: λ in (0, 1], the factor of an item for each step before the end of the session.
        decay: in (0, 1), the factor of a follower for each further position of distance.
        backward: β, at least 0.
        damping: δ, at least 0.
        repeats: whether an item may follow itself, see :func:`cooccurrence_rules`.
        titles: a, at least 0, in units of one count of adjacent items.
        min_cosine: title neighbors of a lower cosine are left out.
        title_places: number of title neighbors of an item; it is a neighbor of theirs too. Few of them leave room for
            the followers of more items.
        labels: c, at least 0.
        temperature: τ, above 0.
        label_places: number of an item's labels that are kept, the most likely ones.
        use: α, at least −1.
        weight_bits: number of bits of a weight.
    """

    recency: float = 0.5
    decay: float = 0.9
    backward: float = 0.0
    damping: float = 0.0
    repeats: bool = False
    titles: float = 0.0
    min_cosine: float = 0.2
    title_places: int = 40
    labels: float = 0.0
    temperature: float = 2.0
    label_places: int = 20
    use: float = 0.5
    weight_bits: int = 4


def table_rules(
    dataset: Dataset, recipe: TableRecipe, neighbors: csr_array | None = None, labels: csr_array | None = None
) -> csr_array:
    """Adds up the rules of counts, titles and labels; only the training sessions and these are read.

    Args:
        dataset: the dataset.
        recipe: the options.
        neighbors: ``[V1, V1]`` cosines of titles, see :func:`title_neighbors`; needed where the recipe reads titles.
        labels: ``[V1, V1]`` labels of items, see :func:`item_labels`; needed where the recipe reads labels.

    Returns:
        ``[V1, V1]`` rules.

    Raises:
        ValueError: an option is out of its range, or the recipe reads titles or labels and there are none.
    """
    check_at_least(0, backward=recipe.backward, damping=recipe.damping, titles=recipe.titles, labels=recipe.labels)
    check_count(1, title_places=recipe.title_places)
    if recipe.titles and neighbors is None:
        raise ValueError(f"neighbors is None; expected cosines of titles, which have weight {recipe.titles}")
    if recipe.labels and labels is None:
        raise ValueError(f"labels is None; expected labels of items, which have weight {recipe.labels}")
    counts = baselines.count(dataset.train_sequences, dataset.num_items, decay=recipe.decay)
    total = cooccurrence_rules(counts, backward=recipe.backward, repeats=recipe.repeats)
    if recipe.damping:
        total = csr_array(diags_array(np.maximum(counts.popularity, 1.0) ** -recipe.damping) @ total)
    if recipe.titles and neighbors is not None:
        total = csr_array(total + title_part(recipe, neighbors))
    if recipe.labels and labels is not None:
        kept = sharpened(labels, temperature=recipe.temperature, places=recipe.label_places)
        total = add_labels(total, kept, recipe.labels)
    return total


def title_part(recipe: TableRecipe, neighbors: csr_array) -> csr_array:
    """Returns ``a C²`` of the nearest titles of each item, and of the items whose titles it is nearest to."""
    cosines = neighbors.copy()
    is_near = (places_in_rows(cosines) < recipe.title_places) & (cosines.data >= recipe.min_cosine)
    cosines.data = np.where(is_near, recipe.titles * cosines.data**2, 0.0)
    cosines.eliminate_zeros()
    return csr_array(cosines.maximum(cosines.T))


def table_student(
    dataset: Dataset,
    recipe: TableRecipe,
    *,
    max_bytes: int,
    neighbors: csr_array | None = None,
    labels: csr_array | None = None,
    rules: csr_array | None = None,
) -> PackedStudent:
    """Makes the largest table of a recipe whose arrays have at most ``max_bytes``.

    Args:
        dataset: the dataset.
        recipe: the options.
        max_bytes: the largest size of the arrays.
        neighbors: as of :func:`table_rules`.
        labels: likewise.
        rules: what :func:`table_rules` returned for these options, so that it is not computed again.

    Raises:
        ValueError: no entry fits, or as of :func:`table_rules`.
    """
    rules = table_rules(dataset, recipe, neighbors, labels) if rules is None else rules
    items = np.asarray(dataset.train_sequences.items)
    popularity = np.bincount(items, minlength=dataset.num_items + 1).astype(np.float64)
    popular = np.argsort(-popularity, kind="stable")[:_NUM_POPULAR]
    popular = popular[popularity[popular] > 0]
    row = np.repeat(np.arange(rules.shape[0]), np.diff(rules.indptr))
    entry_bits = bit_packing.bits_for(dataset.num_items) + recipe.weight_bits
    num = (8 * (max_bytes - _MARGIN) - dataset.num_items) // (entry_bits + 1) - len(popular)
    if num < 1:
        raise ValueError(f"max_bytes is {max_bytes}; expected enough for a table of {dataset.num_items:,} items")
    number = most_useful(row, rules.data, num, popularity=popularity, use=recipe.use)
    kept = csr_array((rules.data[number], (row[number], rules.indices[number])), shape=rules.shape)
    return packed_table(kept, recency=recipe.recency, weight_bits=recipe.weight_bits, popular=popular)


def counted_student(
    dataset: Dataset, recipe: TableRecipe, *, max_bytes: int, neighbors: csr_array | None = None
) -> PackedStudent | None:
    """Makes the student of a recipe that stores the training sessions, and the title rules for which there is room.

    It has no labels, which would leave no room for titles.

    The table that it counts when it is loaded takes at most twice the bytes of the student, see
    :func:`alkd_jax.models.counted_table`.

    Args:
        dataset: the dataset.
        recipe: the options.
        max_bytes: the largest size of the arrays.
        neighbors: as of :func:`table_rules`.

    Returns:
        The student, None where the sessions alone take more bytes.
    """
    num_items, sequences = dataset.num_items, dataset.train_sequences
    stored = packed_sessions(sequences, num_items, decay=recipe.decay).nbytes
    entry_bits = bit_packing.bits_for(num_items) + recipe.weight_bits
    extra = None
    if recipe.titles and neighbors is not None:
        titles = title_part(recipe, neighbors)
        room = max_bytes - stored - _MARGIN
        order = np.argsort(-titles.data, kind="stable")[: max(0, (room * 8 - num_items) // (entry_bits + 1))]
        row = np.repeat(np.arange(num_items + 1), np.diff(titles.indptr))
        extra = csr_array((titles.data[order], (row[order], titles.indices[order])), shape=titles.shape)

    def student(num_kept: int) -> PackedStudent:
        return counted_table(
            sequences,
            num_items,
            extra_rules=extra,
            decay=recipe.decay,
            recency=recipe.recency,
            backward=recipe.backward,
            damping=recipe.damping,
            use=recipe.use,
            num_kept=num_kept,
            num_popular=_NUM_POPULAR,
            weight_bits=recipe.weight_bits,
        )

    nbytes = student(1).nbytes
    # In memory a row has its end, a bit, and the place at which it begins.
    place_bits = bit_packing.bits_for(16 * nbytes // entry_bits)
    num_kept = (8 * (2 * nbytes - _MARGIN) - (num_items + 2) * (place_bits + 1)) // (entry_bits + 1)
    return student(num_kept) if nbytes <= max_bytes and num_kept > 0 else None
