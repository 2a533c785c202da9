import subprocess
import sys

import pytest

from experiments.pipeline.exits import one_line_errors


def run(code, **options):
    """Runs a block in a process of its own, as a command does."""
    source = f"from experiments.pipeline.exits import one_line_errors\nwith one_line_errors():\n    {code}\n"
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, **options)


def test_a_users_error_is_one_line_on_the_error_stream_with_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise ValueError("seeds is 0; expected at least 1")
    streams = capsys.readouterr()
    assert (stop.value.code, streams.out, streams.err) == (2, "", "error: seeds is 0; expected at least 1\n")


def test_a_bug_keeps_its_traceback_and_asks_for_a_report():
    with pytest.raises(IndexError) as bug, one_line_errors():
        [][0]
    assert "not a part of alkd_jax" in bug.value.__notes__[0]


def test_a_command_within_another_asks_once():
    with pytest.raises(IndexError) as bug, one_line_errors(), one_line_errors():
        [][0]
    assert len(bug.value.__notes__) == 1


def test_a_process_ends_with_the_code_of_its_error():
    assert run("raise KeyboardInterrupt").returncode == 130
    assert run("open('/absent/file')").stderr == "error: /absent/file: no such file or folder\n"
    bug = run("from alkd_jax.io import read_json; read_json(0.5)")
    assert bug.returncode == 1
    assert "Traceback" in bug.stderr
    assert bug.stderr.rstrip().endswith(
        "This is a bug of alkd_jax. Please report it, with the command and all lines above."
    )


def test_letters_that_a_terminal_lacks_do_not_end_a_command():
    done = run("print('Größe …')", env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": "."})
    assert (done.returncode, done.stdout) == (0, "Gr\\xf6\\xdfe \\u2026\n")


def test_a_reader_of_the_output_that_has_gone_ends_a_command_quietly():
    source = "from experiments.pipeline.exits import one_line_errors\nwith one_line_errors():\n    print('x' * 10**6)"
    command = f'{sys.executable} -c "{source}" | head -c 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (141, "x", "")
