"""Parts by name: those of the library, and those of a user's own modules as ``package.module:attribute``."""

import dataclasses
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from alkd_jax.io import sha256_of

Part = TypeVar("Part")


@dataclasses.dataclass(frozen=True, eq=False)
class Registry(Mapping[str, Part]):
    """The parts of one kind, as a mapping from name to part that also finds parts from outside.

    Attributes:
        kind: what is named, in errors: "backbone", "--teacher".
        entries: name → part, those of the library.
        expected: what an object from outside has to be, in words.
        adopt: function of the name and the imported object that returns the part, or None where the object is not what
            is expected.
    """

    kind: str
    entries: Mapping[str, Part]
    expected: str
    adopt: Callable[[str, Any], Part | None]

    def __getitem__(self, name: str) -> Part:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, name: str) -> Part:
        """Returns a part by name.

        Args:
            name: a name of the library, or ``package.module:attribute``, whose module is imported.

        Raises:
            ValueError: there is no such name, module or attribute, or the attribute is of another kind.
        """
        if name in self.entries:
            return self.entries[name]
        if not is_outside(name):
            known = " or ".join(map(repr, self.entries))
            raise ValueError(f"{self.kind} is {name!r}; expected {known}, or package.module:attribute")
        try:
            found = import_attribute(name)
        except ImportError as error:
            raise ValueError(f"{self.kind} is {name!r}; {error}; expected {self.expected}") from error
        part = self.adopt(name, found)
        if part is None:
            what = f"the class {found.__qualname__}" if isinstance(found, type) else f"of type {type(found).__name__}"
            raise ValueError(f"{self.kind} is {name!r}, {what}; expected {self.expected}")
        return part


def is_outside(name: str) -> bool:
    """Returns whether a name has the form ``package.module:attribute``, so that it names a part from outside."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_attribute(name: str) -> Any:
    """Imports an attribute of a module; a module in the current directory is found as with ``python -m``.

    Args:
        name: ``package.module:attribute``.

    Raises:
        ImportError: there is no such module or attribute, or a module that it imports is missing.
    """
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    module = importlib.import_module(module_name)
    if not hasattr(module, attribute):
        raise ImportError(f"module {module_name} has no attribute {attribute!r}")
    return getattr(module, attribute)


def source_digest(name: str) -> str:
    """Returns the SHA-256 of the files that define a part from outside: of the named module and of the object's own.

    What depends on the part is computed again when they change. The digest of a part of the library is empty.

    Args:
        name: name of a part.
    """
    if not is_outside(name):
        return ""
    part, module = import_attribute(name), importlib.import_module(name.partition(":")[0])
    homes = (module, inspect.getmodule(part))
    digests = {sha256_of(home.__file__) for home in homes if home is not None and home.__file__ is not None}
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def path_safe(name: str) -> str:
    """Returns the name of a part as part of a file name: the colon becomes a dot."""
    return name.replace(":", ".")


def parameter_names(function: Any) -> frozenset[str]:
    """Returns the names of a callable's parameters, none for anything else."""
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return frozenset()


def accepts(function: Any, num_positional: int, *keywords: str) -> bool:
    """Returns whether a callable takes this number of positional arguments together with these keywords.

    Args:
        function: the callable; anything else is not accepted.
        num_positional: number of positional arguments.
        *keywords: names of keyword arguments.
    """
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(num_positional), **dict.fromkeys(keywords))
    except (TypeError, ValueError):
        return False
    return True
