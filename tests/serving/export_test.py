"""A shipped student gives the same lists by every road, and its folder is whole, checked, and refused when damaged."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import models
from alkd_jax.serving import export, manifest, numpy_encoders
from tests.helpers import paths, shipped_students
from tests.helpers.random_models import random_model

pytest.importorskip("safetensors")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("flatbuffers")

DATASET = alkd.data.synthetic(num_items=80, num_sessions=300, seed=0)
KINDS = {
    "fpmc": ("fpmc", {}),
    "stamp": ("stamp", {}),
    "stamp summing padding": ("stamp", {"sum_padding": True}),
    "stamp as published": ("stamp", {"variant": "original"}),
    "attmix": ("attmix", {"levels": 3, "heads": 2}),
    "late": ("late", {}),
    "late, shared": ("late", {"shared": True, "recency": 0.6}),
    "narm": ("narm", {}),
    "narm, reset after": ("narm", {"reset": "after", "state_factor": 1}),
    "srgnn": ("srgnn", {}),
    "srgnn, binary": ("srgnn", {"edges": "binary", "reset": "after", "steps": 2}),
    "core": ("core", {"inner_dim": 12}),
    "core, ave": ("core", {"variant": "ave"}),
    "gru4rec": ("gru4rec", {}),
    "gru4rec, separate": ("gru4rec", {"embedding": "separate", "layers": 2}),
    "gru4rec, no embedding": ("gru4rec", {"embedding": "none"}),
    "sasrec": ("sasrec", {"heads": 2}),
    "sasrec, pre-norm": ("sasrec", {"variant": "pre_norm", "multiplier": 2}),
    "gsasrec": ("gsasrec", {"separate": True}),
    "esasrec": ("esasrec", {"blocks": 2}),
    "hstu": ("hstu", {"heads": 2}),
    "hstu, true length": ("hstu", {"divisor": "length"}),
}


def made(kind, *, num_items=80, dim=6):
    return random_model(*KINDS[kind], num_items=num_items, dim=dim)


class Own(models.FPMC):
    """A backbone of the user's own."""


@pytest.fixture(scope="module", params=[*KINDS, "fpmc in float16"])
def student(request, tmp_path_factory):
    kind, _, dtype = request.param.partition(" in ")
    model, params = made(kind)
    out = tmp_path_factory.mktemp("students") / "student"
    export.save(out, model, params, DATASET, dtype=dtype or "float32", list_length=20)
    return out, model, jax.tree.map(lambda leaf: jnp.float32(leaf.astype(dtype or "float32")), params)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "student"
    export.save(out, *made("fpmc"), DATASET)
    return out


def copied(folder, to):
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def roads(folder, model, params, items, exclude, k):
    """Scores and ids by NumPy, JAX, the program and ONNX Runtime."""

    @jax.jit
    def in_jax(params, items, exclude):
        table = model.apply(params, method="item_embeddings")
        return alkd.scoring.top_k(model.apply(params, items, items > 0), table, k, exclude=exclude)

    found = {
        "numpy": export.Recommender.load(folder).top_k(items, k, exclude=exclude),
        "jax": in_jax(params, items, exclude),
        "program": export.load_program(folder)(items, exclude),
        "onnx": export.load_onnx(folder)(items, exclude),
    }
    return {road: tuple(np.asarray(array)[:, :k] for array in pair) for road, pair in found.items()}


def assert_same(found, *, atol=2e-6):
    """The same lists; where two items swapped places their scores must be equal up to rounding."""
    scores, ids = found.pop("numpy")
    finite = np.isfinite(scores)
    scale = np.abs(scores[finite]).max()
    for road, (theirs, their_ids) in found.items():
        assert (np.isfinite(theirs) == finite).all(), road
        np.testing.assert_allclose(theirs[finite], scores[finite], rtol=0, atol=atol * scale, err_msg=road)
        assert ((their_ids < 0) == (ids < 0)).all(), road
        assert (their_ids != ids).any(1).mean() <= 0.01, f"{road}: more than rounding"


def test_all_roads_give_the_same_lists(student):
    folder, model, params = student
    items = np.zeros((9, 10), np.int32)
    items[:6] = DATASET.test.items[:6]
    # Repeats, and a session without items.
    items[6, :3] = [4, 4, 9]
    exclude = np.zeros((9, 90), np.int32)
    exclude[:, :10] = items
    # All but the item 80; all but the ten from 71.
    exclude[7, :79], exclude[8, :70] = np.arange(1, 80), np.arange(1, 71)
    found = roads(folder, model, params, items, exclude, 20)
    assert [len(set(row) - {-1}) for row in found["numpy"][1].tolist()] == [20] * 7 + [1, 10]
    assert_same(found)


def test_the_compiled_forms_take_any_number_of_sessions(plain):
    model, params = made("fpmc")
    for batch, excluded in ((1, 1), (3, 12)):
        items = np.asarray(DATASET.test.items[:batch], np.int32)
        exclude = np.resize(items, (batch, excluded))
        assert_same(roads(plain, model, params, items, exclude, 20))


@pytest.mark.parametrize("name", ["FPMC", "STAMP"])
def test_all_roads_agree_on_a_thousand_released_sessions(release, released_dataset, name, tmp_path):
    ds = released_dataset("ML")
    model, params = alkd.data.load_released_student(release / "best_model" / f"ML+{name}_S.pt")
    export.save(tmp_path / "whole", model, params, ds)
    items = np.asarray(ds.test.items[:1000], np.int32)
    found = roads(tmp_path / "whole", model, params, items, items, 10)
    wanted = found["numpy"][1]
    assert_same(found)

    student = export.Recommender.load(tmp_path / "whole")
    half = {name: array.astype(np.float16) for name, array in student.arrays.items()}
    assert sum(array.nbytes for array in half.values()) < 399_000
    rounded = dataclasses.replace(student, arrays={name: array.astype(np.float32) for name, array in half.items()})
    lists = rounded.top_k(items, 10, exclude=items)[1].tolist()
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(wanted.tolist(), lists, strict=True)])
    assert kept > 0.995


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_knows_every_parameter(kind):
    model, params = made(kind)
    backbone, options = export.backbone_options(model)
    shapes = numpy_encoders.parameter_shapes(backbone, options, num_items=80, dim=6)
    assert shapes == {name: leaf.shape for name, leaf in params["params"].items()}


def test_every_backbone_can_be_shipped():
    assert numpy_encoders.OPTIONS.keys() == models.BACKBONES.keys()


def test_titles_and_ids_come_back(plain):
    student = alkd.Recommender.load(plain)
    assert (student.item_ids, student.titles, student.length) == (DATASET.item_ids, DATASET.titles, 10)
    session = [DATASET.item_ids[item] for item in DATASET.test.items[0] if item]
    first = student.recommend(session, 3)[0]
    assert DATASET.titles[DATASET.item_ids.index(first.item_id)] == first.title


def test_a_shipped_student_answers_without_jax(plain):
    code = (
        "import sys; from alkd_jax.serving.recommender import Recommender; "
        f"print(len(Recommender.load({str(plain)!r}).recommend(['item-1'], 5)), 'jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=paths.ROOT)
    assert out.stdout.split() == ["5", "False"]


def test_an_existing_folder_is_refused(plain):
    with pytest.raises(ValueError, match="exists; expected a new folder"):
        export.save(plain, *made("fpmc"), DATASET)


def test_nothing_is_left_where_writing_fails(tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("scores differently")

    monkeypatch.setattr(export, "check_written_folder", fails)
    with pytest.raises(ValueError, match="scores differently"):
        export.save(tmp_path / "student", *made("fpmc"), DATASET)
    assert list(tmp_path.iterdir()) == []


def test_a_student_written_wrong_is_noticed(tmp_path, monkeypatch):
    def otherwise(options, arrays, items, mask, length):
        return arrays["input_embedding"][items].sum(1)

    wrong = dataclasses.replace(numpy_encoders.SHIPPED_BACKBONES["fpmc"], encode=otherwise)
    monkeypatch.setattr(numpy_encoders, "SHIPPED_BACKBONES", {"fpmc": wrong})
    with pytest.raises(ValueError, match="scores of the written"):
        export.save(tmp_path / "student", *made("fpmc"), DATASET)


def test_what_is_not_the_model_is_refused(tmp_path):
    model, params = made("fpmc")
    seeds = jax.tree.map(lambda leaf: leaf[None], params)
    broken = jax.tree.map(lambda leaf: leaf.at[3].set(jnp.nan), params)
    large = jax.tree.map(lambda leaf: leaf.at[3].set(1e6), params)
    twice = dataclasses.replace(DATASET, item_ids=(*DATASET.item_ids[:-1], DATASET.item_ids[1]))
    other = alkd.data.synthetic(num_items=81, num_sessions=300, seed=0)
    overflowing = jax.tree.map(lambda leaf: leaf.at[3].set(3e38), params)
    untitled, halved = (dataclasses.replace(DATASET) for _ in range(2))
    object.__setattr__(untitled, "titles", None)
    object.__setattr__(halved, "titles", (*DATASET.titles[:-1], "\ud800"))
    wordy = dataclasses.replace(DATASET, titles=("", "a" * 2**21, *DATASET.titles[2:]))
    for message, arguments, options in (
        ("input_embedding \\(1, 81, 6\\) \\(expected \\(81, 6\\)\\)", (model, seeds, DATASET), {}),
        ("not finite in float32", (model, broken, DATASET), {}),
        ("not finite in float16", (model, large, DATASET), {"dtype": "float16"}),
        ("number of items in ds is 81; expected 80", (model, params, other), {}),
        ("an item id is empty or a duplicate", (model, params, twice), {}),
        ("dtype is 'int4'", (model, params, DATASET), {"dtype": "int4"}),
        ("list_length is 0", (model, params, DATASET), {"list_length": 0}),
        ("titles of ds is None; expected a tuple", (model, params, untitled), {}),
        ("half a character", (model, params, halved), {}),
        ("scores of a session of item 3 are not finite", (model, overflowing, DATASET), {}),
        ("item ids and titles have", (model, params, wordy), {}),
        ("type of model is Own; expected one of fpmc", (Own(num_items=80, dim=6), params, DATASET), {}),
    ):
        with pytest.raises(ValueError, match=message):
            export.save(tmp_path / "student", *arguments, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("package", "file"), [("onnx", manifest.ONNX), ("flatbuffers", manifest.PROGRAM)])
def test_what_cannot_be_written_is_said_and_left_out(package, file, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.warns(UserWarning, match=f"{file} is left out: the package {package} is not installed"):
        export.save(tmp_path / "student", *made("fpmc"), DATASET)
    monkeypatch.undo()
    assert not (tmp_path / "student" / file).exists()
    assert export.Recommender.load(tmp_path / "student").recommend(["item-1"], 1)
    if package == "flatbuffers":
        with pytest.raises(ValueError, match="flatbuffers is not installed"):
            export.load_program(tmp_path / "student")


@pytest.mark.parametrize("name", [manifest.WEIGHTS, manifest.ITEMS, manifest.PROGRAM])
def test_a_damaged_or_missing_file_is_named(plain, name, tmp_path):
    folder = copied(plain, tmp_path / "copy")
    read = export.load_program if name == manifest.PROGRAM else alkd.Recommender.load
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: SHA-256 is another"):
        read(folder)
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(ValueError, match=f"{name}: size is"):
        read(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format is 2; expected 1"),
        ({"backbone": "gru"}, "backbone is 'gru'"),
        ({"backbone": "stamp"}, "options of stamp are"),
        ({"options": {"levels": 3}}, "options of fpmc are"),
        ({"options": []}, "options is"),
        ({"num_items": 79}, "items.json: length of item_ids is 80; expected 79|input_embedding is float32"),
        ({"num_items": 0}, "num_items is 0; expected 1.."),
        ({"num_items": True}, "num_items is True; expected int"),
        ({"dim": 2**40}, "dim is 1099511627776; expected 1.."),
        ({"dim": 5}, "input_embedding is float32 \\(81, 6\\); expected float32 \\(81, 5\\)"),
        ({"dtype": "float16"}, "input_embedding is float32"),
        ({"dtype": "object"}, "dtype is 'object'"),
        ({"files": {}}, "not in this folder"),
        ({"more": 1}, "expected \\["),
    ],
)
def test_a_config_that_says_something_else_is_refused(plain, change, message, tmp_path):
    folder = copied(plain, tmp_path / "copy")
    config = json.loads((folder / manifest.CONFIG).read_text())
    (folder / manifest.CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message) as caught:
        alkd.Recommender.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b" " * 2**21])
def test_a_config_that_is_none_is_refused(plain, data, tmp_path):
    folder = copied(plain, tmp_path / "copy")
    (folder / manifest.CONFIG).write_bytes(data)
    with pytest.raises(ValueError, match=r"config\.json"):
        alkd.Recommender.load(folder)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (manifest.ITEMS, b"{}", "item_ids is of another type; expected a list"),
        (manifest.ITEMS, json.dumps({"item_ids": ["a"] * 80, "titles": [""] * 80}).encode(), "duplicate"),
        (manifest.ITEMS, json.dumps({"item_ids": [1] * 80, "titles": [""] * 80}).encode(), "list of strings"),
        (manifest.ITEMS, json.dumps({"item_ids": ["\ud800"] * 80, "titles": [""] * 80}).encode(), "half a character"),
        (manifest.ITEMS, b"[" * 100_000, "items.json: "),
        (manifest.WEIGHTS, b"\x80\x04.", "cannot be read"),
        (manifest.WEIGHTS, (2**62).to_bytes(8, "little") + b"{}", "cannot be read"),
        (manifest.WEIGHTS, b"", "cannot be read"),
    ],
)
def test_a_file_that_the_config_vouches_for_is_still_checked(plain, name, data, message, tmp_path):
    folder = copied(plain, tmp_path / "copy")
    shipped_students.rewrite(folder, name, data)
    with pytest.raises(ValueError, match=message):
        alkd.Recommender.load(folder)


def test_weights_that_are_no_numbers_are_refused(plain, tmp_path):
    import safetensors.numpy

    folder = copied(plain, tmp_path / "copy")
    arrays = safetensors.numpy.load((folder / manifest.WEIGHTS).read_bytes())
    arrays["output_embedding"] = np.where(np.arange(6) == 2, np.inf, arrays["output_embedding"])
    shipped_students.rewrite(folder, manifest.WEIGHTS, safetensors.numpy.save(arrays))
    with pytest.raises(ValueError, match="output_embedding has a number that is not finite"):
        alkd.Recommender.load(folder)


def test_a_folder_with_the_former_name_of_a_parameter_loads(tmp_path):
    import safetensors.numpy

    model = models.create("late", num_items=80, dim=6, shared=True)
    export.save(tmp_path / "student", model, models.init_params(jax.random.key(0), model), DATASET, list_length=20)
    expected = alkd.Recommender.load(tmp_path / "student").recommend(["item-1", "item-5"])
    arrays = safetensors.numpy.load((tmp_path / "student" / manifest.WEIGHTS).read_bytes())
    arrays["meeting_kernel"] = arrays.pop("interaction_kernel")
    shipped_students.rewrite(tmp_path / "student", manifest.WEIGHTS, safetensors.numpy.save(arrays))
    assert alkd.Recommender.load(tmp_path / "student").recommend(["item-1", "item-5"]) == expected


FORMS = {manifest.PROGRAM: export.load_program, manifest.ONNX: export.load_onnx}


@pytest.mark.parametrize("name", FORMS)
def test_a_compiled_form_that_is_none_is_refused_when_it_is_loaded(plain, name, tmp_path):
    folder = copied(plain, tmp_path / "copy")
    for data in (b"no program at all, but some bytes of text", (folder / name).read_bytes()[:-300], b""):
        shipped_students.rewrite(folder, name, data)
        with pytest.raises(ValueError, match=rf"{name}: cannot be read .*; expected an undamaged") as caught:
            FORMS[name](folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMS)
def test_a_compiled_form_of_another_student_is_refused_when_it_is_loaded(plain, name, tmp_path):
    """The program has no weights of its own, so that one of another backbone or length differs."""
    folder = copied(plain, tmp_path / "copy")
    model = models.create("fpmc", num_items=80, dim=6)
    params = models.init_params(jax.random.key(5), model)
    export.save(tmp_path / "other", model, params, DATASET, list_length=7)
    shipped_students.rewrite(folder, name, (tmp_path / "other" / name).read_bytes())
    with pytest.raises(ValueError, match=rf"{name}: (shape of the scores|scores of the first session)"):
        FORMS[name](folder)


def test_a_program_of_another_jax_says_so(plain, tmp_path):
    folder = copied(plain, tmp_path / "copy")
    config = json.loads((folder / manifest.CONFIG).read_text())
    config["versions"]["jax"] = "99.0"
    (folder / manifest.CONFIG).write_text(json.dumps(config))
    shipped_students.rewrite(folder, manifest.PROGRAM, b"from the future")
    with pytest.raises(ValueError, match=r"expected one that JAX .* can read; JAX 99\.0 wrote it"):
        export.load_program(folder)
