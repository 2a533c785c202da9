"""The authors' release: what it holds, what is repaired, and damaged copies of it."""

import random

import numpy as np
import pytest

from alkd_jax import data
from alkd_jax.data import sessions
from tests.helpers.pickle_writer import call, dumps, frame, object_array, range_index, session_frame

NUM_ITEMS = 12
ROWS = [
    (["i0", "i1"], "i2"),
    (["i0", "untitled", "i3"], "i1"),
    (["i4"], "untitled"),
    (["untitled"], "i4"),
    (["i6", "i7", "i8", "i9", "i10", "i11", "i0", "i1", "i2", "i3", "i4"], "i5"),
    (["i2", "i3"], "i11"),
    (["i2", "i4"], "i3"),
]
KEPT = [[1, 2, 3], [1, 4, 2], [7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6], [3, 4, 12], [3, 5, 4]]
TITLES = 'itemID,title\r\ni0,Toy story\ni1,"A, B"\ni2,"in ""quotes"""\ni3,two\u2028lines\ni4,\n' + "".join(
    f"i{item},same\n" for item in range(5, NUM_ITEMS)
)
LISTS = "2\t[11, 3, 11, 0, 12, 99, 2, 5]\t7\n0\t[2, 4, 6, 8, 10]\t0\n1\t[]\t25\n"


@pytest.fixture
def toy(tmp_path):
    """A release of seven sessions, of which five are kept and three are training sessions."""
    folder = tmp_path / "ML"
    folder.mkdir()
    (folder / "ML.pkl").write_bytes(dumps(session_frame(*map(list, zip(*ROWS, strict=True)))))
    (folder / "ML_title.csv").write_text(TITLES, encoding="utf-8", newline="")
    (folder / "ML_LLM_Database.data").write_text(LISTS)
    (folder / "ML_ALKERec.base").write_text("2\n0\n")
    return tmp_path


def test_items_are_numbered_from_one_and_untitled_ones_left_out(toy):
    dataset = data.load_released(toy, "ML")
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [3, 1, 1]
    assert np.concatenate([split.session_id for split in splits]).tolist() == [0, 1, 2, 3, 4]
    assert np.concatenate([split.target for split in splits]).tolist() == [row[-1] for row in KEPT]
    assert sessions.unpack(dataset.train_sequences) == KEPT[:3]
    assert dataset.train.items[2].tolist() == KEPT[2][1:-1]
    assert dataset.item_ids == ("", *(f"i{item}" for item in range(NUM_ITEMS)))
    assert dataset.titles[:6] == ("", "Toy story", "A, B", 'in "quotes"', "two\u2028lines", "")


def test_everything_dropped_is_counted(toy):
    report = data.load_released(toy, "ML").report
    assert report["rows_read"] == 7
    assert report["rows_dropped"] == {"target_untitled": 1, "no_input_left": 1}
    assert (report["inputs_untitled"], report["items_untitled"]) == (2, 1)
    assert (report["titles_empty"], report["titles_duplicate"]) == (1, 6)
    assert (report["sessions_truncated"], report["inputs_truncated"]) == (1, 1)
    assert report["index_runs"] == [[0, 6]]
    assert not report["counts_agree_with_paper"]


def test_the_window_can_be_longer_than_the_papers(toy):
    assert data.load_released(toy, "ML", max_length=12).train.items[2].tolist() == [*KEPT[2][:-1], 0]


def test_rankings_are_repaired_and_every_repair_is_counted(toy):
    rankings, report = data.load_released_rankings(toy, "ML", length=2)
    assert rankings.session_id.tolist() == [2, 0]
    # session 2 has every item but 6, its target, in its history
    assert rankings.items.tolist() == [[6, 0], [3, 5]]
    assert rankings.mask.tolist() == [[True, False], [True, True]]
    assert report["faults"] == {
        "repeated": {"lists": 1, "entries": 1},
        "in_history": {"lists": 1, "entries": 4},
        "beyond_catalogue": {"lists": 1, "entries": 2},
        "beyond_length": {"lists": 1, "entries": 3},
    }
    assert (report["lists_read"], report["lists_empty"], report["lists_kept"]) == (3, 1, 2)
    assert (report["entries_read"], report["entries_kept"]) == (13, 3)
    assert report["places_disagree"] == 0


def test_rankings_can_be_had_as_they_were_recorded_but_for_items_that_do_not_exist(toy):
    rankings, report = data.load_released_rankings(toy, "ML", repair=False)
    assert [row[mask].tolist() for row, mask in zip(rankings.items, rankings.mask, strict=True)] == [
        [12, 4, 12, 1, 3, 6],
        [3, 5, 7, 9, 11],
        [],
    ]
    assert (report["lists_kept"], report["entries_kept"]) == (3, 11)


def test_a_place_that_is_not_the_targets_is_counted(toy):
    (toy / "ML" / "ML_LLM_Database.data").write_text(LISTS.replace("\t0\n", "\t1\n"))
    assert data.load_released_rankings(toy, "ML")[1]["places_disagree"] == 1


def test_a_selection_keeps_the_order_of_its_file(toy):
    chosen = data.load_released_selection(toy, "ML", "ALKDRec")
    assert chosen.tolist() == [2, 0]
    assert chosen.dtype == np.int32


@pytest.mark.parametrize("load", [data.load_released, data.load_released_rankings])
def test_another_dataset_is_refused_with_the_known_ones(toy, load):
    with pytest.raises(ValueError, match="'Beauty'; expected one of ML, Games"):
        load(toy, "Beauty")


def test_another_method_is_refused_with_the_known_ones(toy):
    with pytest.raises(ValueError, match="'best'; expected one of ALKDRec, RAD-BC, random, easiest, hardest"):
        data.load_released_selection(toy, "ML", "best")


def test_a_list_of_no_items_cannot_be_asked_for(toy):
    with pytest.raises(ValueError, match="length is 0"):
        data.load_released_rankings(toy, "ML", length=0)


def test_a_missing_folder_is_named(toy):
    with pytest.raises(FileNotFoundError, match="Games: no such folder"):
        data.load_released(toy, "Games")


@pytest.mark.parametrize("name", ["ML.pkl", "ML_title.csv", "ML_LLM_Database.data", "ML_RAD-BC.base"])
def test_a_missing_file_is_named(toy, name):
    (toy / "ML" / name).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=name):
        load_everything(toy)


def load_everything(toy):
    data.load_released_rankings(toy, "ML")
    data.load_released_selection(toy, "ML", "ALKDRec")
    data.load_released_selection(toy, "ML", "RAD-BC")


def one_column(name):
    return dumps(frame([name], [(object_array([["i0"]], 1, 1), 0, 1)], range_index(1)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ML.pkl", b"\x80\x05not a pickle", "not a readable pickle"),
        ("ML.pkl", dumps(call("os.system", "true")), r"os\.system"),
        ("ML.pkl", one_column("session"), "columns are session; expected session and label"),
        ("ML.pkl", dumps(session_frame([["i0"], ["i1", 7]], ["i1", "i2"])), "row 1"),
        ("ML.pkl", dumps(session_frame([["i0"], ["i1"]], ["i1", 7])), "row 1"),
        ("ML.pkl", dumps(session_frame(["i0"], ["i1"])), "row 0"),
        ("ML.pkl", dumps(session_frame([["i0"]], ["i1"])), "leave the train split"),
        ("ML_title.csv", b"", "line 1: nothing; expected itemID,title"),
        ("ML_title.csv", b"itemID,name\n", "line 1"),
        ("ML_title.csv", b"itemID,title\ni0,a\ni1,b,c\n", "line 3: 3 fields"),
        ("ML_title.csv", b"itemID,title\ni0,a\n,b\n", "line 3"),
        ("ML_title.csv", b"itemID,title\ni0,a\ni1,b\ni0,c\n", "line 4: item 'i0' is on line 2"),
        ("ML_title.csv", b"itemID,title\ni0,a\ni1,b", "line 3: no newline"),
        ("ML_title.csv", b'itemID,title\ni0,"a\n', "csv"),
        ("ML_title.csv", b"itemID,title\ni0,\xff\n", "UTF-8"),
        ("ML_LLM_Database.data", b"", "line 1: no newline"),
        ("ML_LLM_Database.data", b"0\t[1, 2]\t25\n1\t[1, 2", "line 2: no newline"),
        ("ML_LLM_Database.data", b"0\t[1, 2]\t25\n1\t[1, 2]\t2", "line 2: no newline"),
        ("ML_LLM_Database.data", b"0\t[1, 2]\t25\n1\t[1, 2\n", "line 2"),
        ("ML_LLM_Database.data", b"0\t[1, __import__('os')]\t25\n", "line 1"),
        ("ML_LLM_Database.data", b"0\t[1, -2]\t25\n", "line 1"),
        ("ML_LLM_Database.data", b"0\t[1, 2e1]\t25\n", "line 1"),
        ("ML_LLM_Database.data", b"0\t[1, 99999999999]\t25\n", "line 1"),
        ("ML_LLM_Database.data", b"0 [1, 2] 25\n", "line 1"),
        ("ML_LLM_Database.data", b"0\t[1]\t25\n3\t[1]\t25\n", "line 2: row is 3; expected a training row below 3"),
        ("ML_LLM_Database.data", b"0\t[1]\t25\n0\t[1]\t25\n", "line 2: row 0 is on line 1"),
        ("ML_ALKERec.base", b"", "line 1: no newline"),
        ("ML_ALKERec.base", b"2\n1", "line 2: no newline"),
        ("ML_ALKERec.base", b"2\n\n", "line 2"),
        ("ML_ALKERec.base", b"2\n-1\n", "line 2"),
        ("ML_ALKERec.base", b"2\n3\n", "line 2: row is 3"),
        ("ML_ALKERec.base", b"2\n1\n2\n", "line 3: row 2 is on line 1"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_line(toy, name, content, message):
    (toy / "ML" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}") as error:
        load_everything(toy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "sizes", "counts", "dropped"),
    [
        ("ML", (7_393, 2_465, 2_465), (12_323, 8_475, 112_034), (0, 0, 0)),
        ("Games", (12_054, 4_018, 4_019), (20_091, 26_138, 132_677), (26, 5, 155)),
    ],
)
def test_the_releases_counts_are_the_papers(released_dataset, name, sizes, counts, dropped):
    dataset = released_dataset(name)
    report = dataset.report
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == sizes
    assert (report["sessions"], dataset.num_items, report["interactions"]) == counts
    assert report["counts_agree_with_paper"]
    assert (*report["rows_dropped"].values(), report["inputs_untitled"]) == dropped
    assert dataset.train.items.max() <= dataset.num_items


def test_the_release_exchanges_the_last_two_blocks_of_hetrec(released_dataset):
    dataset = released_dataset("ML")
    assert dataset.report["index_runs"] == [[0, 7392], [9858, 12322], [7393, 9857]]
    # the item that the release numbers 0 and also pads with
    assert dataset.titles[1] == "Toy story"


# the shares that an independent reading of the lists found; with rows counted before dropping, Games gives 0.062 at 25
@pytest.mark.parametrize(
    ("name", "shares"), [("ML", [0.052, 0.152, 0.253, 0.529]), ("Games", [0.067, 0.202, 0.299, 0.533])]
)
def test_recorded_lists_hit_the_target_as_often_as_known(release, released_dataset, name, shares):
    dataset = released_dataset(name)
    rankings, report = data.load_released_rankings(release, name, repair=False, dataset=dataset)
    hits = rankings.items == dataset.train.target[rankings.session_id][:, None]
    np.testing.assert_allclose([hits[:, :k].any(1).mean() for k in (1, 5, 10, 25)], shares, atol=5e-4)
    assert report["places_disagree"] == 0


@pytest.mark.parametrize(
    ("name", "lists", "faults"),
    [
        ("ML", (4_992, 1, 4_991), {"repeated": 509, "in_history": 487, "beyond_catalogue": 1, "beyond_length": 0}),
        ("Games", (5_359, 152, 5_207), {"repeated": 109, "in_history": 218, "beyond_catalogue": 0, "beyond_length": 5}),
    ],
)
def test_the_repaired_lists_of_the_release_are_sound(release, released_dataset, name, lists, faults):
    dataset = released_dataset(name)
    rankings, report = data.load_released_rankings(release, name, dataset=dataset)
    assert tuple(report[key] for key in ("lists_read", "lists_empty", "lists_kept")) == lists
    assert {fault: counts["lists"] for fault, counts in report["faults"].items()} == faults
    whole = sessions.unpack(dataset.train_sequences)
    for session, items, mask in zip(rankings.session_id, rankings.items, rankings.mask, strict=True):
        kept = items[mask].tolist()
        assert len(set(kept)) == len(kept) > 0
        assert not set(kept) & set(whole[session][:-1])
        assert 1 <= min(kept) <= max(kept) <= dataset.num_items
        assert not items[~mask].any()
    lost = sum(counts["entries"] for counts in report["faults"].values())
    assert report["entries_read"] - lost == report["entries_kept"] == rankings.mask.sum()


@pytest.mark.parametrize(
    ("name", "sizes"), [("ML", (1_027, 1_000, 500, 1_000, 1_000)), ("Games", (1_208, 1_000, 1_020, 1_000, 1_000))]
)
def test_every_selected_session_has_a_recorded_list(release, released_dataset, name, sizes):
    dataset = released_dataset(name)
    recorded = data.load_released_rankings(release, name, repair=False, dataset=dataset)[0].session_id
    chosen = [
        data.load_released_selection(release, name, method, dataset=dataset)
        for method in ("ALKDRec", "RAD-BC", "random", "easiest", "hardest")
    ]
    assert tuple(map(len, chosen)) == sizes
    assert set(np.concatenate(chosen).tolist()) <= set(recorded.tolist())


def test_links_out_of_the_release_are_refused(toy):
    rankings = toy / "ML" / "ML_LLM_Database.data"
    rankings.rename(toy / "elsewhere")
    rankings.symlink_to(toy / "elsewhere")
    with pytest.raises(ValueError, match=r"ML_LLM_Database\.data leads to .*elsewhere; expected a regular file"):
        data.load_released_rankings(toy, "ML")
    (toy / "named").symlink_to(toy)
    assert len(data.load_released(toy / "named", "ML").train) == 3


def test_a_quote_over_several_titles_is_refused(toy):
    path = toy / "ML" / "ML_title.csv"
    path.write_text(TITLES.replace("i5,same", 'i5,"same').replace("i8,same", 'i8,same"'), encoding="utf-8", newline="")
    with pytest.raises(ValueError, match=r"ML_title\.csv, up to line 10: a quote is open over several lines"):
        data.load_released(toy, "ML")


def fuzz(toy, cases, seed):
    """Changes a few bytes of the release's text files; what is read has every line, or is refused in one line."""
    rng = random.Random(seed)
    names = ["ML_title.csv", "ML_LLM_Database.data", "ML_ALKERec.base"]
    whole = {name: (toy / "ML" / name).read_bytes() for name in names}
    for _ in range(cases):
        name = rng.choice(names)
        content = bytearray(whole[name])
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(content) + 1)
            content[place : place + rng.randrange(3)] = rng.choice(
                [b"", b"\n", b"\r", b'"', b"\xff", b"\0", b",", b"9"]
            )
        (toy / "ML" / name).write_bytes(content)
        try:
            rankings, report = data.load_released_rankings(toy, "ML")
            assert report["lists_read"] == (toy / "ML" / names[1]).read_bytes().count(b"\n")
            assert len(rankings) == report["lists_kept"]
            chosen = data.load_released_selection(toy, "ML", "ALKDRec")
            assert len(chosen) == (toy / "ML" / names[2]).read_bytes().count(b"\n")
        except ValueError as error:
            assert str(error).isprintable()  # noqa: PT017
        (toy / "ML" / name).write_bytes(whole[name])


def test_a_damaged_release_is_read_whole_or_refused(toy):
    fuzz(toy, 40, 0)


@pytest.mark.slow
def test_many_damaged_releases_are_read_whole_or_refused(toy):
    fuzz(toy, 3000, 1)
