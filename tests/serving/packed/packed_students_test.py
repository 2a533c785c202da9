"""Packed students: they answer as their definitions say, are shipped like any student, and are refused when damaged."""

import json

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array

import alkd_jax as alkd
from alkd_jax import baselines, models
from alkd_jax.distillation import item_rules
from alkd_jax.ops import bit_packing
from alkd_jax.serving import export, manifest, packed
from tests.helpers import shipped_students

pytest.importorskip("safetensors")

DATASET = alkd.data.synthetic(num_items=80, num_sessions=300, seed=0)
OPTIONS = {"decay": 0.8, "recency": 0.6, "backward": 0.4, "damping": 0.2}
STORED = models.packed_sessions(DATASET.train_sequences, DATASET.num_items, **OPTIONS)
POPULAR = np.array([5, 9, 2])
COUNTED_OPTIONS = OPTIONS | {"num_kept": 10**6, "num_popular": 3}


def rules(num_items=30, seed=0):
    rng = np.random.default_rng(seed)
    dense = rng.random((num_items + 1, num_items + 1)) * (rng.random((num_items + 1, num_items + 1)) < 0.2)
    dense[0] = dense[:, 0] = 0
    np.fill_diagonal(dense, 0)
    return csr_array(dense)


TABLE = models.packed_table(rules(80), popular=POPULAR)
COUNTED = models.counted_table(DATASET.train_sequences, 80, extra_rules=rules(80), **COUNTED_OPTIONS)


def recommender(student):
    form = packed.resident_form(student.kind, student.options, student.arrays, num_items=student.num_items)
    names = ("", *(f"id-{item}" for item in range(1, student.num_items + 1)))
    return alkd.Recommender(*form, names, names, 10)


def scores_of(student, rows):
    return baselines.packed_scorer(student)(baselines.Histories.from_rows(rows))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_counting_in_stored_sessions_ranks_as_the_rules_do(split):
    counts = baselines.count(DATASET.train_sequences, DATASET.num_items, decay=OPTIONS["decay"])
    scorer = baselines.method("sequential_rules", **{k: OPTIONS[k] for k in ("recency", "backward", "damping")})(counts)
    sessions = getattr(DATASET, split)
    places = baselines.target_places(scorer, counts, sessions)
    stored = baselines.target_places(baselines.packed_scorer(STORED), counts, sessions, ties_broken=True)
    np.testing.assert_array_equal(stored.better, places.better)
    np.testing.assert_array_equal(stored.equal, places.equal)


def test_a_table_with_many_levels_scores_as_its_rules_do():
    table = models.packed_table(rules(), recency=0.5, weight_bits=16)
    dense = rules().toarray()
    found = scores_of(table, [[3, 7, 12], [4]])
    np.testing.assert_allclose(found[0], dense[12] + 0.5 * dense[7] + 0.25 * dense[3], rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(found[1], dense[4], rtol=2e-3, atol=1e-6)


def test_few_bits_round_the_logarithm_and_keep_the_order_of_followers():
    table = models.packed_table(rules(), weight_bits=2)
    dense = rules().toarray()
    for item in range(1, 31):
        row = scores_of(table, [[item]])[0]
        followers = np.flatnonzero(dense[item])
        np.testing.assert_array_equal(
            followers[np.argsort(-row[followers])], followers[np.argsort(-dense[item][followers])]
        )
        largest, smallest = dense.max(), max(dense[dense > 0].min(), 1e-3 * dense.max())
        half_step = np.log(largest / smallest) / 3 / 2
        error = np.abs(np.log(row[followers]) - np.log(np.maximum(dense[item][followers], smallest)))
        assert error.max() <= half_step + 0.01


def test_popular_items_follow_where_the_session_says_nothing():
    table = models.packed_table(rules(), weight_bits=4, popular=POPULAR)
    found = [int(each.item_id[3:]) for each in recommender(table).rank([3], k=30)]
    followers = set(np.flatnonzero(rules().toarray()[3]))
    rest = found[len(followers) :]
    assert set(found[: len(followers)]) == followers
    assert rest[: len(set(POPULAR) - followers)] == [item for item in POPULAR.tolist() if item not in followers]


def test_a_counted_table_is_the_table_of_its_sessions_and_extra_rules():
    counts = baselines.count(DATASET.train_sequences, 80, decay=OPTIONS["decay"])
    counted = item_rules.cooccurrence_rules(counts, backward=OPTIONS["backward"])
    damped = diags_array(np.maximum(counts.popularity, 1.0) ** -OPTIONS["damping"]) @ counted
    student = models.counted_table(
        DATASET.train_sequences, 80, extra_rules=rules(80), weight_bits=16, **COUNTED_OPTIONS
    )
    popular = np.argsort(-counts.popularity, kind="stable")[:3]
    table = models.packed_table(
        csr_array(damped + rules(80)), recency=OPTIONS["recency"], weight_bits=16, popular=popular
    )
    rows = [[3], [7, 12, 4]]
    np.testing.assert_allclose(scores_of(student, rows), scores_of(table, rows), rtol=2e-3, atol=1e-9)


def test_a_counted_table_keeps_the_most_useful_entries_and_needs_no_extra_rules():
    student = models.counted_table(
        DATASET.train_sequences, 80, **(COUNTED_OPTIONS | {"num_kept": 40, "num_popular": 0})
    )
    kept = recommender(student)
    assert (kept.backbone, kept.options["num_entries"]) == ("sparse_table", 40)
    assert kept.resident_bytes < 1200
    counts = baselines.count(DATASET.train_sequences, 80, decay=OPTIONS["decay"])
    counted = item_rules.cooccurrence_rules(counts, backward=OPTIONS["backward"])
    damped = (diags_array(np.maximum(counts.popularity, 1.0) ** -OPTIONS["damping"]) @ counted).toarray()
    row, column = np.unravel_index(np.argsort(-damped, axis=None)[:20], damped.shape)
    for item, follower in zip(row, column, strict=True):
        assert scores_of(student, [[int(item)]])[0, follower] > 0


@pytest.mark.parametrize("student", [STORED, TABLE, COUNTED], ids=lambda s: s.kind)
def test_a_folder_gives_the_same_ranks_and_its_bytes_are_those_of_the_numbers(student, tmp_path):
    folder = tmp_path / "student"
    export.save(folder, student, None, DATASET)
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "config.json",
        "items.json",
        manifest.WEIGHTS,
    ]
    assert (folder / manifest.WEIGHTS).stat().st_size <= student.nbytes + 300
    loaded = alkd.Recommender.load(folder)
    items = np.asarray(DATASET.test.items)
    for found, expected in zip(
        *(each.top_k(items, 20, exclude=items) for each in (loaded, recommender(student))), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    session = [DATASET.item_ids[item] for item in items[0] if item]
    assert [each.item_id for each in loaded.recommend(session)] == [
        DATASET.item_ids[item] for item in loaded.top_k(items[:1], 10, exclude=items[:1])[1][0]
    ]
    assert loaded.resident_bytes > sum(array.nbytes for array in loaded.arrays.values())
    with pytest.raises(ValueError, match="which has no session vectors"):
        loaded.encode([session])
    with pytest.raises(ValueError, match=r"student\.onnx: not in this folder"):
        export.load_onnx(folder)


@pytest.mark.parametrize(
    "student", [TABLE, COUNTED, models.packed_table(rules(80))], ids=["table", "counted", "no popular"]
)
@pytest.mark.parametrize("k", [1, 12, 79, 80])
def test_one_session_is_answered_as_among_others(student, k):
    """Alone, only the items that it reaches are looked at, unless these are too few."""
    held = recommender(student)
    items = np.asarray(DATASET.test.items[:20])
    scores, ids = held.top_k(items, k, exclude=items)
    for row in range(len(items)):
        alone_scores, alone_ids = held.top_k(items[row : row + 1], k, exclude=items[row : row + 1])
        np.testing.assert_array_equal(alone_ids[0], ids[row])
        np.testing.assert_array_equal(alone_scores[0], scores[row])


def test_bits_of_a_table():
    table = models.packed_table(rules(), weight_bits=3)
    entries = rules().nnz
    assert table.options["num_entries"] == entries
    assert table.arrays["entries"].nbytes == (entries * (5 + 3) + 7) // 8 + 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recency": 0.0}, "recency"),
        ({"recency": 1}, "recency is 1; expected the type"),
        ({"weight_bits": 40}, "weight_bits is 40"),
        ({"num_entries": 2**40}, "num_entries is"),
        ({"num_entries": 5}, "size is|entries is uint8"),
        ({"largest": float("inf")}, "smallest and largest"),
        ({"smallest": 0.0}, "smallest and largest"),
        ({"more": 1}, "options of sparse_table are"),
    ],
)
def test_a_config_that_says_something_else_is_refused(change, message, tmp_path):
    folder = tmp_path / "student"
    export.save(folder, models.packed_table(rules(80)), None, DATASET)
    config = json.loads((folder / manifest.CONFIG).read_text())
    config["options"] |= change
    (folder / manifest.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        alkd.Recommender.load(folder)


def damaged(student, name, values, bits):
    return dict(student.arrays) | {name: bit_packing.pack(np.array(values), bits)}


def test_arrays_that_the_config_vouches_for_are_still_checked(tmp_path):
    import safetensors.numpy

    table, kept = models.packed_table(rules(80)), COUNTED.options
    num, bits = table.options["num_entries"], table.options["id_bits"] + table.options["weight_bits"]
    stored = STORED.options
    for student, arrays, message in (
        (table, damaged(table, "entries", [0] * num, bits), "items of entries span 0..0"),
        (table, damaged(table, "entries", [127] * num, bits), "items of entries span 127"),
        (table, dict(table.arrays) | {"row_ends": table.arrays["row_ends"] * 0}, "row_ends end 0 rows"),
        (COUNTED, damaged(COUNTED, "items", [0] * kept["num_events"], 7), "items of sessions span 0"),
        (COUNTED, damaged(COUNTED, "entries", [0] * kept["num_entries"], 11), "items of entries span 0"),
        (STORED, damaged(STORED, "lengths", [1] * stored["num_sessions"], stored["length_bits"]), "lengths add up"),
        (STORED, damaged(STORED, "items", [0] * stored["num_events"], stored["id_bits"]), "items of sessions span 0"),
    ):
        folder = tmp_path / f"{student.kind}-{len(list(tmp_path.iterdir()))}"
        export.save(folder, student, None, DATASET)
        shipped_students.rewrite(folder, manifest.WEIGHTS, safetensors.numpy.save(arrays))
        with pytest.raises(ValueError, match=message):
            alkd.Recommender.load(folder)


def test_what_cannot_be_packed_is_refused(tmp_path):
    for message, call in (
        ("rules is 0 for every item", lambda: models.packed_table(csr_array((31, 31)))),
        ("recency", lambda: models.packed_table(rules(), recency=0.0)),
        ("weight_bits is 17", lambda: models.packed_table(rules(), weight_bits=17)),
        ("popular span 0..0", lambda: models.packed_table(rules(), popular=np.array([0]))),
        ("decay is 1", lambda: models.packed_sessions(DATASET.train_sequences, 80, decay=1.0)),
        ("backward is -1", lambda: models.packed_sessions(DATASET.train_sequences, 80, backward=-1.0)),
        ("span 1..80; expected 1..79", lambda: models.packed_sessions(DATASET.train_sequences, 79)),
        ("params is", lambda: export.save(tmp_path / "s", STORED, {}, DATASET)),
        (
            "number of items in ds is 80; expected 30",
            lambda: export.save(tmp_path / "s", models.packed_table(rules()), None, DATASET),
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert list(tmp_path.iterdir()) == []
