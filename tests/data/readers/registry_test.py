"""Source strings: what they are parsed to, and which are refused."""

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
    "text", ["", "a", "synthetic:x", "released:a", "released::ML", "prepared:", "movielens:a", "own.nothing:f:a"]
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
