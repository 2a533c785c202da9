"""Calls of a command's entry point within the test's process."""


def call(main, arguments, monkeypatch, capsys):
    """Exit status and output, in one line, of a command with these arguments."""
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    streams = capsys.readouterr()
    return code, " ".join((streams.out + streams.err).split())
