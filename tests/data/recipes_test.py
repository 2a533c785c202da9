"""Recipes and user sequences: the published counts exactly, both forms of the file, and what the parts hold."""

import pathlib

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.data.readers import registry
from alkd_jax.data.recipes import RECIPES
from alkd_jax.data.sessions import unpack
from tests.helpers.paths import SHARED

S3REC = SHARED / "public-data" / "s3rec"


@pytest.fixture
def lists(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("u1 a b c d\nu2 b c\n\nu3\tc a  d\r\nu4 a\n")
    return path


def rows_by_name(dataset, sequences):
    return [[dataset.item_ids[item] for item in row] for row in unpack(sequences)]


def test_parts_of_user_sequences(lists):
    dataset = alkd.data.read(f"userseq:{lists}", recipe="s3rec")
    assert rows_by_name(dataset, dataset.train_sequences) == [["a", "b"], ["b", "c"]]
    held_out = dataset.validation_sequences
    assert rows_by_name(dataset, held_out.sequences) == [["a", "b", "c"], ["c", "a"]]
    assert held_out.first_target.tolist() == [2, 1]
    held_out = dataset.test_sequences
    assert rows_by_name(dataset, held_out.sequences) == [["a", "b", "c", "d"], ["c", "a", "d"]]
    assert held_out.first_target.tolist() == [3, 2]
    assert [dataset.item_ids[item] for item in dataset.test.target] == ["d", "d"]
    report = dataset.report
    assert (report["sessions"], report["interactions"], report["items"]) == (3, 9, 4)
    assert report["sessionise"]["sessions_without_input"] == 1
    assert report["account"]["sessions"] == {
        "total": 3,
        "train": 2,
        "validation": 2,
        "test": 2,
        "unused": 0,
        "not_trained_on": 1,
    }
    assert report["recipe"]["protocol"] == {"seen": "exclude", "targets": "last"}
    assert report["recipe"]["same_counts_as"] is None
    assert "the source has no times" in report["leak_warning"]


def test_lines_of_pairs_are_the_same_sequences(lists, tmp_path):
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(
        "".join(
            f"{user} {item}\n"
            for user, items in (("u1", "abcd"), ("u2", "bc"), ("u3", "cad"), ("u4", "a"))
            for item in items
        )
    )
    first, second = (registry.read(f"userseq:{path}") for path in (lists, pairs))
    assert first.fingerprint == second.fingerprint
    assert (first.report["users_on_several_lines"], second.report["users_on_several_lines"]) == (0, 3)
    assert (first.report["rows_read"], second.report["rows_read"]) == (4, 10)


def test_refit_trains_on_validation_items(lists):
    recipe = RECIPES["s3rec"].refitted()
    dataset = alkd.data.read(f"userseq:{lists}", recipe=recipe)
    assert rows_by_name(dataset, dataset.train_sequences) == [["a", "b", "c"], ["b", "c"], ["c", "a"]]
    plain = alkd.data.read(f"userseq:{lists}")
    np.testing.assert_array_equal(dataset.test.target, plain.test.target)
    assert dataset.report["account"]["events"]["trained_and_predicted"] == 2
    assert "training includes it" in dataset.report["recipe"]["statement"]
    assert "training does not include it" in plain.report["recipe"]["statement"]


def test_bad_lines_are_counted_with_their_place(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"u1 a b c\nu2\nnan a b c\nu3 a None b\nu4 a \xff b\nu5 b a c\n")
    log = registry.read_interactions(f"userseq:{path}")
    reasons = log.report["bad_rows"]["reasons"]
    assert reasons == {"no item": 2, "no user": 1, "not in the file's encoding": 1}
    assert (log.report["rows_read"], log.report["rows_used"]) == (6, 2)
    assert not log.has_times
    with pytest.raises(ValueError, match=r"bad\.txt, line 5: not in the file's encoding"):
        registry.read_interactions(f"userseq:{path}", strict=True)


def test_a_split_by_time_needs_times(lists):
    log = alkd.data.load_user_sequences(lists)
    with pytest.raises(ValueError, match="split is 'time-events', but own has no times"):
        alkd.data.prepare(log, RECIPES["s3rec"].sessions, "time-events")


def test_a_recipe_for_data_that_are_made_is_refused(lists):
    with pytest.raises(ValueError, match="recipe is 's3rec', but 'synthetic' is made already"):
        registry.read("synthetic", recipe="s3rec")
    with pytest.raises(ValueError, match="recipe is 'none'; expected 'alkdrec' or 's3rec'"):
        registry.read(f"userseq:{lists}", recipe="none")


@pytest.mark.skipif(not S3REC.is_dir(), reason="../shared/public-data is not there")
@pytest.mark.parametrize(
    ("name", "counts"), [("Beauty", (22_363, 12_101, 198_502)), ("Sports_and_Outdoors", (35_598, 18_357, 296_337))]
)
def test_published_counts(name, counts):
    dataset = alkd.data.read(f"userseq:{S3REC / name}.txt", recipe="s3rec", max_length=50)
    users, items, interactions = counts
    assert len(dataset.train) == len(dataset.validation) == len(dataset.test) == dataset.report["sessions"] == users
    assert dataset.num_items == items
    assert dataset.report["interactions"] == interactions
    assert dataset.report["recipe"]["same_counts_as"] == name
    lines = [line.split()[1:] for line in pathlib.Path(f"{S3REC / name}.txt").read_text().splitlines()]
    ids = np.array(dataset.item_ids)
    assert ids[dataset.test.target].tolist() == [line[-1] for line in lines]
    assert ids[dataset.validation.target].tolist() == [line[-2] for line in lines]
    assert [len(line) - 2 for line in lines] == np.diff(dataset.train_sequences.offsets).tolist()
    np.testing.assert_array_equal(dataset.test_sequences.first_target, [len(line) - 1 for line in lines])
