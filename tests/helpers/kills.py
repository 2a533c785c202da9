"""A process that is killed between two changes of its files, without a process."""

import builtins
import contextlib
import io
import os
import threading

import pytest


class Killed(BaseException):
    """Stands for the end of the process: nothing that runs afterwards changes a file."""


@contextlib.contextmanager
def killed_at(step):
    """From the ``step``-th change of a file on, counted from 1, every change raises :class:`Killed` instead.

    Only changes of the calling thread count and are stopped: other threads, such as the one that renews the records of
    locked folders, change files at times of their own.
    """
    changes, thread = 0, threading.get_ident()

    def counted(function, is_change):
        def call(*args, **options):
            nonlocal changes
            if threading.get_ident() == thread and is_change(*args, **options):
                changes += 1
                if changes >= step:
                    raise Killed
            return function(*args, **options)

        return call

    def opens_to_write(file, mode="r", *args, **options):
        return isinstance(mode, str) and bool(set(mode) & set("wax+")) and not isinstance(file, int)

    def opens_flags(path, flags, *args, **options):
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "mkdir", "unlink", "remove", "rmdir", "link", "utime"):
            patch.setattr(os, name, counted(getattr(os, name), lambda *args, **options: True))
        patch.setattr(os, "open", counted(os.open, opens_flags))
        for module in (io, builtins):
            patch.setattr(module, "open", counted(module.open, opens_to_write))
        yield
