"""Vectors of items and of sessions in the commands: what they write, continue and refuse."""

import dataclasses

import numpy as np
import pytest

from alkd_jax.data.readers import registry
from alkd_jax.serving.recommender import Recommender
from experiments import reproduce, train
from experiments.pipeline import item_channels, methods
from experiments.pipeline.settings import Settings
from experiments.pipeline.shipped import STUDENT
from experiments.pipeline.train_options import Train


@pytest.fixture(scope="module")
def dataset():
    return registry.read("synthetic")


@pytest.fixture
def vectors(dataset, tmp_path):
    file = tmp_path / "vectors.npy"
    np.save(file, np.random.default_rng(0).normal(size=(dataset.num_items + 1, 6)).astype(np.float32))
    return str(file)


def test_options_of_vectors_are_checked_in_one_line(vectors, tmp_path, dataset):
    good = Train("synthetic", "fpmc", tmp_path / "run", item_vectors=vectors)
    good.check()
    for changed, message in (
        ({"item_vectors": "none.npz"}, "--item-vectors is none.npz; expected a file, or titles"),
        ({"item_vectors": "none.pkl"}, "the ending of --item-vectors is '.pkl'"),
        ({"vector_channel": "other"}, "--vector-channel is 'other'"),
        ({"vector_scale": 0.0}, "--vector-scale is 0"),
        ({"item_vectors": None, "shuffled_vectors": True}, "--shuffled-vectors without --item-vectors"),
        ({"backbone": "gru4rec"}, "--item-vectors is .* with --targets parallel"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(good, **changed).check()
    run = Settings("synthetic", "fpmc", tmp_path / "run", item_vectors=vectors, selection="own", mode="released")
    with pytest.raises(ValueError, match=r"--item-vectors is .* with --mode released"):
        run.check()
    with pytest.raises(ValueError, match="--methods names Profiles without --profile-vectors"):
        Settings("synthetic", "fpmc", tmp_path / "run", methods="Profiles").check()
    with pytest.raises(ValueError, match=r"--profile-vectors: .*no such file"):
        reproduce.run_pipeline(
            Settings("synthetic", "fpmc", tmp_path / "run", profile_vectors=tmp_path / "none.npz", methods="Profiles")
        )
    assert methods.PROFILES not in methods.SETS["all"], "it needs a file"


def test_vectors_are_read_for_a_channel_and_shuffled_for_the_control(vectors, tmp_path, dataset):
    args = Train("synthetic", "fpmc", tmp_path / "run", item_vectors=vectors, vector_channel="graph_pca")
    found = item_channels.read(args, dataset)
    assert found.co_occurrence.shape == (dataset.num_items + 1,) * 2
    shuffled = item_channels.read(dataclasses.replace(args, shuffled_vectors=True), dataset)
    assert not np.array_equal(found.vectors, shuffled.vectors)
    titles = item_channels.read(dataclasses.replace(args, item_vectors="titles"), dataset)
    assert len(titles.vectors) == dataset.num_items + 1
    assert item_channels.inputs(dataclasses.replace(args, item_vectors=None)) == {}


@pytest.mark.slow
def test_a_model_trained_with_vectors_is_shipped_as_plain_tables(vectors, tmp_path):
    args = Train("synthetic", "fpmc", tmp_path / "run", item_vectors=vectors, vector_channel="whitened", max_epochs=2)
    results = train.train(args)
    assert train.train(args) == results, "the same command trains nothing again"
    student = Recommender.load(args.out / STUDENT)
    assert len(student.rank([1, 2], 5)) == 5
    with pytest.raises(ValueError, match="channel"):
        train.train(dataclasses.replace(args, vector_channel="pca"))


@pytest.mark.slow
def test_a_run_with_vectors_and_profiles_is_whole(vectors, dataset, tmp_path):
    rng, file = np.random.default_rng(0), tmp_path / "profiles.npz"
    session_id = rng.permutation(np.asarray(dataset.train.session_id))[:50]
    np.savez(file, session_id=session_id, vectors=rng.normal(size=(50, 8)).astype(np.float32))
    small = {"seeds": 1, "max_steps": 20, "teacher_dim": 12, "budget": 40, "selection": "own"}
    run = Settings("synthetic", "fpmc", tmp_path / "run", item_vectors=vectors, profile_vectors=file, **small)
    numbers = reproduce.run_pipeline(dataclasses.replace(run, methods="Profiles,ALKDRec"))
    assert {"Student", "Profiles", "ALKDRec"} <= numbers["methods"].keys()
    assert np.isfinite(numbers["methods"]["Profiles"]["recall@10"]["mean"])
