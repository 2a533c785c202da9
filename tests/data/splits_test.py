"""The warning of a leak, unseen items, and prepared data whose split cuts sessions."""

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.data.leaks import leak_warning
from alkd_jax.data.prepared import prepare
from alkd_jax.data.prepared_folder import load_prepared, read_prepared, save_prepared
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.splits import SplitRules
from tests.helpers.prepared_data import sessions_of

RULES = SessionRules(boundary="user", min_length=2, max_length=None, duplicates="keep")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Users in the order of their ids, not of time; later events have other items."""
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("log") / "plays.csv"
    rows = [
        f"u{user:02d},i{time // 50 + rng.integers(12)},{1_400_000_000 + time}"
        for user in range(40)
        for time in np.sort(rng.integers(0, 600, 12))
    ]
    path.write_text("\n".join(["user,item,time", *rows]))
    return alkd.data.load_table(path)


@pytest.mark.parametrize("rule", ["block", "random", "user", "leave-one-out"])
def test_a_split_that_mixes_past_and_future_warns_with_its_share(log, rule):
    prepared = prepare(log, RULES, rule)
    train_end = prepared.sequences.offsets[prepared.sizes[0]]
    offsets = np.asarray(prepared.sequences.offsets)
    targets = [
        prepared.time[
            offsets[row] + (1 if prepared.first_target is None else prepared.first_target[row]) : offsets[row + 1]
        ]
        for row in range(sum(prepared.sizes[:2]), len(offsets) - 1)
    ]
    late = int(np.sum(prepared.time[:train_end] > min(times.min() for times in targets)))
    warning = prepared.report["leak_warning"]
    assert f"split {rule}: training sees the future of test: {late:,} of {train_end:,} training events" in warning
    assert prepared.dataset().report["leak_warning"] == warning


def test_a_split_by_time_of_events_does_not_warn(log):
    assert prepare(log, RULES, SplitRules("time-events")).report["leak_warning"] == ""
    assert leak_warning("block", np.array([1, 2]), np.array([2, 3])) == ""


def test_unseen_items_are_counted_and_can_be_dropped(log):
    kept, dropped = (prepare(log, RULES, SplitRules("time-events", unseen=unseen)) for unseen in ("keep", "drop"))
    train = {item for row in sessions_of(kept)[: kept.sizes[0]] for item in row}
    unseen = {*kept.item_ids[1:]} - train
    assert kept.report["unseen"]["items"] == len(unseen) > 0
    assert {*dropped.item_ids[1:]} == train
    assert dropped.report["unseen"] | {"items": 0} == dropped.report["unseen"]
    assert dropped.report["unseen"]["test_targets"]["unseen"] == 0
    expected = []
    for row, first in zip(sessions_of(kept)[kept.sizes[0] :], kept.first_target[kept.sizes[0] :], strict=True):
        left = [item for item in row if item in train]
        first_left = max(sum(item in train for item in row[:first]), 1)
        if len(left) > first_left:
            expected.append((left, first_left))
    held_out = zip(
        sessions_of(dropped)[dropped.sizes[0] :], dropped.first_target[dropped.sizes[0] :].tolist(), strict=True
    )
    assert list(held_out) == expected
    assert sessions_of(dropped)[: dropped.sizes[0]] == sessions_of(kept)[: kept.sizes[0]]
    dataset = dropped.dataset()
    np.testing.assert_array_equal(
        dataset.train_sequences.items, dropped.sequences.items[: len(dataset.train_sequences.items)]
    )
    assert dataset.test_sequences.first_target.tolist() == [first for _, first in expected[dropped.sizes[1] :]]
    whole = prepare(log, RULES, SplitRules("time", unseen="drop")).dataset()
    assert set(whole.test_sequences.first_target.tolist()) == {1}
    counts = dropped.report["unseen_dropped"]
    lost = len(kept.time) - len(dropped.time)
    assert sum(counts["events"].values()) + counts["events_of_dropped_sessions"] == lost


def test_a_folder_keeps_the_cuts_and_counts_events_once(log, tmp_path):
    made = prepare(log, RULES, SplitRules("time-events", gap_days=30 / 86_400))
    manifest = save_prepared(tmp_path / "out", made)
    found = read_prepared(tmp_path / "out")
    for name in ("first_target", "source_row", "time", "user"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
    dataset = load_prepared(tmp_path / "out")
    assert dataset.fingerprint == made.dataset().fingerprint == manifest["fingerprint"]
    np.testing.assert_array_equal(dataset.test_sequences.first_target, made.first_target[-made.sizes[2] :])
    events, sessions = (made.report["account"][key] for key in ("events", "sessions"))
    assert manifest["interactions"] == events["total"] - sum(events["unused"].values())
    assert manifest["sessions"] == sessions["total"] - sessions["unused"]
    assert (
        manifest["split"] | {"rule": "time-events", "train": made.sizes[0], "test": made.sizes[2]} == manifest["split"]
    )


def test_files_without_history_refuse_cut_sessions(log, tmp_path):
    made = prepare(log, RULES, "leave-one-out")
    for write in (alkd.data.write_gru4rec, alkd.data.write_recbole):
        with pytest.raises(
            ValueError, match="split is 'leave-one-out', which cuts sessions; expected a split of whole"
        ):
            write(tmp_path, "w", made)
    assert not list(tmp_path.iterdir())
