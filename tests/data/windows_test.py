"""Windows: every event in one of them, each split by time, and a folder that is replaced or refused as a whole."""

import json

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.data.prepared_folder import load_prepared, read_prepared
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.splits import SplitRules
from alkd_jax.data.windows import prepare_windows, save_windows
from tests.helpers.prepared_data import sessions_of

RULES = SessionRules(boundary="user", min_length=2, max_length=None, duplicates="keep")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("log") / "plays.csv"
    times = rng.permutation(900)
    rows = [f"u{rng.integers(40)},i{time // 100 * 20 + rng.integers(30)},{1_400_000_000 + time}" for time in times]
    path.write_text("\n".join(["user,item,time", *rows]))
    return alkd.data.load_table(path)


@pytest.fixture(scope="module")
def windows(log):
    return prepare_windows(log, RULES, num_windows=3)


def test_windows_take_every_event_once_and_are_split_in_time(log, windows):
    begin, end = log.time.min(), log.time.max() + 1
    edges = begin + (end - begin) * np.arange(4) // 3
    assert [window.options["window"]["first_time"] for window in windows] == edges[:-1].tolist()
    found = [window.report["sessionise"]["window"] for window in windows]
    assert sum(counts["events"] for counts in found) == len(log)
    for window, counts, first, last in zip(windows, found, edges[:-1], edges[1:], strict=True):
        events = window.report["account"]["events"]
        assert events["total"] == counts["events"] - counts["sessions_of_one_event_dropped"]
        cuts = window.options["split"]
        assert (cuts["validation_time"], cuts["test_time"]) == (
            first + round(0.6 * (last - first)),
            first + round(0.8 * (last - first)),
        )
        assert window.time.min() >= first
        assert window.time.max() < last
        train = window.time[: window.sequences.offsets[window.sizes[0]]]
        assert train.max() < cuts["validation_time"]
        assert window.report["leak_warning"] == ""
        inside = (log.time >= first) & (log.time < last)
        # The catalogue has the items of the window only.
        assert {*window.item_ids[1:]} <= {log.item_ids[item] for item in log.item[inside]}
    assert [window.name for window in windows] == [f"{log.name} (window {n} of 3)" for n in (1, 2, 3)]


def test_a_folder_of_windows_is_read_window_by_window(windows, tmp_path):
    manifest = save_windows(tmp_path / "w", windows)
    assert manifest == json.loads((tmp_path / "w" / "manifest.json").read_text())
    for part, window in zip(manifest["windows"], windows, strict=True):
        dataset = load_prepared(tmp_path / "w" / part["folder"])
        assert dataset.fingerprint == window.dataset().fingerprint == part["fingerprint"]
        assert dataset.name == window.name
        assert sessions_of(read_prepared(tmp_path / "w" / part["folder"])) == sessions_of(window)
    with pytest.raises(ValueError, match=r"holds windows of a dataset; expected the folder of one"):
        load_prepared(tmp_path / "w")
    with pytest.raises(ValueError, match=r"holds windows of a dataset; expected an empty folder"):
        alkd.data.save_prepared(tmp_path / "w", windows[0])
    save_windows(tmp_path / "w", windows)
    with pytest.raises(ValueError, match="contains other files; expected an empty folder or one of at most 2 windows"):
        save_windows(tmp_path / "w", windows[:2])
    alkd.data.save_prepared(tmp_path / "one", windows[0])
    with pytest.raises(ValueError, match="contains other files"):
        save_windows(tmp_path / "one", windows)


def test_windows_of_another_split_or_too_many_are_refused(log):
    with pytest.raises(ValueError, match="split of windows is 'block'"):
        prepare_windows(log, RULES, SplitRules("block"))
    with pytest.raises(ValueError, match="expected 'time-events' without times"):
        prepare_windows(log, RULES, SplitRules("time-events", test_time=5))
    with pytest.raises(ValueError, match=r"window \d+ of 900: "):
        prepare_windows(log, RULES, num_windows=900)
