"""The released students: which array is which, and files that are no student."""

import numpy as np
import pytest

from alkd_jax import data, models
from alkd_jax.data.readers.released_student import reference_arrays
from alkd_jax.data.torch_archives import read_torch_archive
from tests.helpers.pickle_writer import state_dict


def fpmc_arrays(num_items=5, dim=3):
    tables = np.arange(2 * num_items * dim, dtype=np.float32).reshape(2, num_items, dim)
    return {"LI_emb.weight": tables[0], "item_emb.weight": tables[1]}


def stamp_arrays(num_items=5, dim=3):
    rng = np.random.default_rng(0)
    shapes = {"b_a": (dim,), "LI.weight": (num_items + 1, dim), "item_emb.weight": (num_items + 1, dim)}
    shapes |= {"w0.weight": (1, dim), **{f"w{n}.weight": (dim, dim) for n in (1, 2, 3)}}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_released_row_i_of_fpmc_becomes_item_i_plus_one(tmp_path):
    arrays = fpmc_arrays()
    (tmp_path / "student.pt").write_bytes(state_dict(arrays))
    model, params = data.load_released_student(tmp_path / "student.pt")
    assert (type(model), model.num_items, model.dim) == (models.FPMC, 5, 3)
    for name, source in (("input_embedding", "LI_emb.weight"), ("output_embedding", "item_emb.weight")):
        table = np.asarray(params["params"][name])
        np.testing.assert_array_equal(table[1:], arrays[source])
        assert not table[0].any()


@pytest.mark.parametrize("unused", [{}, {"mlp_a.weight": np.ones((3, 3), np.float32)}])
def test_stamp_keeps_its_padding_vector(unused):
    arrays = stamp_arrays()
    backbone, named = reference_arrays({**arrays, **unused})
    assert backbone == "stamp"
    np.testing.assert_array_equal(named["input_embedding"], arrays["LI.weight"][[0, 0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(named["output_embedding"][1:], arrays["item_emb.weight"])
    assert not named["output_embedding"][0].any()


def test_stamp_kernels_are_turned_to_in_by_out():
    arrays = stamp_arrays()
    _, named = reference_arrays(arrays)
    vector = np.random.default_rng(1).normal(size=3).astype(np.float32)
    for released, ours in (("w0", "out"), ("w1", "item"), ("w2", "last"), ("w3", "mean")):
        np.testing.assert_array_equal(
            vector @ named[f"attention_{ours}_kernel"], vector @ arrays[f"{released}.weight"].T
        )
    np.testing.assert_array_equal(named["attention_bias"], arrays["b_a"])


def test_stamps_arrays_have_the_reference_names(golden):
    with np.load(golden / "backbones.npz") as file:
        names = {name.removeprefix("stamp/d10/params/") for name in file if name.startswith("stamp/d10/params/")}
    assert reference_arrays(stamp_arrays())[1].keys() == names


def changed(arrays, **changes):
    return {**arrays, **{name.replace("_weight", ".weight"): array for name, array in changes.items()}}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "none; expected those of a released FPMC or STAMP"),
        ({"embedding": np.ones((2, 2), np.float32)}, "arrays embedding"),
        (changed(fpmc_arrays(), w0_weight=np.ones((1, 3), np.float32)), "w0.weight"),
        (changed(fpmc_arrays(), LI_emb_weight=np.ones((4, 3), np.float32)), r"\(4, 3\) and \(5, 3\)"),
        (changed(fpmc_arrays(), LI_emb_weight=np.full((5, 3), np.nan, np.float32)), "LI_emb.weight has numbers"),
        (changed(stamp_arrays(), w2_weight=np.ones((3, 4), np.float32)), r"w2.weight has shape \(3, 4\)"),
        (changed(stamp_arrays(), b_a=np.ones(4, np.float32)), r"b_a has shape \(4,\); expected \(3,\)"),
    ],
)
def test_a_file_of_other_arrays_is_refused_by_name(tmp_path, arrays, message):
    (tmp_path / "student.pt").write_bytes(state_dict(arrays))
    with pytest.raises(ValueError, match=rf"student\.pt: .*{message}") as error:
        data.load_released_student(tmp_path / "student.pt")
    assert "\n" not in str(error.value)


def test_a_missing_student_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        data.load_released_student(tmp_path / "absent.pt")


def released_ranks(sessions, vectors, table, num_items):
    """Ranks by the authors' rules: their item 0 (ours 1) is padding and fills the free slots of a window."""
    scores = vectors @ table.T
    real = sessions.mask & (sessions.items != 1)
    scores[np.arange(len(scores))[:, None], np.where(sessions.mask, sessions.items, 0)] = -np.inf
    scores[:, 0] = -np.inf
    scores[~real.all(1), 1] = -np.inf
    target = scores[np.arange(len(scores)), sessions.target][:, None]
    return np.where(np.isinf(target[:, 0]), num_items, 1 + (scores > target).sum(1))


def recalls(ranks):
    return [np.mean(ranks <= k) for k in (5, 10)]


@pytest.fixture(scope="module")
def hetrec_test(released_dataset):
    return released_dataset("ML").test


def test_the_released_fpmc_has_the_published_recalls_and_its_tables_are_not_exchanged(release, hetrec_test):
    sessions = hetrec_test
    _, params = data.load_released_student(release / "best_model" / "ML+FPMC_S.pt")
    source, target = (np.asarray(params["params"][f"{name}_embedding"]) for name in ("input", "output"))
    real = sessions.mask & (sessions.items != 1)

    def ranks(source, target):
        vectors = np.where(real[..., None], source[sessions.items], 0).sum(1) / np.maximum(real.sum(1), 1)[:, None]
        return released_ranks(sessions, vectors, target, len(source) - 1)

    np.testing.assert_allclose(recalls(ranks(source, target)), [0.00730, 0.01055], atol=5e-6)
    assert recalls(ranks(target, source))[1] > 0.013


def test_the_released_stamp_has_the_published_recalls(release, hetrec_test):
    sessions = hetrec_test
    _, arrays = reference_arrays(read_torch_archive(release / "best_model" / "ML+STAMP_S.pt"))
    real = sessions.mask & (sessions.items != 1)
    # row 0 holds the vector that the release adds for every padded position
    vectors = arrays["input_embedding"][np.where(real, sessions.items, 0)]
    length = real.sum(1)
    mean = vectors.sum(1) / np.maximum(length, 1)[:, None]
    last = vectors[np.arange(len(vectors)), np.maximum(length - 1, 0)]
    item, last_kernel, mean_kernel = (arrays[f"attention_{name}_kernel"] for name in ("item", "last", "mean"))
    hidden = vectors @ item + (last @ last_kernel)[:, None] + (mean @ mean_kernel)[:, None] + arrays["attention_bias"]
    attention = (1 / (1 + np.exp(-hidden))) @ arrays["attention_out_kernel"] * real[..., None]
    encoded = (attention * vectors).sum(1) + mean
    table = arrays["output_embedding"][:-1]
    ranks = released_ranks(sessions, encoded, table, len(table) - 1)
    np.testing.assert_allclose(recalls(ranks), [0.00609, 0.01176], atol=1e-5)
