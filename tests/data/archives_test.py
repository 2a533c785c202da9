"""Files in archives and folders: every packing is read to the same rows or refused by name, in bounded memory."""

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zipfile

import pytest

from alkd_jax.data import archives
from alkd_jax.data.text import text_files
from alkd_jax.data.text.source_files import file_below, find_file
from tests.helpers.memory import peak_below

NAME = "plays.tsv"
TEXT = b"".join(b"user-%d\titem-%d\n" % (row % 97, row * 7919 % 1009) for row in range(4000))
COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def read(file):
    return b"".join(block for _, block in text_files.read_blocks(file, size=1 << 12))


def zipped(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(members, format=tarfile.GNU_FORMAT):
    """A tar archive of (name, data) or (name, type, target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content, *target in members:
            member = tarfile.TarInfo(name)
            if target:
                member.type, member.linkname = content, target[0]
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


SOUND = [("readme.txt", b"about\n" * 500), (f"data/{NAME}", TEXT), ("licence", b"free")]
CONTAINERS = {
    "plain": TEXT,
    **{name: compress(TEXT) for name, compress in COMPRESS.items()},
    **{f"{name} of two streams": compress(TEXT[:999]) + compress(TEXT[999:]) for name, compress in COMPRESS.items()},
    **{f"{name} and zeros": compress(TEXT) + bytes(512) for name, compress in COMPRESS.items()},
    **{f"zip {method}": zipped(SOUND, method) for method in archives._METHODS},
    "zip after a program": b"#!/bin/sh\n" + zipped(SOUND),
    "zip of gz": zipped([(f"{NAME}.gz", gzip.compress(TEXT))]),
    "tar": tarred(SOUND),
    "tar pax": tarred([(f"{'é' * 150}/{NAME}", TEXT)], tarfile.PAX_FORMAT),
    "tar ending in a zip": tarred([*SOUND, ("more.zip", zipped([("x", b"y")]))]),
    **{f"tar.{name}": compress(tarred(SOUND)) for name, compress in COMPRESS.items()},
    "tar.bz2 of xz": bz2.compress(tarred([(f"{NAME}.xz", lzma.compress(TEXT))])),
    "tar symlink": tarred([(NAME, tarfile.SYMTYPE, "data/./real"), ("data/real", TEXT)]),
    "tar hard link": tarred([("a/real", TEXT), (f"b/{NAME}", tarfile.LNKTYPE, "a/real")]),
    "tar links of links": tarred([(NAME, tarfile.SYMTYPE, "a"), ("a", tarfile.SYMTYPE, "b/../c"), ("c", TEXT)]),
    "shallowest of two": zipped([(f"old/1/{NAME}", b"other"), (f"new/{NAME}", TEXT)]),
    "backslashes": zipped([(f"data\\{NAME}", TEXT)]),
}


ARCHIVES = {name: content for name, content in CONTAINERS.items() if "zip" in name or "tar" in name or "\\" in name}


def opened(folder, content, is_archive):
    path = folder / ("source" if is_archive else NAME)
    path.write_bytes(content)
    return find_file(path, NAME)


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_packing_is_read_to_the_same_rows(tmp_path, container):
    is_archive = any(word in container for word in ("zip", "tar", "two", "backslashes")) and "streams" not in container
    file = opened(tmp_path, CONTAINERS[container], is_archive)
    assert read(file) == TEXT
    assert file.plain_name in (NAME, "real", "c")


def zip_with(method=None, flags=0, mode=0, data=TEXT):
    """A zip archive whose headers say something else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(NAME)
        entry.external_attr = mode << 16
        archive.writestr(entry, data)
    content = bytearray(buffer.getvalue())
    for start, place in ((content.index(b"PK\x03\x04"), 6), (content.index(b"PK\x01\x02"), 8)):
        struct.pack_into("<H", content, start + place, flags)
        if method is not None:
            struct.pack_into("<H", content, start + place + 2, method)
    return bytes(content)


def overlapping():
    """Two entries of a zip archive with the same bytes."""
    content = zipped([("a", TEXT), (NAME, TEXT)], zipfile.ZIP_STORED)
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    return content[: second + 42] + struct.pack("<I", 0) + content[second + 46 :]


def large_dictionary():
    content = bytearray(zipped([(NAME, TEXT)], zipfile.ZIP_LZMA))
    struct.pack_into("<I", content, 30 + len(NAME) + 5, 2**31)
    return bytes(content)


REFUSED_ARCHIVES = {
    "of one name": (zipped([(NAME, TEXT), (f"./{NAME}", b"other")]), rf"has both '\./{NAME}' and '{NAME}'"),
    "of one name in two folders": (
        tarred([(f"a/{NAME}", TEXT), (f"b/{NAME}", TEXT)]),
        f"both 'a/{NAME}' and 'b/{NAME}'",
    ),
    "of one name in a tar": (tarred([(NAME, TEXT), (NAME, b"other")]), f"has both '{NAME}' and '{NAME}'"),
    "deflate64": (zip_with(9), "is compressed by deflate64; expected stored, deflate, bzip2, LZMA"),
    "unknown method": (zip_with(77), "is compressed by method 77"),
    "encrypted": (zip_with(flags=1), "is encrypted"),
    "AES": (zip_with(99), "is encrypted"),
    "zip link": (zip_with(mode=stat.S_IFLNK, data=b"../../etc/passwd"), r"is a link to '\.\./\.\./etc/passwd'"),
    "overlap": (overlapping(), f"'a' and '{NAME}' overlap"),
    "LZMA dictionary": (large_dictionary(), "needs 2147483648 bytes"),
    "link to nothing": (tarred([(NAME, tarfile.SYMTYPE, "nothing")]), "is a link to 'nothing'"),
    "link out": (tarred([(NAME, tarfile.SYMTYPE, "../../x")]), r"is a link to '\.\./\.\./x'"),
    "link to the root": (tarred([(NAME, tarfile.LNKTYPE, "/etc/passwd")]), "is a link to '/etc/passwd'"),
    "link to itself": (tarred([(NAME, tarfile.SYMTYPE, NAME)]), "is a link"),
    "circle": (tarred([(NAME, tarfile.SYMTYPE, "b"), ("b", tarfile.LNKTYPE, NAME)]), "is a link to 'b'"),
    "escape codes": (tarred([(f"\x1b[2J/{NAME}", TEXT), (f"\n/{NAME}", TEXT)]), r"'\\n/.* and '\\x1b\[2J"),
    "damaged header": (tarred([("a", b"b"), (NAME, TEXT)]).replace(NAME.encode(), b"other.tsv"), "is damaged"),
    "cut tar": (tarred(SOUND)[:20_000], "cannot be read"),
    "cut tar.gz": (gzip.compress(tarred(SOUND))[:2000], "cannot be read"),
    "cut tar.xz": (lzma.compress(tarred(SOUND))[:300], "ends within its compressed data"),
    "empty": (b"", "expected a folder, or a zip or tar archive"),
    "tar.zst": (b"\x28\xb5\x2f\xfd" + bytes(99), "is compressed by Zstandard"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "is a 7z archive"),
    "rar": (b"Rar!\x1a\x07" + bytes(99), "is a RAR archive"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED_ARCHIVES.values(), ids=REFUSED_ARCHIVES.keys())
def test_other_archives_are_refused_by_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=r"source.*" + message) as error:
        read(opened(tmp_path, content, is_archive=True))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("content", [zipped([]), tarred([]), zipped([("folder/", b"")])])
def test_an_archive_without_the_file_says_so(tmp_path, content):
    with pytest.raises(FileNotFoundError, match=rf"source has no {NAME}"):
        opened(tmp_path, content, is_archive=True)


REFUSED_FILES = {
    **{f"{name} cut": (compress(TEXT)[:-9], "expected a") for name, compress in COMPRESS.items()},
    **{f"{name} and garbage": (compress(TEXT) + b"garbage", "expected a") for name, compress in COMPRESS.items()},
    **{
        f"{name}, second stream damaged": (compress(TEXT) + b"\1" + compress(TEXT)[1:], "expected a")
        for name, compress in COMPRESS.items()
    },
    "xz of much memory": (
        lzma.compress(TEXT, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]),
        "Memory usage limit",
    ),
    "zip": (zipped([(NAME, TEXT)]), "is a zip archive; expected a file that is plain or compressed by gzip"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(99), "is compressed by LZ4"),
    "LZMA": (lzma.compress(TEXT, format=lzma.FORMAT_ALONE), "is compressed by LZMA in its old format"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED_FILES.values(), ids=REFUSED_FILES.keys())
def test_other_files_are_refused_by_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"{NAME}.*{message}") as error:
        read(opened(tmp_path, content, is_archive=False))
    assert str(error.value).isprintable()


def test_a_compressed_file_is_found_beside_others(tmp_path):
    (tmp_path / f"{NAME}.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(9))
    with pytest.raises(ValueError, match=r"plays\.tsv\.zst is compressed by Zstandard"):
        read(find_file(tmp_path, NAME))
    (tmp_path / f"{NAME}.xz").write_bytes(lzma.compress(TEXT))
    assert read(find_file(tmp_path, NAME)) == TEXT


def test_links_lead_to_files_of_the_folder_only(tmp_path):
    outside, folder, named = tmp_path / "outside.tsv", tmp_path / "folder", tmp_path / "named"
    outside.write_bytes(TEXT)
    (folder / "real").mkdir(parents=True)
    (folder / "real" / "data").write_bytes(TEXT)
    named.symlink_to(folder)
    link = folder / NAME
    link.symlink_to("real/data")
    assert read(find_file(folder, NAME)) == read(find_file(named, NAME)) == TEXT
    for target in (outside, "../outside.tsv", "nothing", NAME, "real"):
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(ValueError, match=rf"{NAME} leads to .*; expected a regular file in the folder"):
            find_file(named, NAME)
    link.unlink()
    link.symlink_to(outside)
    assert read(find_file(link, NAME)) == TEXT
    with pytest.raises(FileNotFoundError, match="absent: no such file"):
        file_below(folder, "absent")


def bomb(kind, size=16 << 20):
    """A small container of a large header, of many members, or of many lines."""
    lines = b"\n" * size
    match kind:
        case "zip deflate" | "zip bzip2" | "zip lzma":
            return zipped([(NAME, lines)], getattr(zipfile, f"ZIP_{kind[4:].upper()}".replace("DEFLATE", "DEFLATED")))
        case "gz" | "bz2" | "xz":
            return COMPRESS[kind](tarred([("before", lines[: 1 << 20]), (NAME, lines)]))
        case "tar header":
            return gzip.compress(tarred([("x" * size, b""), (NAME, TEXT)]))
        case "pax header":
            return gzip.compress(tarred([("é" * (size // 4), b""), (NAME, TEXT)], tarfile.PAX_FORMAT))
        case "members":
            header = tarfile.TarInfo("a").tobuf()
            return gzip.compress(header * 600 + tarred([(NAME, TEXT)]))


@pytest.mark.parametrize(
    ("kind", "message"),
    [("tar header", "headers have"), ("pax header", "headers have"), ("members", "members or more")],
)
def test_headers_are_bounded(tmp_path, monkeypatch, kind, message):
    monkeypatch.setattr(archives, "_MAX_MEMBERS", 500)
    content = bomb(kind)
    with peak_below(2 << 20), pytest.raises(ValueError, match=message):
        opened(tmp_path, content, is_archive=True)


SLOW_KINDS = [
    ("xz", 24 << 20, 16 << 20),
    ("zip bzip2", 300 << 20, 160 << 20),
    ("zip lzma", 60 << 20, 20 << 20),
    ("gz", 90 << 20, 4 << 20),
]


@pytest.mark.parametrize(
    ("kind", "size", "most"),
    [
        ("zip deflate", 8 << 20, 2 << 20),
        ("gz", 8 << 20, 2 << 20),
        ("bz2", 12 << 20, 9 << 20),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_KINDS),
    ],
)
def test_a_large_compressed_file_is_read_in_constant_memory(tmp_path, kind, size, most):
    (tmp_path / "source").write_bytes(bomb(kind, size))
    with peak_below(most):
        blocks = text_files.read_blocks(find_file(tmp_path / "source", NAME), size=1 << 16)
        read_bytes = sum(len(block) for _, block in blocks)
    assert read_bytes == size


def mutated(content, rng):
    """The content with a few bytes changed, cut out, repeated or cut off."""
    content = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        content = content or bytearray(b"\0")
        place, length = rng.randrange(len(content)), rng.randrange(1, 40)
        match rng.randrange(4):
            case 0:
                content[place] = rng.randrange(256)
            case 1:
                del content[place : place + length]
            case 2:
                content[place:place] = content[place : place + length]
            case 3 if len(content) > place > 0:
                del content[place:]
    return bytes(content)


def fuzz(folder, container, cases, seed):
    """Reads mutations of a container. What a checksum guards is right or refused."""
    rng, whole = random.Random(f"{container} {seed}"), CONTAINERS[container]
    for _ in range(cases):
        content = mutated(whole, rng)
        try:
            rows = read(opened(folder, content, is_archive=container in ARCHIVES))
        except (ValueError, OSError) as error:
            assert str(error).isprintable()  # noqa: PT017
            continue
        if not container.startswith(("plain", "tar")) or container.startswith("tar."):
            # Without its first bytes a compressed file is text of another kind, without its second stream a whole one.
            is_cut_between_streams = whole.startswith(content) and rows == TEXT[:999]
            assert rows == TEXT or rows[:7] != TEXT[:7] or is_cut_between_streams, container


FUZZED = (
    "gz",
    "bz2",
    "xz",
    "gz of two streams",
    "zip 8",
    "zip 12",
    "zip 14",
    "tar",
    "tar pax",
    "tar.gz",
    "tar symlink",
)


@pytest.mark.parametrize("container", FUZZED)
def test_a_damaged_container_is_read_right_or_refused(tmp_path, container):
    fuzz(tmp_path, container, 25, 0)


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_many_damaged_containers_are_read_right_or_refused(tmp_path, container):
    fuzz(tmp_path, container, 3000, 1)
