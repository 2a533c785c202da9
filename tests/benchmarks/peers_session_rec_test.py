"""The peer from a checkout: it feeds every item once, in sessions of their own, in the order of the histories."""

import inspect
import sys
import types

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.baselines import Histories
from benchmarks import counting, peers_session_rec

CODE = """
import types

class SequentialRules:
    def __init__(self, steps, weighting, pruning):
        self.options, self.calls, self.known = (steps, weighting, pruning), [], {}

    def fit(self, clicks):
        self.clicks = {name: list(column) for name, column in clicks.items()}

    def predict_next(self, session_id, item, catalogue, timestamp=0):
        self.calls.append((session_id, item, timestamp))
        self.known.setdefault(session_id, []).append(item)
        scores = [self.known[session_id].count(candidate) for candidate in catalogue]
        return types.SimpleNamespace(to_numpy=lambda: scores)
"""


@pytest.fixture
def peer(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=dict))
    file = tmp_path / peers_session_rec.CLASSES["sr"][0]
    file.parent.mkdir(parents=True)
    file.write_text(CODE)
    offsets, times = np.array([0, 2, 5]), np.array([1000, 1000, 3000, 3000, 3000])
    sequences = alkd.Sequences(np.array([1, 2, 3, 1, 2]), offsets, times)
    return peers_session_rec.Peer(tmp_path, "sr", sequences, 4)


def test_clicks_are_a_table_in_seconds(peer):
    peer.fit()
    expected = {"SessionId": [0, 0, 1, 1, 1], "ItemId": [1, 2, 3, 1, 2], "Time": [1.0, 1.0, 3.0, 3.0, 3.0]}
    assert peer.method.clicks == expected
    assert peer.method.options == tuple(peers_session_rec.OPTIONS["sr"].values())


def test_the_options_are_the_defaults_of_our_methods():
    for name, options in peers_session_rec.OPTIONS.items():
        parameters = inspect.signature(counting.METHODS[name]).parameters
        assert options == {option: parameters[option].default for option in options}


def test_prefixes_take_one_call_an_item_and_other_histories_one_for_each_of_their_items(peer):
    histories = Histories.from_rows([[2, 2, 3], [4, 1]], [5000, 7000])
    cut = peers_session_rec.prefixes(histories)
    assert [row[mask].tolist() for row, mask in zip(cut.items, cut.mask, strict=True)] == [
        [2], [2, 2], [2, 2, 3], [4], [4, 1],
    ]  # fmt: skip
    np.testing.assert_array_equal(cut.time, [5000, 5000, 5000, 7000, 7000])
    scores = peer.scores(cut)
    assert peer.method.calls == [(1, 2, 5.0), (1, 2, 5.0), (1, 3, 5.0), (2, 4, 7.0), (2, 1, 7.0)]
    np.testing.assert_array_equal(scores, [[0, 1, 0, 0], [0, 2, 0, 0], [0, 2, 1, 0], [0, 0, 0, 1], [1, 0, 0, 1]])
    peer.method.calls.clear()
    np.testing.assert_array_equal(peer.scores(histories), scores[[2, 4]])
    assert [number for number, *_ in peer.method.calls] == [3, 3, 3, 4, 4]


def test_scores_agree_where_a_factor_of_the_history_is_the_difference():
    ours = np.array([[9.0, 1.0, 2.0], [9.0, 1.0, 2.0], [9.0, 0.0, 0.0]])
    assert counting.same_scores(ours, np.array([[5.0, 10.0], [5.0, 10.1], [np.nan, np.nan]])) == pytest.approx(2 / 3)


def test_another_folder_is_refused(tmp_path):
    sequences = alkd.Sequences(np.array([1, 2]), np.array([0, 2]), np.array([0, 0]))
    with pytest.raises(ValueError, match=r"expected a checkout of session-rec, with algorithms/knn/stan\.py"):
        peers_session_rec.Peer(tmp_path, "stan", sequences, 2)
