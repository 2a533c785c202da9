"""Source strings: what they are parsed to, and which are refused."""

import json

import polars as pl
import pytest

import alkd_jax as alkd
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.readers import registry

MODULE = """
import alkd_jax as alkd

def load_dataset(num_items, seed="0"):
    return alkd.data.synthetic(int(num_items), 50, seed=int(seed))

def load_interactions(path, *, strict=False):
    assert strict
    return alkd.data.load_table(path, strict=strict)

NUMBER = 3
"""


@pytest.fixture
def own_readers(tmp_path, monkeypatch):
    """A module ``own.readers`` that can be imported."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "readers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "own.readers"


@pytest.mark.parametrize(
    ("text", "kind", "arguments", "name"),
    [
        ("synthetic", "synthetic", (), "synthetic"),
        ("synthetic:", "synthetic", (), "synthetic"),
        ("synthetic:7", "synthetic", ("7",), "synthetic"),
        ("released:a:b:ML", "released", ("a:b", "ML"), "ML"),
        ("prepared:a:b", "prepared", ("a:b",), "prepared"),
    ],
)
def test_datasets_are_parsed(text, kind, arguments, name):
    source = registry.parse_source(text)
    assert (source.kind, source.arguments, source.name) == (kind, arguments, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "synthetic:x",
        'synthetic:["x"]',
        "released:a",
        "released::ML",
        "prepared:",
        "csv:a:b:c",
        "own.nothing:f:a",
    ],
)
def test_other_strings_are_refused(text):
    with pytest.raises(ValueError, match=r"expected one of synthetic\[:SEED\], released:PATH:ML") as error:
        registry.parse_source(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [kind for kind, reader in registry.READERS.items() if reader.result is Interactions])
def test_every_form_is_accepted_with_and_without_what_can_be_omitted(kind):
    form = registry.READERS[kind].form
    for text in (form.replace("[", "").replace("]", ""), form.partition("[")[0]):
        source = registry.parse_source(text, Interactions)
        assert (source.kind, source.arguments) == (kind, tuple(text.split(":")[1:]))
        with pytest.raises(ValueError, match="expected one of"):
            registry.parse_source(form.replace("[", "").replace("]", "") + ":more", Interactions)


def test_a_seed_is_read():
    assert registry.read("synthetic:7").fingerprint == alkd.data.synthetic(seed=7).fingerprint


def test_a_reader_of_the_users_own_is_found_by_module_and_attribute(own_readers, tmp_path):
    source = registry.parse_source(f"{own_readers}:load_dataset:30:4")
    assert (source.kind, source.name, source.arguments) == (f"{own_readers}:load_dataset", "load_dataset", ("30", "4"))
    assert registry.read(source.text).fingerprint == alkd.data.synthetic(30, 50, seed=4).fingerprint
    (tmp_path / "a.csv").write_text("user,item,time\nu,i,5\n")
    log = registry.read_interactions(f"{own_readers}:load_interactions:{tmp_path / 'a.csv'}", strict=True)
    assert log.item_ids == ("i",)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("absent:a", "has no attribute 'absent'"),
        ("NUMBER:a", "of type int; expected a function"),
        ("load_dataset", "expected one of"),
        ("load_dataset:1:2:3", "expected one of"),
    ],
)
def test_an_own_reader_that_does_not_fit_is_refused(own_readers, rest, message):
    with pytest.raises(ValueError, match=message):
        registry.parse_source(f"{own_readers}:{rest}")


def test_data_of_another_type_are_refused(own_readers):
    with pytest.raises(ValueError, match="gives Dataset; expected Interactions"):
        registry.read_interactions(f"{own_readers}:load_dataset:30")


NAMES = ["a:b.csv", "*.csv", "a?.csv", "[x].csv", "[/y].csv", '["a"].csv', "a b.csv", "%20.csv", "~.csv", "k=1.csv"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_any_path_names_the_file_of_that_name(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for other, item in (("ab.csv", "wrong"), ("x.csv", "wrong"), ("a.csv", "wrong"), (name, "right")):
        frame = pl.DataFrame({"user": ["u"], "item": [item], "time": [1]})
        getattr(frame, f"write_{kind}")(tmp_path / other)
    log = registry.read_interactions(kind, paths=[name])
    assert log.item_ids == ("right",)
    assert registry.parse_source(kind, Interactions, paths=[name]).arguments == (name,)
    assert registry.parse_source(f"{kind}:{json.dumps([name])}", Interactions).arguments == (name,)
    if ":" not in name:
        assert registry.parse_source(f"{kind}:{name}", Interactions).arguments == (name,)


def test_paths_come_before_the_other_arguments():
    assert registry.parse_source("released:ML", paths=["a:b"]).arguments == ("a:b", "ML")
    assert registry.parse_source("released", paths=["a:b", "ML"]).name == "ML"
    assert registry.parse_source("prepared", paths=["[x]"]).path == "[x]"
    assert registry.parse_source("gru4rec", Interactions, paths=["a", "b:c"]).arguments == ("a", "b:c")
    for text, paths in (("synthetic", ["a"]), ("prepared", ["a", "b"]), ("csv", ["a", "b", "c"]), ("nothing", ["a"])):
        with pytest.raises(ValueError, match="expected one of"):
            registry.parse_source(text, paths=paths)


def test_raw_data_are_a_dataset_by_the_recipe_of_the_released_data(tmp_path):
    rows = [
        f"u{user},i{(user * 5 + place) % 30},{86_400 * (user % 4) + place}" for user in range(30) for place in range(6)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["user,item,time", *rows]))
    prepared = alkd.data.prepare(alkd.data.load_table(tmp_path / "a.csv"))
    assert registry.read(f"csv:{tmp_path}/a.csv").fingerprint == prepared.dataset().fingerprint
    header, sessions = "SessionId\tItemId\tTime", [f"{n // 6}\t{n % 7}\t{n}" for n in range(120)]
    for name in ("train", "test"):
        (tmp_path / name).write_text("\n".join([header, *sessions]))
    dataset = registry.read(f"gru4rec:{tmp_path}/train:{tmp_path}/test")
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [16, 4, 20]


def test_options_that_a_reader_does_not_have_are_refused():
    for option in ({"separator": ";"}, {"time_format": "s"}):
        with pytest.raises(ValueError, match="hetrec2011 has a fixed one"):
            registry.read_interactions("hetrec2011:a", **option)
