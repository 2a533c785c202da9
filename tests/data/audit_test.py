"""The audit finds what was put into a data set on purpose, and only that."""

import json

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.data.audit import audit
from alkd_jax.data.sessions import pack
from alkd_jax.io import check_finite_values
from experiments import audit as command

TITLES = ["", "Plain", "Plain", "Amp &amp; Sand", "<b>Bold</b>", " é ", "", "nan", "x" * 683, "1999", "Tab\tin"]
IDS = ["", *(str(n) for n in (5, 40, 300, 21, 7, 8, 9, 10, 11, 12))]


def small(**options):
    sessions = [[1, 2, 3], [4, 2], [1, 2, 3], [4, 2], [9, 8, 9, 1], [1, 2, 3]]
    return audit(pack(sessions), (3, 1, 2), TITLES, IDS, **options)


def test_duplicates_and_unseen_targets_are_counted():
    found = small()
    assert found["duplicates"] == {
        "sessions_identical_to_an_earlier": 3,
        "repeats_within_sessions": 1,
        "sessions_with_target_in_input": 0,
        "validation_sessions_also_in_train": 1,
        "test_sessions_also_in_train": 1,
    }
    assert audit(pack([[1, 2, 1], [1, 2]]), (1, 0, 1), TITLES, IDS)["duplicates"]["sessions_with_target_in_input"] == 1
    assert found["unseen_targets"] == {"validation": {"sessions": 0, "of": 1}, "test": {"sessions": 0, "of": 2}}
    beyond = audit(pack([[1, 2], [2, 3], [1, 3]]), (1, 1, 1), TITLES, IDS)["unseen_targets"]
    assert [beyond[name]["sessions"] for name in ("validation", "test")] == [1, 1]


def test_order_follows_ids_as_numbers():
    # 5, 40, 300 rise as numbers, and fall as text
    order = audit(pack([[1, 2, 3], [3, 1]]), (1, 0, 1), TITLES, IDS)["order"]
    assert order == {"pairs_rising": 2 / 3, "pairs_to_target_rising": 0.5, "sessions_all_rising": 0.5}


def test_an_id_of_more_digits_than_python_makes_a_number_of_is_audited():
    ids = ["", "9" * 5_000, "1" + "0" * 5_000, "7"]
    found = audit(pack([[3, 1, 2], [1, 2]]), (1, 0, 1), TITLES[:4], ids)
    assert found["order"] == {"pairs_rising": 1.0, "pairs_to_target_rising": 1.0, "sessions_all_rising": 1.0}


@pytest.mark.parametrize(
    ("rows", "sizes"), [([[1, 1]], (1, 0, 0)), ([[1, 2], [2, 1]], (1, 1, 0)), ([[1, 2], [2, 1]], (0, 0, 2))]
)
def test_one_session_one_item_and_empty_splits_are_audited_without_undefined_numbers(tmp_path, rows, sizes):
    time, user = np.arange(2 * len(rows)), np.zeros(len(rows), np.int32)
    num_items = max(map(max, rows))
    found = audit(pack(rows), sizes, TITLES[: num_items + 1], IDS[: num_items + 1], time=time, user=user)
    check_finite_values("found", found)
    assert command.findings(found)


def test_what_is_no_dataset_is_refused():
    for rows, sizes, message in (
        ([], (0, 0, 0), "least length of a session is 0; expected at least 2"),
        ([[1]], (1, 0, 0), "least length of a session is 1"),
        ([[1, 99]], (1, 0, 0), r"items span 1\.\.99"),
        ([[1, 2]], (1, 1, 0), r"sizes are \[1, 1, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            audit(pack(rows), sizes, TITLES, IDS)


def test_ties_are_within_sessions_only():
    sequences = pack([[1, 2, 3], [3, 1]])
    ties = audit(sequences, (1, 0, 1), TITLES, IDS, time=np.array([1, 1, 2, 2, 2]))["ties"]
    assert ties["pairs_tied"] == 2 / 3
    assert ties["tied_pairs_rising"] == 0.5
    assert ties["untied_pairs_rising"] == 1.0
    assert not ties["times_are_days"]
    assert small()["ties"] is None


def test_users_and_time_between_splits():
    sequences = pack([[1, 2], [2, 3], [1, 3], [3, 1]])
    user, time = np.array([0, 1, 1, 2], np.int32), np.array([0, 9, 1, 3, 4, 5, 6, 7])
    overlap = audit(sequences, (2, 0, 2), TITLES, IDS, time=time, user=user)["overlap"]
    assert overlap["users_in_train_and_test"] == 1
    assert overlap["test_sessions_of_users_in_train"] == 0.5
    assert overlap["train_sessions_ending_after_the_first_test_session"] == 0.5


def test_problems_of_titles_are_distinguished():
    problems = {name: problem["items"] for name, problem in small()["titles"]["faults"].items()}
    assert problems == {
        "empty": 1,
        "shared with another item": 2,
        "not ASCII": 1,
        "with HTML entities": 1,
        "with HTML tags": 1,
        "with a line end or a tab": 1,
        "with spaces around": 1,
        "longer than 200 letters": 1,
        "a stand-in such as nan": 1,
        "without a letter": 1,
    }


def test_popularity_by_hand():
    popularity = small()["popularity"]
    count = np.sort(np.bincount([1, 2, 3] * 3 + [4, 2] * 2 + [9, 8, 9, 1], minlength=11)[1:])
    pairs = np.abs(count[:, None] - count[None, :]).mean()
    assert popularity["gini"] == pytest.approx(pairs / (2 * count.mean()))
    assert (popularity["items_once"], popularity["items_never"]) == (1, 4)
    assert popularity["count"][0] == 5


@pytest.mark.parametrize("name", ["ML", "Games"])
def test_the_releases_facts_come_out(release, tmp_path, name):
    found = command.run(command.Audit(f"released:{release}:{name}", tmp_path, shuffles=1, max_sessions=100))
    rising = found["order"]["pairs_rising"], found["order"]["pairs_to_target_rising"]
    wanted = {"ML": (0.49, 0.50), "Games": (0.89, 0.80)}[name]
    np.testing.assert_allclose(rising, wanted, atol=0.01)
    assert found["unseen_targets"]["test"]["sessions"] == {"ML": 82, "Games": 1096}[name]
    assert found["titles"]["faults"]["not ASCII"]["items"] == {"ML": 290, "Games": 0}[name]
    assert found["popularity"]["items_once"] == {"ML": 1474, "Games": 11344}[name]
    assert json.loads((tmp_path / "audit.json").read_text()) == found
    assert found["drift"]["test"]["unseen"] > 0
    assert set(found["shuffled_histories"]) == {"Markov", "Sequential rules"}
    page = (tmp_path / "audit.html").read_text()
    assert page.count("<svg") == 1
    assert ("from ids alone" in page) == (name == "Games")


def test_a_cut_session_counts_once(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        f"u{user},{rng.integers(1, 9)},{1_400_000_000 + time}" for user in range(30) for time in range(user, user + 7)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["user,item,time", *rows]))
    rules = alkd.data.SessionRules(boundary="user", min_length=2, max_length=None, duplicates="keep")
    log = alkd.data.load_table(tmp_path / "a.csv")
    whole, cut = (alkd.data.prepare(log, rules, split) for split in ("time", "leave-one-out"))
    found = []
    for name, prepared in (("whole", whole), ("cut", cut)):
        alkd.data.save_prepared(tmp_path / name, prepared)
        found.append(command.run(command.Audit(f"prepared:{tmp_path / name}", tmp_path / f"{name}-out", shuffles=0)))
    for topic in ("lengths", "order", "popularity", "ties"):
        assert found[0][topic] == found[1][topic]
    assert found[1]["counts"] | {"sessions": 30, "interactions": 210, "train": 30, "test": 30} == found[1]["counts"]
    assert "training sees the future of test" in found[1]["leak_warning"]
    assert found[1]["drift"]["test"]["events"] == 30


def test_hostile_titles_stay_text_on_the_page(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["user,item,time", *(f"u{n // 4},{n % 7},{n}" for n in range(80))]))
    lines = [json.dumps({"item": str(n), "title": "<script>alert(1)</script>"}) for n in range(7)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    log = alkd.data.load_table(tmp_path / "a.csv", tmp_path / "t.jsonl")
    prepared = alkd.data.prepare(log, alkd.data.SessionRules(min_length=2))
    alkd.data.save_prepared(tmp_path / "p", prepared)
    command.run(command.Audit(f"prepared:{tmp_path / 'p'}", tmp_path / "out", shuffles=0))
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "Jensen–Shannon divergence" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
