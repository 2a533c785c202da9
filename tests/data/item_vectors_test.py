"""Vectors of the items: the forms of files, what is refused, and those made of titles."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from alkd_jax.data import item_vectors

IDS = ("", "a", "b", "c", "d", "e")


def vectors(dtype=np.float32):
    return np.random.default_rng(0).integers(1, 100, (6, 4)).astype(dtype)


def expected(rows):
    rows = rows.astype(np.float32)
    rows[0] = 0
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def test_all_forms_give_the_same_vectors_of_length_1(tmp_path):
    stored = vectors()
    np.save(tmp_path / "v.npy", stored)
    np.savez(tmp_path / "v.npz", vectors=stored)
    np.savez(tmp_path / "scaled.npz", vectors=vectors(np.int8), scale=np.full(6, 0.01, np.float32))
    save_file({"vectors": stored}, tmp_path / "v.safetensors")
    for name in ("v.npy", "v.npz", "scaled.npz", "v.safetensors"):
        found = item_vectors.read_vectors(tmp_path / name, 5)
        np.testing.assert_allclose(found, expected(stored.copy()), rtol=1e-5)


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_rows_with_ids_are_put_in_the_order_of_the_items(tmp_path, form):
    stored, ids = vectors()[1:4], ["d", "unknown", "a"]
    if form == "npz":
        np.savez(tmp_path / "v.npz", vectors=stored, ids=np.array(ids))
    else:
        np.save(tmp_path / "v.npy", stored)
        (tmp_path / "v.npy.ids").write_text("\n".join(ids) + "\n")
    found = item_vectors.read_vectors(tmp_path / f"v.{form}", 5, item_ids=IDS)
    rows = np.zeros((6, 4), np.float32)
    rows[4], rows[1] = stored[0], stored[2]
    np.testing.assert_allclose(found, expected(rows), rtol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": vectors()}, "expected vectors"),
        ({"vectors": vectors()[:4]}, r"shape of vectors is \(4, 4\); expected \(6, D\)"),
        ({"vectors": np.full((6, 4), np.nan, np.float32)}, "vectors"),
        ({"vectors": vectors().astype(str)}, "type of vectors"),
        ({"vectors": vectors()[:2], "ids": np.array(["a", "a"])}, "'a' is there more than once"),
        ({"vectors": vectors()[:2], "ids": np.array(["x", "y"])}, "none of the 2 ids is that of an item"),
        ({"vectors": vectors()[:2], "ids": np.array([0.5, 1.5])}, "ids have shape"),
        ({"vectors": np.array([[object()] * 4] * 6)}, "pickle|undamaged"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        item_vectors.read_vectors(tmp_path / "v.npz", 5, item_ids=IDS)
    assert "\n" not in str(error.value)


def test_files_of_other_kinds_or_damaged_ones_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected vectors"):
        item_vectors.read_vectors(tmp_path / "none.npz", 5)
    for name in ("v.pkl", "v.npz", "v.npy", "v.safetensors"):
        (tmp_path / name).write_bytes(b"\x80\x04N.")
        with pytest.raises(ValueError, match=r"expected"):
            item_vectors.read_vectors(tmp_path / name, 5)
    np.savez(tmp_path / "ids.npz", vectors=vectors()[:2], ids=np.array(["a", "b"]))
    with pytest.raises(ValueError, match="has ids; expected vectors of all items"):
        item_vectors.read_vectors(tmp_path / "ids.npz", 5)


def test_vectors_of_titles_are_near_where_words_are_shared():
    titles = ["", "blue ocean one", "blue ocean two", "red desert one", "red desert two"]
    found = item_vectors.title_vectors(titles, 2)
    assert found.shape == (5, 2)
    assert not found[0].any()
    cosines = found[1:] @ found[1:].T
    assert cosines[0, 1] > 0.9 > cosines[0, 2]


def test_shuffled_vectors_are_the_same_ones():
    stored = expected(vectors())
    found = item_vectors.shuffled_vectors(stored)
    assert not np.array_equal(found, stored)
    assert not found[0].any()
    np.testing.assert_array_equal(np.sort(found[1:], axis=0), np.sort(stored[1:], axis=0))
