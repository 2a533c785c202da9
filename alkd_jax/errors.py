"""Errors that a user can cause: how values from outside are shown in them, and which line explains an exception.

The modules of this package raise ``ValueError`` with one line for whatever a user gave them: the name of the thing, its
value, and what was expected. What a library raises about a file becomes such an error in :func:`reading`. Any other
exception is a bug, and its traceback is what helps to mend it.
"""

import contextlib
import dis
import errno
import importlib
import os
import pathlib
import re
import reprlib
import shutil
import sysconfig
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

_PACKAGE = __name__.partition(".")[0]
_NO_SPACE = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the limit of this process or file system",
}
_OS_ERRORS = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.EROFS: "the file system is read-only",
    errno.EISDIR: "is a folder; expected a file",
    errno.ENOTDIR: "a part of this path is a file; expected a folder",
    errno.EEXIST: "exists already",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a loop of symbolic links",
    errno.EMFILE: "too many open files; raise the limit of this process (ulimit -n)",
    errno.EADDRINUSE: "the address is in use; choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}
_EXTRAS = {
    "polars": "data",
    "tyro": "report",
    "yaml": "report",
    "jinja2": "report",
    "matplotlib": "report",
    "tabulate": "report",
    "openai": "llm",
    "tiktoken": "llm",
    "onnx": "export",
    "onnxruntime": "onnx",
    "flatbuffers": "export",
    "safetensors": "export",
    "starlette": "serve",
    "uvicorn": "serve",
    "h11": "serve",
    "sklearn": "titles",
    "lightgbm": "trees",
    "tensorboardX": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "huggingface_hub": "hub",
    "torch": "peers",
    "faiss": "peers",
}
"""Module → the extra of this package that installs it."""


_MARKDOWN = re.compile(r"[\\`*<>|&~#$]|\](?=[(\[:])|(?<!\w)_|_(?!\w)")
"""A bracket before a target makes a link; an underscore within a word is an ordinary character."""


def printable(text: object, *, width: int = 500) -> str:
    r"""Returns a text on one line that no terminal interprets.

    Control characters, line ends, half surrogates and marks that change the writing direction become escape sequences
    such as ``\x1b``; a longer text loses its middle.

    Args:
        text: what to show.
        width: the largest number of characters.
    """
    text = str(text)
    if len(text) > width:
        text = f"{text[: width // 2]} … {text[len(text) - width // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def markdown(name: str) -> str:
    r"""Returns a name for a line or a table of Markdown, where neither punctuation nor HTML acts as such.

    Example:
        >>> markdown("a|b<i>")
        'a\\|b\\<i\\>'
    """
    return _MARKDOWN.sub(r"\\\g<0>", printable(name))


class _Short(reprlib.Repr):
    """The literals of the first few elements, however deep, wide or shared a value is, and of integers of any size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 3, 12, 12, 6
        self.maxstring = self.maxother = self.maxlong = width

    def repr_int(self, value: int, level: int) -> str:
        return repr(value) if value.bit_length() < 1000 else f"<an integer of {value.bit_length():,} bits>"


def shown(value: object, *, width: int = 100) -> str:
    r"""Returns a value out of a file, or from another process, as it stands in an error: a literal, cut.

    Args:
        value: any value.
        width: the largest number of characters of its text.

    Example:
        >>> shown("a\x1b[31m")
        "'a\\x1b[31m'"
    """
    if isinstance(value, str | bytes) and len(value) > width:
        return f"{value[:width]!r}… ({len(value):,} {'characters' if isinstance(value, str) else 'bytes'})"
    text = _Short(width).repr(value) if type(value) in (list, tuple, dict, int) else repr(value)
    return printable(text, width=width + 2)


@contextlib.contextmanager
def reading(name: object, *, expected: str = "an undamaged file") -> Iterator[None]:
    """Turns what a library raises about a file from outside into an error that names the file.

    Errors that this package raises, and those of the operating system, such as a missing file, pass unchanged.

    Args:
        name: the file, with its member or line if it is known.
        expected: what the file should have been.

    Raises:
        ValueError: the library raised an exception of any other type.
    """
    try:
        yield
    except Exception as error:
        if (isinstance(error, OSError) and error.errno is not None) or _raised_for_users(error):
            raise
        reason = printable(next(iter(str(error).splitlines()), "") or type(error).__name__, width=150)
        raise ValueError(f"{printable(name)}: cannot be read ({reason}); expected {expected}") from error


def how_to_install(module: str) -> str:
    """Returns the line that says how to install a package that an extra of this one contains."""
    return f"the package {module} is not installed; install it with: pip install 'alkd_jax[{_EXTRAS[module]}]'"


def import_extra(name: str) -> Any:
    """Imports a module of a package that an extra installs.

    Args:
        name: of the module, such as "safetensors.numpy".

    Raises:
        ModuleNotFoundError: it is not installed; the error says how to install it.
        ImportError: a library of the system that it loads is not there.
    """
    try:
        with requiring_extra(name.partition(".")[0]):
            module = importlib.import_module(name)
    except OSError as error:
        raise ImportError(f"the package {name} cannot be loaded ({error}); expected the libraries it needs") from error
    return module


@contextlib.contextmanager
def requiring_extra(package: str) -> Iterator[None]:
    """Names the extra that installs a package, where the block imports from the package and it is not installed.

    Args:
        package: of the imports, such as "starlette".

    Raises:
        ModuleNotFoundError: it is not installed; the error says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ModuleNotFoundError(how_to_install(package), name=package) from error


class FullDiskError(OSError):
    """A file for which the disk, a quota or a limit has no room.

    Attributes:
        bytes_needed: a number of bytes that is known to be too large; 0 where none is known.
    """

    def __init__(self, number: int, path: str, bytes_needed: int = 0):
        super().__init__(number, os.strerror(number), path)
        self.bytes_needed = bytes_needed


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], *, size: int = 0, partial: pathlib.Path | None = None) -> Iterator[None]:
    """Names the file that the block writes in errors which do not name it, as when the disk is full.

    Args:
        path: the file, or a folder that a library fills.
        size: its number of bytes, if it is known.
        partial: the file that holds what was written so far, where it has another name.

    Raises:
        FullDiskError: there is no room, also where a library tells of it in an exception of another type.
        OSError: any other error of the operating system.
    """
    try:
        yield
    except Exception as error:
        if (number := _no_space_number(error)) is not None:
            if partial is not None and partial.is_file():
                size = max(size, partial.stat().st_size)
            raise FullDiskError(number, os.fspath(path), size) from error
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def explain(error: BaseException, *, packages: Sequence[str] = (_PACKAGE,)) -> str | None:
    """Returns the line that tells a user what happened and what to do.

    Args:
        error: what ended a command.
        packages: the names of the packages whose ``ValueError`` is about what a user gave, even if they are installed.

    Returns:
        One printable line; None where the error is a bug of this package or of a part of the user's own.
    """
    if (line := _explain_full_disk(error)) is not None:
        return line
    if isinstance(error, OSError) and error.errno is not None:
        reason = _OS_ERRORS.get(error.errno) or os.strerror(error.errno).lower()
        files = " → ".join(printable(file) for file in (error.filename, error.filename2) if file is not None)
        return f"{files}: {reason}" if files else f"{reason} ({printable(error)})"
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        module = error.name.partition(".")[0]
        return how_to_install(module) if module in _EXTRAS else None
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return f"out of memory ({printable(error, width=200) or 'no details'}); use a smaller batch, width or catalogue"
    if isinstance(error, ValueError | FloatingPointError | OSError) and _raised_for_users(error, packages):
        return printable(error, width=2_000)
    return None


def _explain_full_disk(error: BaseException) -> str | None:
    """Returns the line for a disk that is full, also where a library tells of it in a text of its own."""
    if (number := _no_space_number(error)) is None:
        return None
    file = getattr(error, "filename", None)
    path = pathlib.Path(os.fsdecode(file)) if isinstance(file, str | bytes | os.PathLike) else None
    # What was begun, and its folder, may have been removed meanwhile.
    folders = () if path is None else path.absolute().parents
    folder = next((folder for folder in folders if folder.is_dir()), pathlib.Path())
    where = "" if path is None else f"{printable(path)}: "
    size = getattr(error, "bytes_needed", 0)
    needed = f", at least {size:,} bytes needed" if size else ""
    free = f", {shutil.disk_usage(folder).free:,} bytes free"
    return f"{where}{_NO_SPACE[number]}{needed}{free}; make room and run the same command again, which continues"


def _no_space_number(error: BaseException) -> int | None:
    """Returns the number of the system's error where the disk is full, and None for any other error."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        number = next((code for code in _NO_SPACE if os.strerror(code) in str(error)), None)
    return number if number in _NO_SPACE else None


def origin_of(error: BaseException, *, packages: Sequence[str] = (_PACKAGE,)) -> str:
    """Returns the innermost module of a traceback outside of installed libraries, or "" where there is none.

    Args:
        error: an exception that was raised.
        packages: as in :func:`explain`.
    """
    modules = [_module_of(frame) for frame in _frames(error) if not _is_library(frame, packages)]
    return modules[-1] if modules else ""


def _raised_for_users(error: BaseException, packages: Sequence[str] = (_PACKAGE,)) -> bool:
    """Whether a ``raise`` statement outside of installed libraries made this error, and not a failed operation."""
    frames = _frames(error)
    if not frames or _is_library(frames[-1], packages):
        return False
    steps = dis.get_instructions(frames[-1].tb_frame.f_code)
    return any(step.offset == frames[-1].tb_lasti and step.opname == "RAISE_VARARGS" for step in steps)


def _frames(error: BaseException) -> list[TracebackType]:
    """Returns the frames of a traceback from the outermost to the one where the error arose."""
    frames, frame = [], error.__traceback__
    while frame is not None:
        frames.append(frame)
        frame = frame.tb_next
    return frames


def _module_of(frame: TracebackType) -> str:
    names = frame.tb_frame.f_globals
    # A module that is run as a command is named "__main__"; its specification has its own name.
    return str(getattr(names.get("__spec__"), "name", None) or names.get("__name__", ""))


def _is_library(frame: TracebackType, packages: Sequence[str]) -> bool:
    """Whether a frame belongs to an installed library other than these packages, or to Python's own."""
    paths = [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")]
    file = pathlib.Path(frame.tb_frame.f_code.co_filename)
    in_folder = str(file).startswith("<") or any(file.is_relative_to(path) for path in paths if path)
    return in_folder and _module_of(frame).partition(".")[0] not in packages
