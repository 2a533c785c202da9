"""Registries: parts of the library by name, parts from outside by module and attribute, and errors of one line."""

import sys

import pytest

from alkd_jax import models, registry
from alkd_jax.registry import Registry

MODULE = """
import json

import flax.linen as nn

from alkd_jax.models import FPMC


class Wide(FPMC):
    pass


class WithoutWidth(nn.Module):
    num_items: int

    def item_embeddings(self):
        pass


class Demanding(FPMC):
    depth: int = 3


class WithoutTrain(FPMC):
    def __call__(self, items, mask):
        return super().__call__(items, mask)


class WithoutPadding(FPMC):
    def item_embeddings(self):
        return super().item_embeddings()[1:]


class Twice(FPMC):
    def __call__(self, items, mask, *, train=False):
        return super().__call__(items, mask).repeat(2, axis=1)


class Tuple(FPMC):
    def __call__(self, items, mask, *, train=False):
        return super().__call__(items, mask), mask


class Interests(FPMC):
    max_length: int | None = None

    def __call__(self, items, mask, *, train=False):
        return super().__call__(items, mask)[:, None].repeat(3, axis=1)


class Compact(nn.Module):
    num_items: int
    dim: int

    @nn.compact
    def __call__(self, items, mask, *, train=False):
        return nn.Embed(self.num_items + 1, self.dim, name="inputs")(items).mean(1)

    @nn.compact
    def item_embeddings(self):
        return nn.Embed(self.num_items + 1, self.dim, name="outputs").embedding


NUMBER = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that is the current one, with a module ``pieces.parts`` and one that lacks an import."""
    (tmp_path / "pieces").mkdir()
    (tmp_path / "pieces" / "parts.py").write_text(MODULE)
    (tmp_path / "pieces" / "broken.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "pieces"]:
        del sys.modules[name]


def test_a_registry_maps_the_names_of_the_library():
    numbers = Registry[int]("number", {"one": 1, "two": 2}, "an int", lambda name, found: None)
    assert dict(numbers) == {"one": 1, "two": 2}
    assert "three" not in numbers
    assert numbers.find("two") == 2


@pytest.mark.parametrize(
    ("name", "is_outside"),
    [
        ("package.module:attribute", True),
        ("module:attribute", True),
        ("fpmc", False),
        ("package.module", False),
        ("package.module:", False),
        (":attribute", False),
        ("package..module:attribute", False),
        ("package.module:a.b", False),
        ("package.module:call()", False),
        ("../package:attribute", False),
        ("package.module:a:b", False),
    ],
)
def test_only_a_dotted_path_and_an_attribute_name_a_part_from_outside(name, is_outside):
    assert registry.is_outside(name) == is_outside


def test_a_backbone_in_the_current_directory_is_made_by_its_path(here):
    model = models.create("pieces.parts:Wide", num_items=5, dim=2)
    assert (type(model).__name__, model.num_items, model.dim) == ("Wide", 5, 2)
    assert models.create("pieces.parts:Demanding", num_items=5, dim=2, depth=4).depth == 4
    assert models.BACKBONES.find("fpmc") is models.FPMC


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("caser", "backbone is 'caser'; expected 'fpmc' or 'stamp' or 'attmix' or 'late' or 'gru4rec' or"),
        ("pieces.absent:Wide", "backbone is 'pieces.absent:Wide'; No module named 'pieces.absent'; expected a Linen"),
        ("pieces.broken:Wide", "No module named 'no_such_package'"),
        ("pieces.parts:Absent", "module pieces.parts has no attribute 'Absent'; expected a Linen module class"),
        ("pieces.parts:NUMBER", "backbone is 'pieces.parts:NUMBER', of type int; expected a Linen module class"),
        (
            "pieces.parts:WithoutWidth",
            "the class WithoutWidth; expected a Linen module class with the fields num_items",
        ),
    ],
)
def test_a_backbone_that_cannot_be_found_is_refused_in_one_line(here, name, message):
    with pytest.raises(ValueError, match="backbone is") as error:
        models.create(name, num_items=5, dim=2)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WithoutTrain", r"the class WithoutTrain; expected .* __call__\(items, mask, \*, train=False\)"),
        (
            "WithoutPadding",
            r"item_embeddings of WithoutPadding has shape \[5, 2\]; expected \[6, D\], a row for each item",
        ),
        ("Twice", r"Twice returns shape \[2, 4\] for two sessions; expected \[2, 2\], or \[2, K, 2\]"),
        ("Tuple", r"__call__ of Tuple returns several arrays; expected one"),
        (
            "Compact",
            r"Compact fails with ScopeParamNotFoundError \(Could not .*expected methods that read what setup declares",
        ),
    ],
)
def test_a_backbone_with_other_arrays_is_refused_before_it_is_trained(here, name, message):
    with pytest.raises(ValueError, match=message) as error:
        models.create(f"pieces.parts:{name}", num_items=5, dim=2)
    assert "\n" not in str(error.value)


def test_a_backbone_may_have_several_vectors_per_session(here):
    assert models.create("pieces.parts:Interests", num_items=5, dim=2).max_length is None


def test_options_that_a_backbone_does_not_have_are_refused(here):
    with pytest.raises(ValueError, match=r"backbone is 'pieces.parts:Wide' with options \['depth'\]; "):
        models.create("pieces.parts:Wide", num_items=5, dim=2, depth=4)


def test_the_digest_of_a_part_changes_with_its_file_and_a_name_of_the_library_has_none(here):
    assert registry.source_digest("fpmc") == ""
    before = registry.source_digest("pieces.parts:NUMBER")
    assert registry.source_digest("pieces.parts:NUMBER") == before
    (here / "pieces" / "parts.py").write_text(MODULE + "# changed\n")
    assert registry.source_digest("pieces.parts:NUMBER") != before
    (here / "pieces" / "again.py").write_text("from pieces.parts import Wide\n")
    imported = registry.source_digest("pieces.again:Wide")
    (here / "pieces" / "parts.py").write_text(MODULE)
    assert registry.source_digest("pieces.again:Wide") != imported, "its own file counts, wherever it is named"


@pytest.mark.parametrize(
    ("function", "accepted"),
    [
        (lambda a, b, *, num: None, True),
        (lambda a, b, num: None, True),
        (lambda *arguments, **options: None, True),
        (lambda a, *, num: None, False),
        (lambda a, b: None, False),
        (lambda a, b, *, num, more: None, False),
        (3, False),
    ],
)
def test_a_callable_is_accepted_by_the_arguments_that_it_takes(function, accepted):
    assert registry.accepts(function, 2, "num") == accepted
