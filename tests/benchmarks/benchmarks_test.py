"""Every benchmark runs at smoke size and writes one JSON line per measurement."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alkd_jax as alkd
from benchmarks import harness, peers_recbole, peers_torch, synthetic_sessions
from experiments import __main__ as overview

NAMES = sorted(set(overview.benchmark_names()) - {"accelerators", "all", "device", "many_devices"})


SLOW = {"cold_run", "evaluation", "scaling", "selection", "serve_load", "sessions_in_parts", "training"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NAMES])
def test_benchmark_runs(name, tmp_path):
    bench = harness.Bench(json=tmp_path / "out.jsonl", rounds=1, smoke=True)
    importlib.import_module(f"benchmarks.{name}").main(bench)
    lines = [json.loads(line) for line in bench.json.read_text().splitlines()]
    assert lines
    for line in lines:
        assert line["name"] == name
        assert {"device", "cores", "jax", "python", "rounds", "yardstick"} <= line.keys()
        for kind in ("wall_s", "wall_middle_s", "compile_s", "peak_memory_mib"):
            assert line[kind].keys() == line["wall_s"].keys()
        assert all(time > 0 for time in line["wall_s"].values())


def test_a_terminal_shows_rate_milliseconds_a_step_memory_and_ratio(monkeypatch, capsys):
    measurement = {"name": "training", "backbone": "fpmc", "steps": 20, "jax": "0.1", "yardstick": "ours"}
    measurement |= {"wall_s": {"ours": 0.1, "peer": 0.25}, "peak_memory_mib": {"ours": 12.4, "peer": 30.0}}
    measurement |= {"sessions_per_s": {"ours": 204_800.0, "peer": 81_920.0}, "wall_ratio": {"peer": {"median": 2.5}}}
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    harness.write_measurement(measurement, harness.Bench(), harness.readable_lines(measurement))
    assert capsys.readouterr().out.splitlines() == [
        "training: backbone fpmc, steps 20",
        "  ours: 204,800 sessions/s, 5 ms a step, peak memory 12 MiB more",
        "  peer: 81,920 sessions/s, 12.5 ms a step, peak memory 30 MiB more, 2.5 times the time of ours",
    ]


@pytest.mark.slow
def test_benchmarks_all_writes_one_file_that_starts_with_the_canary(tmp_path):
    bench = harness.Bench(json=tmp_path / "out.jsonl", rounds=1, smoke=True)
    importlib.import_module("benchmarks.all").main(bench)
    names = [json.loads(line)["name"] for line in bench.json.read_text().splitlines()]
    assert names[0] == "scatter-add canary"
    assert set(names[1:]) == {
        "retrieval",
        "embedding_update",
        "large",
        "serve",
        "scaling",
        "training",
        "evaluation",
    }


def test_benchmarks_all_lists_the_parts_it_left_out(tmp_path, capsys):
    everything = importlib.import_module("benchmarks.all")
    everything.main(everything.Budget(json=tmp_path / "out.jsonl", rounds=1, smoke=True, minutes=0.0))
    assert not (tmp_path / "out.jsonl").exists()
    assert "benchmarks.all.canary" in capsys.readouterr().err


def test_ratios_are_taken_within_a_round(monkeypatch):
    walls = [0.0, 0.0, 1.0, 2.0, 10.0, 30.0, 1.0, 4.0]
    times = iter([(wall, 2 * wall) for wall in walls])
    monkeypatch.setattr(harness, "seconds", lambda work: next(times))
    found = harness.compare("x", {"old": None, "new": None}, harness.Bench(rounds=3))
    assert found["wall_s"] == {"old": 1.0, "new": 4.0}
    assert found["cpu_s"] == {"old": 2.0, "new": 8.0}
    assert found["wall_ratio"]["new"]["median"] == found["cpu_ratio"]["new"]["median"] == 3.0
    assert found["wall_middle_s"]["old"] == [1.0, 10.0]


def test_the_share_of_the_roofline_and_sessions_a_second_follow_from_the_times(monkeypatch):
    monkeypatch.setattr(harness, "seconds", lambda work: (0.5, 0.25))
    monkeypatch.setattr(harness, "matmul_rate", lambda kind: 1000.0)
    found = harness.compare("x", {"one": None}, harness.Bench(rounds=3), sessions_per_call=10, flop=50.0)
    assert found["sessions_per_s"] == {"one": 20.0}
    assert found["share_of_matmul"] == {"one": pytest.approx(0.2)}


@pytest.mark.parametrize("data", synthetic_sessions.SIZES)
def test_random_sessions_repeat_as_much_as_the_released_ones(data, released_dataset):
    num_sessions, _, num_items = synthetic_sessions.SIZES[data]
    drawn = synthetic_sessions.random_sessions(num_sessions, num_items, like=data)
    real = released_dataset(data).train
    np.testing.assert_array_equal(np.bincount(real.mask.sum(1), minlength=11), synthetic_sessions.LENGTHS[data])

    def repeated(sessions):
        batches = [np.random.default_rng(seed).choice(num_sessions, 1024, replace=False) for seed in range(5)]
        return np.mean([[np.unique(x[batch]).size for x in (sessions.items, sessions.target)] for batch in batches], 0)

    np.testing.assert_allclose(repeated(drawn), repeated(real), rtol=0.1)


@pytest.mark.skipif(peers_torch.ABSENT is not None, reason=str(peers_torch.ABSENT))
@pytest.mark.parametrize("backbone", synthetic_sessions.BACKBONES)
def test_the_torch_peer_computes_what_we_compute(backbone):
    drawn = synthetic_sessions.random_sessions(200, 60)
    # The peer masks whatever was seen, a target among it too; real targets never were.
    unseen = np.flatnonzero((drawn.items != drawn.target[:, None]).all(1))[:100]
    train = jax.tree.map(lambda array: array[unseen], drawn)
    model = alkd.models.create(backbone, num_items=60, dim=6)
    params = alkd.models.init_params(jax.random.key(0), model)
    peer = peers_torch.Peer(backbone, params, train, dropout=0.0)
    items, mask = jnp.asarray(train.items), jnp.asarray(train.mask)
    vectors = model.apply(params, items, mask)
    np.testing.assert_allclose(vectors, peer.encode(peer.items, peer.mask).detach().numpy(), atol=1e-5)

    batch = alkd.training.examples.last_item_examples(train).take(jnp.arange(100), train)
    quiet = model.clone(dropout=0.0) if backbone == "attmix" else model
    loss, gradient = jax.value_and_grad(alkd.objectives.InBatchBPR(quiet))(params, batch, jax.random.key(0))
    theirs = peer.loss(peer.items, peer.mask, peer.target)
    theirs.backward()
    assert float(theirs.detach()) == pytest.approx(float(loss), rel=1e-5)
    for name, leaf in gradient["params"].items():
        np.testing.assert_allclose(leaf, peer.params[name].grad.numpy(), atol=1e-5, err_msg=name)

    recall = alkd.evaluation.evaluate(model, params, train, ks=(10,)).metrics["recall@10"]
    for how in ("top-k", "count"):
        assert peer.recall(train, 10, how=how, batch_size=33) == pytest.approx(recall, abs=1e-6), how


def test_the_torch_peer_learns():
    if peers_torch.ABSENT is not None:
        pytest.skip(peers_torch.ABSENT)
    train = synthetic_sessions.random_sessions(100, 60)
    model = alkd.models.create("fpmc", num_items=60, dim=4)
    peer = peers_torch.Peer("fpmc", alkd.models.init_params(jax.random.key(0), model), train, learning_rate=0.05)
    first = peer.train_steps(1, 50)
    assert peer.train_steps(40, 50) < 0.8 * first


@pytest.mark.skipif(peers_recbole.ABSENT is not None, reason=str(peers_recbole.ABSENT))
@pytest.mark.parametrize("backbone", peers_recbole.MODELS)
def test_recbole_learns_and_ranks_the_same_sessions(backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, test = synthetic_sessions.random_sessions(100, 60), synthetic_sessions.random_sessions(30, 60, seed=1)
    peer = peers_recbole.Peer(backbone, 60, 4, train, test, batch_size=40, test_batch=7)
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"
    assert not importlib.import_module("torch").is_anomaly_enabled(), "other peers are not slowed down"
    assert peer.num_items == 60
    batches = [next(peer.batches) for _ in range(3)]
    assert [len(batch) for batch in batches] == [40, 40, 20]
    # Numbered anew, but as often as with us.
    items = np.concatenate([batch["item_id_list"].numpy() for batch in batches])
    ours = np.bincount(train.items[train.mask], minlength=61)
    np.testing.assert_array_equal(np.sort(np.bincount(items[items > 0], minlength=61)), np.sort(ours))
    before = [leaf.detach().clone() for leaf in peer.model.parameters()]
    assert np.isfinite(peer.train_sessions(200))
    assert any((one != two.detach()).any() for one, two in zip(before, peer.model.parameters(), strict=True))
    own, total = peer.model.full_sort_predict, []

    def scored(batch):
        total.append(len(batch))
        return own(batch)

    peer.model.full_sort_predict = scored
    assert 0 < peer.recall() < 1
    assert total == [7, 7, 7, 7, 2]
