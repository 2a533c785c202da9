"""Sources of data by name: parses a source string and calls its reader.

A source string is the name of a reader and its arguments, separated by colons: ``released:PATH:NAME`` gives a dataset,
``movielens:PATH`` gives interactions. Arguments with colons are given as a JSON list: ``csv:["a:b.csv"]``. A reader of
the user's own is named ``package.module:attribute``.
"""

import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from alkd_jax.data.interactions import Interactions
from alkd_jax.data.prepared_folder import load_prepared
from alkd_jax.data.readers.amazon import load_amazon
from alkd_jax.data.readers.amazon_m2 import load_amazon_m2
from alkd_jax.data.readers.diginetica import load_diginetica
from alkd_jax.data.readers.gru4rec import load_gru4rec
from alkd_jax.data.readers.hetrec import load_hetrec
from alkd_jax.data.readers.lastfm import load_lastfm
from alkd_jax.data.readers.merrec import load_merrec
from alkd_jax.data.readers.movielens import load_movielens
from alkd_jax.data.readers.otto import load_otto
from alkd_jax.data.readers.recbole import load_recbole
from alkd_jax.data.readers.released import load_released
from alkd_jax.data.readers.retailrocket import load_retailrocket
from alkd_jax.data.readers.srgnn import load_srgnn
from alkd_jax.data.readers.tables import load_table
from alkd_jax.data.readers.user_sequences import load_user_sequences
from alkd_jax.data.readers.yambda import load_yambda
from alkd_jax.data.readers.yoochoose import load_yoochoose
from alkd_jax.data.recipes import RECIPES, Recipe, prepare_by
from alkd_jax.data.synthetic import synthetic
from alkd_jax.errors import shown
from alkd_jax.registry import Registry, is_outside
from alkd_jax.types import Dataset

_Result = TypeVar("_Result", Dataset, Interactions)


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader of one kind of source.

    Attributes:
        load: function of the arguments, by position, and of options, by keyword.
        form: source string in an error message; brackets surround what can be omitted.
        result: type that ``load`` returns; None where only a call shows it.
        pattern: regular expression of the arguments; None if every colon separates two arguments.
        recipe: name of the recipe by which interactions become a dataset unless one says otherwise.
    """

    load: Callable[..., Any]
    form: str
    result: type[Dataset] | type[Interactions] | None = Interactions
    pattern: str | None = None
    recipe: str = "alkdrec"

    def parse(self, text: str) -> tuple[str, ...] | None:
        """Returns the arguments in a source string without its name, or None if they do not match ``load``."""
        listed = _listed(text)
        if self.pattern is not None:
            match = re.fullmatch(self.pattern, text if listed is None else ":".join(listed), re.DOTALL)
            if match is None or listed is None:
                return None if match is None else tuple(group for group in match.groups() if group)
        arguments = listed if listed is not None else tuple(text.split(":")) if text else ()
        parameters = [p for p in inspect.signature(self.load).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]
        required = sum(parameter.default is parameter.empty for parameter in parameters)
        return arguments if required <= len(arguments) <= len(parameters) and all(arguments) else None


def _listed(text: str) -> tuple[str, ...] | None:
    """Returns arguments given as a JSON list of strings, or None if the text is no such list."""
    try:
        arguments = json.loads(text) if text.startswith("[") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(arguments, list) or not all(isinstance(argument, str) for argument in arguments):
        return None
    return tuple(arguments)


def _load_synthetic(seed: str = "0", *, max_length: int = 10) -> Dataset:
    return synthetic(seed=int(seed), max_length=max_length)


READERS = Registry[Reader](
    "reader",
    {
        "synthetic": Reader(_load_synthetic, "synthetic[:SEED]", Dataset, r"([0-9]*)"),
        "released": Reader(load_released, "released:PATH:ML (or :Games)", Dataset, r"(.+):([^:]+)"),
        "prepared": Reader(load_prepared, "prepared:PATH", Dataset, r"(.+)"),
        "hetrec2011": Reader(load_hetrec, "hetrec2011:PATH"),
        "amazon2014": Reader(functools.partial(load_amazon, year=2014), "amazon2014:REVIEWS[:META]"),
        "amazon2018": Reader(functools.partial(load_amazon, year=2018), "amazon2018:REVIEWS[:META]"),
        "amazon2023": Reader(functools.partial(load_amazon, year=2023), "amazon2023:REVIEWS[:META]"),
        "movielens": Reader(load_movielens, "movielens:PATH"),
        "lastfm1k": Reader(load_lastfm, "lastfm1k:PATH"),
        "yoochoose": Reader(load_yoochoose, "yoochoose:CLICKS[:TEST]", recipe="gru4rec-yoochoose"),
        "diginetica": Reader(load_diginetica, "diginetica:VIEWS[:PRODUCTS]", recipe="gru4rec-diginetica"),
        "retailrocket": Reader(load_retailrocket, "retailrocket:PATH", recipe="gru4rec-retailrocket"),
        "otto": Reader(load_otto, "otto:TRAIN[:TEST]"),
        "amazon-m2": Reader(load_amazon_m2, "amazon-m2:PATH[:LOCALE]"),
        "yambda": Reader(load_yambda, "yambda:PATH"),
        "merrec": Reader(load_merrec, "merrec:PATH"),
        "table": Reader(load_table, "table:FILE[:TITLES]"),
        "csv": Reader(functools.partial(load_table, kind="csv"), "csv:FILE[:TITLES]"),
        "tsv": Reader(functools.partial(load_table, kind="tsv"), "tsv:FILE[:TITLES]"),
        "jsonl": Reader(functools.partial(load_table, kind="jsonl"), "jsonl:FILE[:TITLES]"),
        "parquet": Reader(functools.partial(load_table, kind="parquet"), "parquet:FILE[:TITLES]"),
        "recbole": Reader(load_recbole, "recbole:FOLDER"),
        "gru4rec": Reader(load_gru4rec, "gru4rec:FILE[:TEST]"),
        "srgnn": Reader(load_srgnn, "srgnn:TRAIN:TEST"),
        "userseq": Reader(load_user_sequences, "userseq:FILE", recipe="s3rec"),
    },
    "a function that returns a dataset or interactions",
    lambda name, found: Reader(found, name, None) if callable(found) else None,
)
"""Name of a source → its reader."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A parsed source string.

    Attributes:
        kind: name of the reader: a key of :data:`READERS`, or ``package.module:attribute``.
        arguments: arguments of the reader.
        text: the source string.
        reader: the reader.
    """

    kind: str
    arguments: tuple[str, ...]
    text: str
    reader: Reader

    @property
    def path(self) -> str:
        """The first argument: the path of a source that is read from a file or folder."""
        return self.arguments[0]

    @property
    def name(self) -> str:
        """A short name for folders: "ML" or "Games" for released data, otherwise the name of the reader."""
        return self.arguments[1] if self.kind == "released" else self.kind.rpartition(":")[2]

    def recipe(self, recipe: str | Recipe | None = None) -> Recipe:
        """Returns a recipe by name, or that of the reader.

        Args:
            recipe: a recipe, its name, or None for that of the reader.

        Raises:
            ValueError: there is no such recipe.
        """
        return recipe if isinstance(recipe, Recipe) else RECIPES.find(recipe or self.reader.recipe)

    def read(
        self, result: type[_Result], *, recipe: str | Recipe | None = None, max_length: int = 10, **options: Any
    ) -> _Result:
        """Calls the reader. A dataset is made from interactions by a recipe.

        Args:
            result: type of the data.
            recipe: a recipe, its name, or None for that of the reader.
            max_length: L, the number of most recent inputs that a model sees, of a dataset.
            **options: options of readers; those that this reader does not have are ignored.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, the reader returned another type, there is no such recipe, or a recipe is
                named for a dataset that is made already.
        """
        options["max_length"] = max_length
        accepted = inspect.signature(self.reader.load).parameters
        data = self.reader.load(*self.arguments, **{key: value for key, value in options.items() if key in accepted})
        if result is Dataset and isinstance(data, Interactions):
            data = prepare_by(self.recipe(recipe), data).dataset(max_length=max_length)
        elif recipe is not None:
            name = recipe if isinstance(recipe, str) else recipe.name
            raise ValueError(f"recipe is {name!r}, but {self.text!r} is made already; expected raw data with a recipe")
        if not isinstance(data, result):
            raise ValueError(f"source is {self.text!r} and gives {type(data).__name__}; expected {result.__name__}")
        return data


def parse_source(
    text: str, result: type[Dataset] | type[Interactions] = Dataset, *, paths: Sequence[str] = ()
) -> Source:
    """Parses a source string.

    Args:
        text: name of a reader and its arguments, separated by colons or as a JSON list.
        result: type of the data that the source must give. A dataset can be made from interactions.
        paths: the first arguments, which may contain any character; the string then has the others.

    Returns:
        The source; no file is opened, but the module of a reader ``package.module:attribute`` is imported.

    Raises:
        ValueError: the string does not have the form of a source of this type.
    """
    kind, _, rest = text.partition(":")
    reader = READERS.get(kind)
    reason = ""
    attribute, _, arguments_of_attribute = rest.partition(":")
    # A module without a package would be taken for the name of a reader.
    if reader is None and "." in kind and is_outside(f"{kind}:{attribute}"):
        kind, rest = f"{kind}:{attribute}", arguments_of_attribute
        try:
            reader = READERS.find(kind)
        except ValueError as error:
            reason = f" ({error})"
    if paths:
        rest = json.dumps([*paths, *(rest.split(":") if rest else ())])
        text = f"{kind}:{rest}"
    results = (result, None) if result is Interactions else (Dataset, Interactions, None)
    arguments = None if reader is None or reader.result not in results else reader.parse(rest)
    if reader is None or arguments is None:
        forms = [known.form for known in READERS.values() if known.result in results]
        expected = f"{', '.join(forms)} or package.module:attribute[:ARGUMENT ...]{reason}"
        raise ValueError(f"source is {shown(text, width=300)}; expected one of {expected}")
    return Source(kind, arguments, text, reader)


def read(text: str, *, recipe: str | Recipe | None = None, max_length: int = 10) -> Dataset:
    """Reads a dataset. Raw data are prepared in memory by a recipe.

    Args:
        text: source string, such as ``synthetic:0``, ``released:PATH:ML``, ``prepared:PATH`` or ``movielens:PATH``.
        recipe: rules for raw data: a recipe, a name in :data:`alkd_jax.data.recipes.RECIPES`, or
            ``package.module:attribute``; None for the recipe that belongs to the source: "s3rec" for ``userseq``,
            "gru4rec-yoochoose", "gru4rec-diginetica" and "gru4rec-retailrocket" for these, and that of the released
            data for all others.
        max_length: L, the number of most recent inputs that a model sees.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the string does not have the form of a source, a file is damaged, or the recipe does not fit.
    """
    return parse_source(text).read(Dataset, recipe=recipe, max_length=max_length)


def read_interactions(
    text: str,
    *,
    paths: Sequence[str] = (),
    strict: bool = False,
    columns: Mapping[str, str] | None = None,
    separator: str | None = None,
    quote: str = '"',
    encoding: str = "utf-8",
    time_format: str | None = None,
    unescape: bool = False,
) -> Interactions:
    """Reads the interactions of raw data.

    Args:
        text: source string, such as ``movielens:PATH`` or ``amazon2018:REVIEWS:META``.
        paths: the first arguments, which may contain any character; the string then has the others.
        strict: whether the first bad row raises an error.
        columns: purpose of a column → its name, for tables.
        separator: separator of a table; None for that of its kind.
        quote: the character that quotes a field of a table; empty if there is none.
        encoding: encoding of a table.
        time_format: form of the times of tables and of RecBole's and GRU4Rec's files.
        unescape: whether HTML entities in Amazon's titles are decoded.

    Returns:
        The interactions.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the string does not have the form of a source, the reader has no separator or form of times, or a
            file is damaged.
    """
    source = parse_source(text, Interactions, paths=paths)
    accepted = inspect.signature(source.reader.load).parameters
    for name, value in (("separator", separator), ("time_format", time_format)):
        if value is not None and name not in accepted:
            raise ValueError(f"{name} is {shown(value)}, but {source.kind} has a fixed one; expected no such option")
    return source.read(
        Interactions,
        strict=strict,
        columns=columns,
        separator=separator,
        quote=quote,
        encoding=encoding,
        time_format=time_format,
        unescape=unescape,
    )
