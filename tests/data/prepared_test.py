"""The prepared folder: equal to what went in, refused when changed; and the command that makes it."""

import json

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.data.readers import registry
from alkd_jax.io import sha256_of
from experiments import prepare as command
from tests.helpers import raw_files


def small(folder, *, bad=()):
    rows = [[f"{1 + (n * 5 + place) % 40}" for place in range(5 + n % 9)] for n in range(60)]
    source = raw_files.write_hetrec(folder, rows, [(str(n), f"Film {n} é") for n in range(1, 41)])
    path = source / "user_ratedmovies-timestamps.dat"
    path.write_bytes(path.read_bytes() + b"".join(line + b"\r\n" for line in bad))
    return source


def ask(source, out, **options):
    return command.run(command.Preparation(source=f"hetrec2011:{source}", out=out, **options))


@pytest.fixture
def folder(tmp_path):
    ask(small(tmp_path / "raw"), tmp_path / "out")
    return tmp_path / "out"


def test_what_is_written_is_loaded(tmp_path):
    log = alkd.data.load_hetrec(small(tmp_path / "raw"))
    made = alkd.data.prepare(log, split=alkd.data.SplitRules("user", seed=3))
    manifest = alkd.data.save_prepared(tmp_path / "out", made)
    found = alkd.data.read_prepared(tmp_path / "out")
    for name in ("time", "user"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
    np.testing.assert_array_equal(found.sequences.items, made.sequences.items)
    assert (found.titles, found.item_ids, found.sizes) == (made.titles, made.item_ids, made.sizes)
    dataset = alkd.data.load_prepared(tmp_path / "out")
    assert dataset.fingerprint == made.dataset().fingerprint == manifest["fingerprint"]
    assert dataset.report["split"]["rule"] == "users at random, each with all sessions"
    assert alkd.data.load_prepared(tmp_path / "out", max_length=3).train.items.shape[1] == 3


def test_the_manifest_says_counts_and_options(folder, tmp_path):
    manifest = json.loads((folder / "manifest.json").read_text())
    dataset = alkd.data.load_prepared(folder)
    assert manifest["sessions"] == 60 == len(dataset.train) + len(dataset.validation) + len(dataset.test)
    assert manifest["items"] == 40
    assert manifest["interactions"] == sum(5 + n % 9 for n in range(60))
    assert manifest["split"] | {"rule": "block", "train": 36, "validation": 12, "test": 12} == manifest["split"]
    assert manifest["options"]["sessions"]["time_zone"] == "UTC"
    assert manifest["options"]["asked"]["source"] == f"hetrec2011:{tmp_path / 'raw'}"
    assert manifest["report"]["sessionise"]["sessions_dropped"]["too_long"] > 0


def test_every_experiment_can_take_it(folder):
    source = registry.parse_source(f"prepared:{folder}")
    assert (source.kind, source.name) == ("prepared", "prepared")
    assert registry.read(source.text).fingerprint == alkd.data.load_prepared(folder).fingerprint


def test_two_runs_write_the_same(folder, tmp_path):
    ask(tmp_path / "raw", tmp_path / "again")
    first, second = (json.loads((path / "manifest.json").read_text()) for path in (folder, tmp_path / "again"))
    assert first["fingerprint"] == second["fingerprint"]
    assert first["files"]["items.jsonl"] == second["files"]["items.jsonl"]


def test_strict_stops_at_the_first_bad_row(tmp_path):
    source = small(tmp_path / "raw", bad=[b"1\t2", b"1\t2\t3\tx"])
    manifest = ask(source, tmp_path / "out")
    assert manifest["report"]["bad_rows"]["total"] == 2
    with pytest.raises(ValueError, match=r"timestamps\.dat, line \d+: too few fields: '1\\t2'"):
        ask(source, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize("name", ["sessions.npz", "items.jsonl"])
def test_a_changed_file_is_refused(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-9] + b"\n")
    with pytest.raises(ValueError, match=f"{name} is not the file that was written"):
        alkd.data.load_prepared(folder)


def rewritten(folder, arrays):
    """A folder whose manifest agrees with its arrays, however wrong they are."""
    held = dict(np.load(folder / "sessions.npz")) | arrays
    np.savez(folder / "sessions.npz", **held)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["sessions.npz"] = sha256_of(folder / "sessions.npz")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"items": np.array([object()])}, "llow_pickle|Object arrays"),
        ({"items": np.zeros(3, np.float32)}, "items is float32"),
        ({"items": np.zeros((3, 1), np.int32)}, "expected one axis"),
        ({"time": np.zeros(3, np.int64)}, "another length"),
        ({"offsets": np.zeros(61, np.int64)}, "offsets"),
    ],
)
def test_wrong_arrays_are_refused(folder, arrays, message):
    rewritten(folder, arrays)
    with pytest.raises(ValueError, match=message):
        alkd.data.load_prepared(folder)


def test_items_beyond_the_catalogue_are_refused(folder):
    items = np.load(folder / "sessions.npz")["items"].copy()
    items[5] = 41
    rewritten(folder, {"items": items})
    with pytest.raises(ValueError, match="contain 41; expected at most 40"):
        alkd.data.load_prepared(folder)


def test_other_folders_are_left_alone(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest\.json: no such file"):
        alkd.data.load_prepared(tmp_path / "raw")
    with pytest.raises(ValueError, match="contains other files"):
        ask(tmp_path / "raw", tmp_path / "raw")
    (folder / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format is 99; expected 1"):
        alkd.data.load_prepared(folder)
    ask(tmp_path / "raw", folder)
    assert len(alkd.data.load_prepared(folder).train) == 36


@pytest.mark.parametrize(
    "source", ["hetrec2011", "hetrec2011:", "nothing:a", "srgnn:a", "movielens:a:b", "amazon2018:a:b:c"]
)
def test_unknown_sources_are_refused(source, tmp_path):
    with pytest.raises(ValueError, match="expected one of hetrec2011:PATH"):
        command.run(command.Preparation(source=source, out=tmp_path / "out"))


def test_wrong_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--columns is 'user'"):
        command.run(command.Preparation(source="table:x.csv", out=tmp_path / "out", columns="user"))


def test_split_of_the_source_is_taken(tmp_path):
    lines = ["SessionId\tItemId\tTime", *(f"{n // 6}\t{n % 11}\t{n}" for n in range(240))]
    (tmp_path / "a.tsv").write_text("\n".join(lines))
    options = command.Preparation(source=f"gru4rec:{tmp_path / 'a.tsv'}:{tmp_path / 'a.tsv'}", out=tmp_path / "out")
    manifest = command.run(options)
    assert manifest["split"]["rule"] == "given"
    assert [manifest["split"][name] for name in ("train", "validation", "test")] == [32, 8, 40]
    assert manifest["options"]["sessions"]["boundary"] == "given"
