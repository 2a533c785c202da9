"""Folders from a stranger: links, pipes, sizes, texts and numbers that a shipped student does not have."""

import json
import os
import threading
import time
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

pytest.importorskip("safetensors")

import safetensors.numpy

from alkd_jax.serving import manifest
from alkd_jax.serving.recommender import Recommender
from tests.helpers import shipped_students

FILES = (manifest.CONFIG, manifest.WEIGHTS, manifest.ITEMS)


@pytest.fixture
def folder(tmp_path):
    return shipped_students.write(tmp_path / "student")


@pytest.mark.parametrize("backbone", shipped_students.OPTIONS)
def test_a_folder_gives_the_student_that_was_written(backbone, tmp_path):
    arrays = shipped_students.arrays_of(backbone, seed=3)
    found = Recommender.load(shipped_students.write(tmp_path / "student", backbone, arrays=arrays))
    assert found.arrays.keys() == arrays.keys()
    assert all((found.arrays[name] == array).all() for name, array in arrays.items())
    assert (found.length, found.num_items, found.item_ids[1]) == (5, 20, "id-1")


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_the_folder_is_refused_and_a_link_to_the_folder_is_read(name, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert Recommender.load(tmp_path / "link").num_items == 20
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match=f"{name}: is a symbolic link; expected a regular file"):
        Recommender.load(folder)
    (tmp_path / "outside").unlink()
    with pytest.raises(ValueError, match=f"{name}: is a symbolic link"):
        Recommender.load(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(name, kind, folder):
    (folder / name).unlink()
    os.mkfifo(folder / name) if kind == "pipe" else (folder / name).mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        Recommender.load(folder)


def test_a_catalogue_larger_than_its_items_need_is_not_parsed(folder):
    data = b'{"titles": [' + b"[]," * 2**20 + b"[]]}"
    shipped_students.rewrite(folder, manifest.ITEMS, data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"items\.json: size is 3,145,744 bytes; expected at most 1,130,496"):
            Recommender.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_long_titles_of_few_items_are_read(folder):
    titles = [f"{item} " + "é" * 10_000 for item in range(20)]
    content = {"item_ids": [f"{item}" for item in range(20)], "titles": titles}
    shipped_students.rewrite(folder, manifest.ITEMS, json.dumps(content, ensure_ascii=False).encode())
    assert Recommender.load(folder).titles[1:] == tuple(titles)


def test_weights_larger_than_the_student_are_not_read(folder):
    data = (folder / manifest.WEIGHTS).read_bytes()
    shipped_students.rewrite(folder, manifest.WEIGHTS, data + b"\0" * 2**20)
    with pytest.raises(ValueError, match=r"model\.safetensors: size is .* bytes; expected at most"):
        Recommender.load(folder)


@pytest.mark.parametrize("backbone", shipped_students.OPTIONS)
def test_the_work_of_an_answer_follows_the_session_and_not_the_length(backbone, tmp_path):
    """With a length of 65,536 an answer took 3 GB; those whose work or positions grow with L have their own bound."""
    options = shipped_students.OPTIONS[backbone]
    length = options.get("max_length", {"attmix": 4096, "srgnn": 1024}.get(backbone, 2**16))
    sizes = {"num_items": 2000, "dim": 4}
    arrays = shipped_students.arrays_of(backbone, **sizes)
    student = Recommender.load(
        shipped_students.write(tmp_path / "student", backbone, length=length, arrays=arrays, **sizes)
    )
    tracemalloc.start()
    try:
        assert len(student.recommend(["id-1", "id-2", "id-1999"], 3)) == 3
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_length_that_one_answer_could_not_afford_is_refused(tmp_path):
    folder = shipped_students.write(tmp_path / "attmix", "attmix", length=2**16, options={"levels": 20, "heads": 2})
    with pytest.raises(ValueError, match=r"config\.json: length is 65536; expected 1\.\.26214 for attmix"):
        Recommender.load(folder)
    folder = shipped_students.write(tmp_path / "fpmc", length=2**16 + 1)
    with pytest.raises(ValueError, match=r"length is 65537; expected 1\.\.65536"):
        Recommender.load(folder)


def test_many_vectors_meet_a_large_catalogue_in_parts(tmp_path, monkeypatch):
    from alkd_jax.serving import numpy_encoders

    student = shipped_students.student("late", length=12, num_items=50)
    session = [f"id-{item}" for item in range(1, 13)]
    whole = student.recommend(session)
    monkeypatch.setattr(numpy_encoders, "_MAX_PRODUCTS", 12 * 7)
    parts = student.recommend(session)
    assert [each.item_id for each in parts] == [each.item_id for each in whole]
    np.testing.assert_allclose([each.score for each in parts], [each.score for each in whole], rtol=1e-6)


@pytest.mark.parametrize("backbone", ["fpmc", "late"])
def test_scores_that_overflow_are_found_when_a_student_is_loaded(backbone, tmp_path):
    arrays = shipped_students.arrays_of(backbone)
    for table in ("input_embedding", "output_embedding"):
        arrays[table][7] = 3e38
    folder = shipped_students.write(tmp_path / "student", backbone, arrays=arrays)
    with pytest.raises(ValueError, match=r"model\.safetensors: scores of a session of item [17] are not finite"):
        Recommender.load(folder)
    for array in arrays.values():
        array[np.abs(array) > 100] = 100
    assert Recommender.load(shipped_students.write(tmp_path / "sound", backbone, arrays=arrays)).recommend(["id-7"])


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "x" * 700_000},
        {"dtype": "y" * 700_000},
        {"options": {"z" * 700_000: 1}},
        {"length": "1" * 700_000},
        {"num_items": 10**4000},
        {"k" * 700_000: 1},
        {"files": {}, "left_out": {manifest.WEIGHTS: "w\n\x1b[31m" * 100_000}},
    ],
)
def test_an_error_about_a_long_value_is_one_short_line(folder, change):
    config = json.loads((folder / manifest.CONFIG).read_text())
    (folder / manifest.CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=r"config\.json|not in this folder") as caught:
        Recommender.load(folder)
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).isprintable()


def test_a_key_that_is_there_twice_is_refused(folder):
    text = (folder / manifest.CONFIG).read_text()
    (folder / manifest.CONFIG).write_text(text.replace('"dim": 4', '"dim": 4, "dim": 4'))
    with pytest.raises(ValueError, match="the key 'dim' is there twice"):
        Recommender.load(folder)


def test_an_unknown_type_of_weights_is_named(folder):
    data = (folder / manifest.WEIGHTS).read_bytes()
    shipped_students.rewrite(folder, manifest.WEIGHTS, data.replace(b'"F32"', b'"I32"'))
    with pytest.raises(ValueError, match=r"model\.safetensors: .*int32 .*expected float32"):
        Recommender.load(folder)
    header = json.dumps({"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    shipped_students.rewrite(folder, manifest.WEIGHTS, len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match=r"model\.safetensors: .*BF16.*expected arrays of float32"):
        Recommender.load(folder)


def test_a_folder_that_is_replaced_while_it_is_read_gives_one_of_the_students(tmp_path):
    """The usual way to bring a new student into service: a link is moved to another folder."""
    students = [shipped_students.write(tmp_path / f"student-{seed}", seed=seed) for seed in range(2)]
    versions = {Recommender.load(each).version: Recommender.load(each) for each in students}
    link, end = tmp_path / "current", threading.Event()
    link.symlink_to(students[0])

    def move():
        while not end.is_set():
            for number, each in enumerate(students):
                (tmp_path / f"next-{number}").symlink_to(each)
                (tmp_path / f"next-{number}").replace(link)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        seen, stop = set(), time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < stop:
            found = Recommender.load(link)
            assert found.recommend(["id-1"]) == versions[found.version].recommend(["id-1"])
            seen.add(found.version)
    finally:
        end.set()
        thread.join()
    assert seen == versions.keys()


DAMAGE = given(
    name=st.sampled_from(FILES),
    place=st.integers(0, 10_000),
    num_removed=st.integers(0, 30),
    added=st.binary(max_size=8) | st.sampled_from([b"1e999", b"null", b"[]", b"-1", b'"', b"\\ud800", b"\xff"]),
)


def check_damage(folders, name, place, num_removed, added):
    """Loads a folder with a changed file, for which the config vouches: a student, or one line that names a file."""
    folder = shipped_students.write(folders.mktemp("students") / "student")
    data = (folder / name).read_bytes()
    place %= len(data) + 1
    data = data[:place] + added + data[place + num_removed :]
    if name == manifest.CONFIG:
        (folder / name).write_bytes(data)
    else:
        shipped_students.rewrite(folder, name, data)
    student, line = None, ""
    try:
        student = Recommender.load(folder)
    except ValueError as error:
        line = str(error)
    if student is None:
        assert len(line) < 2_000
        assert line.isprintable()
        assert any(file in line for file in FILES)
    else:
        assert len(student.recommend([student.item_ids[1]], 5)) == 5


@settings(max_examples=60)
@DAMAGE
def test_a_damaged_folder_is_read_or_named(tmp_path_factory, name, place, num_removed, added):
    check_damage(tmp_path_factory, name, place, num_removed, added)


@pytest.mark.slow
@settings(max_examples=10_000)
@DAMAGE
def test_many_damaged_folders_are_read_or_named(tmp_path_factory, name, place, num_removed, added):
    check_damage(tmp_path_factory, name, place, num_removed, added)


def test_numbers_of_another_type_in_memory_are_refused():
    arrays = shipped_students.arrays_of()
    arrays["input_embedding"] = safetensors.numpy.load(safetensors.numpy.save(arrays))["input_embedding"][:-1]
    with pytest.raises(ValueError, match=r"input_embedding is float32 \(20, 4\); expected float32 \(21, 4\)"):
        Recommender("fpmc", {}, arrays, *2 * [("", *map(str, range(1, 21)))], 5)


@pytest.mark.parametrize(("ids", "titles"), [(("", "\ud83d"), ("", "t")), (("", "i"), ("", "t\udc00"))])
def test_half_a_character_is_not_shipped(ids, titles):
    with pytest.raises(ValueError, match=r"half a character, as in .*; expected Unicode text"):
        manifest.items_json(ids, titles)


def test_a_catalogue_that_no_reader_would_take_is_not_shipped():
    longest = manifest.max_items_bytes(1)
    with pytest.raises(ValueError, match=f"expected at most {longest:,}"):
        manifest.items_json(("", "i"), ("", "x" * longest))
    assert len(manifest.items_json(("", "i"), ("", "x" * (longest - 100)))) <= longest
