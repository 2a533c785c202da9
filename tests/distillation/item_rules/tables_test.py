"""Sparse-table students: what their rules are made of, how they fit into bytes, and whose titles are similar."""

import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_array

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.data.sessions import pack
from alkd_jax.distillation import item_rules
from alkd_jax.distillation.item_rules import TableRecipe
from alkd_jax.serving import packed

pytest.importorskip("sklearn")

DATASET = alkd.data.synthetic(num_items=120, num_sessions=500, seed=0)
TITLES = ("", "red car", "red car two", "blue boat", "blue boat red", "tree")


def neighbors_of_titles(**options):
    return item_rules.title_neighbors(item_rules.word_vectors(TITLES), **options)


def test_neighbors_are_the_items_of_the_largest_cosines():
    vectors = item_rules.word_vectors(TITLES).toarray()
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, 0)
    found = neighbors_of_titles(places=5, min_cosine=0.01).toarray()
    np.testing.assert_allclose(found, np.where(cosines >= 0.01, cosines, 0), atol=1e-6)
    dense = item_rules.title_neighbors(vectors.astype(np.float32), places=5, min_cosine=0.01).toarray()
    np.testing.assert_allclose(dense, found, atol=1e-6)
    nearest = neighbors_of_titles(places=1, min_cosine=0.01)
    for row in range(1, 5):
        np.testing.assert_array_equal(nearest[[row]].toarray()[0].nonzero()[0], [np.argmax(cosines[row])])
    assert neighbors_of_titles(min_cosine=0.5).nnz < neighbors_of_titles(min_cosine=0.01).nnz


@pytest.mark.parametrize("places", [1, 3, 40])
def test_rules_are_counts_both_ways_damped_and_titles_added_absolutely(places):
    rng = np.random.default_rng(0)
    cosines = rng.random((121, 121)) * (rng.random((121, 121)) < 0.1)
    cosines[0] = cosines[:, 0] = 0
    np.fill_diagonal(cosines, 0)
    recipe = TableRecipe(decay=0.7, backward=0.3, damping=0.4, titles=1.5, min_cosine=0.5, title_places=places)
    counts = baselines.count(DATASET.train_sequences, 120, decay=0.7)
    counted = counts.followers.toarray() + 0.3 * counts.followers.toarray().T
    np.fill_diagonal(counted, 0)
    near = np.zeros_like(cosines)
    for item, own in enumerate(cosines):
        for neighbor in np.argsort(-own, kind="stable")[:places]:
            if own[neighbor] >= 0.5:
                near[item, neighbor] = max(near[item, neighbor], own[neighbor])
                near[neighbor, item] = max(near[neighbor, item], own[neighbor])
    expected = counted / np.maximum(counts.popularity, 1)[:, None] ** 0.4 + 1.5 * near**2
    np.testing.assert_allclose(item_rules.table_rules(DATASET, recipe, csr_array(cosines)).toarray(), expected)
    with pytest.raises(ValueError, match="neighbors is None"):
        item_rules.table_rules(DATASET, recipe)


def test_labels_are_added_to_the_rules_of_counts():
    labels = np.random.default_rng(0).random((121, 121))
    labels[0] = labels[:, 0] = 0
    recipe = TableRecipe(labels=2.0, temperature=1.5, label_places=4)
    kept = item_rules.sharpened(csr_array(labels), temperature=1.5, places=4)
    counted = item_rules.table_rules(DATASET, TableRecipe())
    found = item_rules.table_rules(DATASET, recipe, labels=csr_array(labels))
    np.testing.assert_allclose(found.toarray(), item_rules.add_labels(counted, kept, 2.0).toarray())
    with pytest.raises(ValueError, match="labels is None"):
        item_rules.table_rules(DATASET, recipe)


def test_an_item_follows_itself_only_where_repeats_are_asked_for():
    sequences = pack([[1, 1, 2], [2, 3, 2]])
    counts = baselines.count(sequences, 3, decay=0.5)
    assert not item_rules.cooccurrence_rules(counts).diagonal().any()
    np.testing.assert_allclose(item_rules.cooccurrence_rules(counts, repeats=True).diagonal(), [0, 1, 0.5, 0])


@pytest.mark.parametrize("make", [item_rules.table_student, item_rules.counted_student])
@pytest.mark.parametrize("num_bytes", [2500, 4000, 9000])
def test_students_fit_into_their_bytes_and_twice_of_them_in_memory(make, num_bytes):
    neighbors = item_rules.title_neighbors(item_rules.word_vectors(DATASET.titles))
    recipe = TableRecipe(titles=1.0, backward=0.5)
    student = make(DATASET, recipe, max_bytes=num_bytes, neighbors=neighbors)
    if student is None:
        assert num_bytes < 4000
        return
    assert 0.6 * min(num_bytes, 5000) < student.nbytes <= num_bytes
    form = packed.resident_form(student.kind, student.options, student.arrays, num_items=120)
    held = alkd.Recommender(*form, DATASET.item_ids, DATASET.titles, 10).resident_bytes
    assert held <= 2 * (student.nbytes + 700)


def test_the_rules_with_the_largest_weights_or_of_the_most_use_are_kept():
    rules = item_rules.table_rules(DATASET, TableRecipe())
    largest = item_rules.table_student(DATASET, TableRecipe(use=0.0), max_bytes=1500, rules=rules)
    useful = item_rules.table_student(DATASET, TableRecipe(use=1.0), max_bytes=1500, rules=rules)
    assert largest.options["num_entries"] == useful.options["num_entries"]
    assert largest.options["smallest"] > useful.options["smallest"]


def test_a_table_without_room_is_refused():
    with pytest.raises(ValueError, match="max_bytes is 100"):
        item_rules.table_student(DATASET, TableRecipe(), max_bytes=100)
    assert item_rules.counted_student(DATASET, TableRecipe(), max_bytes=100) is None
    with pytest.raises(ValueError, match="backward is"):
        item_rules.table_rules(DATASET, dataclasses.replace(TableRecipe(), backward=-1.0))
