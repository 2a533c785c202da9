"""Several processes compute one result: that of one process, whichever of them ends in between."""

import json
import re
import signal
import time

import numpy as np
import pytest

from tests.helpers import processes

pytestmark = pytest.mark.slow
REPRODUCE = ["--data", "synthetic", "--backbone", "fpmc", "--seeds", "2", "--teacher-dim", "12", "--budget", "40"]
REPRODUCE += ["--selection", "own", "--methods", "short"]
SHORT = [*REPRODUCE, "--max-steps", "20"]
TRAIN = ["--source", "synthetic", "--backbone", "sasrec", "--loss", "sampled_softmax", "--max-epochs", "2"]
TRAIN += ["--batch-size", "64", "--dim", "8", "--max-length", "8"]


def run(module, options, out, folder, **how):
    """Runs a command to its end in several processes, and returns what the first one printed."""
    started = processes.start(module, [*options, "--out", str(out)], folder, **how)
    codes = processes.wait(started)
    assert set(codes) == {0}, (codes, processes.printed(folder))
    assert not any(processes.printed(folder, "out")[1:])
    return processes.printed(folder, "out")[0]


def results_of(out):
    return json.loads((out / "metrics.json").read_text())["methods"]


def assert_same_to_the_bit(one, other):
    assert results_of(one) == results_of(other)
    files = [file.relative_to(one) for file in one.rglob("*.npz")]
    assert files
    for file in files:
        with np.load(one / file) as first, np.load(other / file) as second:
            for name in set(first) - {"sessions_per_second"}:
                np.testing.assert_array_equal(first[name], second[name], err_msg=f"{file}: {name}")


def await_training(out, name, started, *, lines=3):
    """Waits until a training has had some validations."""
    curves, end = out / "training" / name / "curves.jsonl", time.monotonic() + 300
    while not curves.exists() or curves.read_text().count("\n") < lines:
        assert time.monotonic() < end
        assert all(process.poll() is None for process in started)
        time.sleep(0.05)


def test_processes_with_the_same_devices_compute_the_same_bits(tmp_path):
    options = [*SHORT, "--mesh", "data=2,model=2"]
    for count, num_devices in ((1, 4), (4, 1), (2, 2)):
        how = {"count": count, "num_devices": num_devices}
        run("experiments.reproduce", options, tmp_path / f"{count}", tmp_path / f"log-{count}", **how)
    for count in (4, 2):
        assert_same_to_the_bit(tmp_path / "1", tmp_path / f"{count}")


def test_two_processes_compute_what_one_device_computes(tmp_path):
    run("experiments.reproduce", SHORT, tmp_path / "1", tmp_path / "log-1", count=1)
    run("experiments.reproduce", SHORT, tmp_path / "2", tmp_path / "log-2", count=2)
    one, other = results_of(tmp_path / "1"), results_of(tmp_path / "2")
    assert one.keys() == other.keys()
    for name, columns in one.items():
        for metric, column in columns.items():
            tolerance = 0.1 * max(column["std"], 1e-2)
            assert abs(column["mean"] - other[name][metric]["mean"]) <= tolerance, (name, metric)


def test_train_works_in_two_processes(tmp_path):
    run("experiments.train", TRAIN, tmp_path / "1", tmp_path / "log-1", count=1, num_devices=2)
    printed = run("experiments.train", TRAIN, tmp_path / "2", tmp_path / "log-2", count=2)
    assert re.search(r"^train: ", printed, re.MULTILINE)
    assert (tmp_path / "2" / "student").is_dir()
    one, other = (results_of(tmp_path / name)["sasrec"]["recall@10"]["mean"] for name in "12")
    assert one == pytest.approx(other, abs=0.02)


LONG = [*REPRODUCE, "--max-steps", "400"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of a run that nothing interrupts, on one device."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run("experiments.reproduce", LONG, folder / "run", folder / "log", count=1)
    return results_of(folder / "run")


def assert_close(found, expected):
    for name, columns in expected.items():
        for metric, column in columns.items():
            np.testing.assert_allclose(
                found[name][metric]["mean"], column["mean"], atol=0.1 * max(column["std"], 2e-2), err_msg=name
            )


def test_a_killed_process_ends_the_others_and_another_number_continues(tmp_path, undisturbed):
    """Each of four processes is killed once, in another training; then two processes continue, and then one."""
    out = tmp_path / "run"
    for killed, name in enumerate(["teacher", "student", "distilled/Random", "distilled/ALKDRec"]):
        log = tmp_path / f"log-{killed}"
        count = 4 if killed % 2 == 0 else 2
        victim = killed % count
        started = processes.start("experiments.reproduce", [*LONG, "--out", str(out)], log, count=count)
        await_training(out, name, started, lines=12)
        started[victim].kill()
        killed_at = time.monotonic()
        codes = processes.wait(started, timeout=60)
        assert time.monotonic() - killed_at < 30
        assert all(code != 0 for code in codes)
        lines = [text for number, text in enumerate(processes.printed(log)) if number != victim and text]
        assert lines, "nothing says what happened"
        for text in lines:
            assert re.fullmatch(r"error: .*process.*; run the same command again to continue\n", text)
    run("experiments.reproduce", LONG, out, tmp_path / "log-last", count=1)
    assert_close(results_of(out), undisturbed)


@pytest.mark.parametrize("to", [[0], [1], [0, 1]])
def test_sigterm_saves_once_and_ends_all(tmp_path, undisturbed, to):
    out, log = tmp_path / "run", tmp_path / "log"
    started = processes.start("experiments.reproduce", [*LONG, "--out", str(out)], log, count=2)
    await_training(out, "student", started)
    for index in to:
        started[index].send_signal(signal.SIGTERM)
    codes = processes.wait(started, timeout=90)
    assert all(codes[index] == 143 for index in to), (codes, processes.printed(log))
    assert all(codes)
    assert re.fullmatch(r".*run the same command again to continue\n", processes.printed(log)[0])
    steps = [int(step.name) for step in next((out / "training" / "student").glob("state-*/steps")).iterdir()]
    last = json.loads((out / "training" / "student" / "curves.jsonl").read_text().splitlines()[-1])["step"]
    assert max(steps) == last, "the last validation is saved"
    run("experiments.reproduce", LONG, out, tmp_path / "log-last", count=1)
    assert_close(results_of(out), undisturbed)


def test_a_users_error_is_one_line_of_the_first_process(tmp_path):
    log = tmp_path / "log"
    bad = [*SHORT, "--out", str(tmp_path / "run"), "--mesh", "data=1"]
    codes = processes.wait(processes.start("experiments.reproduce", bad, log, count=2), timeout=120)
    assert codes == [2, 2]
    assert processes.printed(log)[1] == ""
    assert re.fullmatch(r"error: mesh is data=1,model=1; expected devices of all 2 .*\n", processes.printed(log)[0])


def test_no_cluster_and_a_bad_address_are_one_line(tmp_path):
    for number, text in enumerate(("auto", "localhost:1,2", "localhost:99999,2,0")):
        options = [*SHORT, "--out", str(tmp_path / "run"), "--distributed", text]
        log = tmp_path / f"log-{number}"
        assert processes.wait(processes.start("experiments.reproduce", options, log, count=1), timeout=120) == [2]
        assert re.fullmatch(r"error: --distributed is '.*\n", processes.printed(log)[0])
    assert not (tmp_path / "run").exists()
