"""Every protocol of evaluation against sorting of explicit scores, for sessions of any shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from hypothesis import given, settings
from hypothesis import strategies as st

from alkd_jax import evaluation
from alkd_jax.data.sessions import leave_one_out, pack
from alkd_jax.evaluation.protocol import SEEN, TIE_RULES, Protocol
from alkd_jax.evaluation.queries import TARGETS
from alkd_jax.scoring import TIES
from alkd_jax.types import HeldOutSequences

NUM_ITEMS, LENGTH, KS = 7, 3, (1, 2, 20)
MAX_SESSION = 13
"""Longer than the window by far; a history of up to 12 items is padded to one of two widths."""


class LastItems(linen.Module):
    """Scores items by the sum of a transition table's rows, of whole numbers, so that there are many ties."""

    num_items: int
    dim: int

    def setup(self):
        self.transitions = self.param("transitions", linen.initializers.zeros, (self.num_items + 1, self.dim))
        self.items = self.param("items", linen.initializers.zeros, (self.num_items + 1, self.dim))

    def __call__(self, items, mask, *, train=False):
        return (self.transitions[items] * mask[:, :, None]).sum(1)

    def item_embeddings(self):
        return self.items


MODEL = LastItems(NUM_ITEMS, NUM_ITEMS + 1)

session_lists = st.lists(
    st.lists(st.integers(1, NUM_ITEMS), min_size=2, max_size=MAX_SESSION).flatmap(
        lambda items: st.tuples(st.just(items), st.integers(1, len(items) - 1))
    ),
    min_size=1,
    max_size=4,
)


def parameters(seed):
    transitions = np.random.default_rng(seed).integers(-1, 2, (NUM_ITEMS + 1, NUM_ITEMS + 1)).astype(np.float32)
    return {"params": {"transitions": transitions, "items": np.eye(NUM_ITEMS + 1, dtype=np.float32)}}


def brute_force(transitions, lists, protocol, length):
    """Ranks, positions, tied targets and whole lists of every query, by sorting."""
    ranks, positions, num_tied, rankings = [], [], 0, []
    for items, first in lists:
        last = len(items) - 1
        for t in {"last": [last], "first": [first], "all": range(first, last + 1)}[protocol.targets]:
            scores = transitions[items[:t][-length:]].sum(0)
            unseen = [v for v in range(1, NUM_ITEMS + 1) if protocol.seen == "keep" or v not in items[:t]]
            in_order = sorted({*unseen, items[t]}, key=lambda v: -scores[v])
            places = [1 + place for place, v in enumerate(in_order) if scores[v] == scores[items[t]]]
            mean = int(np.floor(np.mean(places) + 0.5))
            ranks.append({"average": mean, "optimistic": places[0], "pessimistic": places[-1]}[protocol.ties])
            positions.append(t - 1)
            num_tied += len(places) > 1
            rankings.append(sorted(unseen, key=lambda v: (-scores[v], v)))
    return ranks, positions, num_tied, rankings


@settings(max_examples=40)
@given(
    lists=session_lists,
    seed=st.integers(0, 100),
    seen=st.sampled_from(list(SEEN)),
    targets=st.sampled_from(list(TARGETS)),
    ties=st.sampled_from(list(TIES)),
    whole=st.booleans(),
)
def test_every_protocol_equals_brute_force(lists, seed, seen, targets, ties, whole):
    """Complete sessions have a history beyond the window; ``Sessions`` have nothing but their window and target."""
    params, protocol = parameters(seed), Protocol(seen, targets, ties)
    sequences = pack([items for items, _ in lists])
    first = np.array([first for _, first in lists], np.int32)
    if whole:
        sessions = HeldOutSequences(sequences, first, np.arange(len(lists), dtype=np.int32) + 5)
    else:
        sessions = leave_one_out(sequences, max_length=LENGTH)
        lists = [(items[-LENGTH - 1 :], 1) for items, _ in lists]
    options = {"seen": seen, "targets": targets, "ties": ties, "max_length": LENGTH}
    out = evaluation.evaluate(MODEL, params, sessions, ks=KS, batch_size=1, **options)
    transitions = params["params"]["transitions"]
    ranks, positions, num_tied, rankings = brute_force(transitions, lists, protocol, LENGTH)
    assert out.ranks.tolist() == ranks
    assert out.position.tolist() == positions
    assert out.num_tied == num_tied
    assert out.protocol == protocol
    assert len(out.session_id) == len(out.target) == len(out.session_length) == len(ranks)
    for k in KS:
        listed = [v for ranking in rankings for v in ranking[:k]]
        assert out.exposure[k].tolist() == [listed.count(v) for v in range(NUM_ITEMS + 1)]
        assert out.metrics[f"coverage@{k}"] == pytest.approx(len(set(listed)) / NUM_ITEMS)
        assert out.metrics[f"recall@{k}"] == pytest.approx(np.mean(np.array(ranks) <= k))
        assert out.metrics[f"mrr@{k}"] == pytest.approx(np.mean([(r <= k) / r for r in ranks]))


def test_a_catalogue_of_one_item_has_rank_one():
    params = {"params": {"transitions": np.zeros((2, 2), np.float32), "items": np.eye(2, dtype=np.float32)}}
    held_out = HeldOutSequences(pack([[1, 1, 1]]), np.array([1], np.int32), np.array([0], np.int32))
    for seen, coverage in (("keep", 1.0), ("exclude", 0.0)):
        out = evaluation.evaluate(LastItems(1, 2), params, held_out, seen=seen, targets="all")
        assert out.ranks.tolist() == [1, 1]
        assert out.metrics["coverage@10"] == coverage
        assert out.num_tied == 0


def test_ranks_are_the_same_without_lists_and_in_batches_of_any_size():
    lists = [([1, 2, 3, 4, 5, 6, 7] * (n % 2 + 1), n + 1) for n in range(6)]
    sequences = pack([items for items, _ in lists])
    held_out = HeldOutSequences(sequences, np.arange(1, 7, dtype=np.int32), np.arange(6, dtype=np.int32))
    out = evaluation.evaluate(MODEL, parameters(0), held_out, targets="all")
    plain = evaluation.evaluate(MODEL, parameters(0), held_out, targets="all", lists=False, batch_size=7)
    np.testing.assert_array_equal(plain.ranks, out.ranks)
    assert plain.exposure == {}
    assert plain.metrics == {name: out.metrics[name] for name in plain.metrics}
    assert {"coverage@5", "gini@20"} == {"coverage@5", "gini@20"} & (out.metrics.keys() - plain.metrics.keys())


def test_seeds_take_the_same_options():
    held_out = HeldOutSequences(pack([[1, 2, 3]]), np.array([1], np.int32), np.array([0], np.int32))
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), parameters(3))
    outs = evaluation.evaluate_seeds(MODEL, two, held_out, targets="all", seen="keep", lists=False)
    assert [len(out.ranks) for out in outs] == [2, 2]


def test_the_name_of_a_protocol_says_what_was_measured():
    assert Protocol().name == "last target, seen items excluded, mean rank of ties"
    assert Protocol("keep", "all", "pessimistic").name == "all targets, seen items ranked, worst rank of ties"
    assert Protocol(rules="released").name.endswith("rules of the released code")
    assert set(TIE_RULES) == set(TIES)


@pytest.mark.usefixtures("unchecked_types")
def test_unknown_and_contradictory_options_are_refused():
    for options, message in [
        ({"seen": "drop"}, "seen is 'drop'; expected 'exclude' or 'keep'"),
        ({"targets": "each"}, "targets is 'each'"),
        ({"ties": "worst"}, "ties is 'worst'"),
        ({"rules": "released", "seen": "keep"}, "protocol is 'released' with seen='keep' and targets='last'; expected"),
        ({"rules": "released", "targets": "all"}, "protocol is 'released' with seen='exclude' and targets='all'"),
    ]:
        with pytest.raises(ValueError, match=message):
            Protocol(**options)
    sessions = leave_one_out(pack([[1, 2]]))
    with pytest.raises(ValueError, match="k is 0; expected at least 1"):
        evaluation.evaluate(MODEL, parameters(0), sessions, ks=(5, 0))
