"""The tables of a store, a digest of every row, and the rules that a store has to obey before anything in it is used.

Paid answers of users are in these files, so that tables, columns and states keep the names of version 1: the table
`wordings` holds prompt hashes (`mark`) and request keys, the state "settled" means answered, "released" unbilled.
Version 2 has added the table `digests`. The program's own connection fills it by temporary triggers, so that a row
that anything else has changed, added or deleted is recognized. Version 3 has added `adaptations`: the fields of a
request that a server refuses, and what is sent instead.
"""

import functools
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final

from alkd_jax.errors import printable, shown
from alkd_jax.llm.database import ADVICE, Database, StoreError
from alkd_jax.llm.parsing import STATUSES

APPLICATION: Final = 0x414C4B44
VERSION: Final = 3
DIGESTS_VERSION: Final = 2
"""Version from which rows have digests."""
MAX_AMOUNT: Final = 10**15
"""Pico-dollars, or tokens, of one attempt at most: a thousand dollars. The sum of nine thousand fits into 64 bits."""

_VERSION_1 = """
CREATE TABLE requests (key TEXT PRIMARY KEY, kind TEXT NOT NULL, session_id INTEGER NOT NULL, endpoint TEXT NOT NULL,
    model TEXT NOT NULL, candidates TEXT NOT NULL, size INTEGER NOT NULL, body BLOB);
CREATE TABLE attempts (id INTEGER PRIMARY KEY, key TEXT NOT NULL, batch TEXT, state TEXT NOT NULL,
    reserved INTEGER NOT NULL, cost INTEGER NOT NULL, tokens INTEGER NOT NULL, basis TEXT, error TEXT,
    http_status INTEGER, sent_at REAL NOT NULL, done_at REAL);
CREATE INDEX attempts_by_state ON attempts (state, batch);
CREATE INDEX attempts_by_key ON attempts (key);
CREATE TABLE answers (attempt INTEGER PRIMARY KEY, key TEXT NOT NULL, finish_reason TEXT, refusal TEXT, content TEXT,
    usage TEXT, model TEXT, fingerprint TEXT, tier TEXT, provider_id TEXT, raw BLOB, status TEXT, items TEXT,
    hints TEXT, repairs TEXT, usable INTEGER, parser INTEGER);
CREATE INDEX answers_by_key ON answers (key, attempt, status, parser, usable, repairs);
CREATE TABLE batches (shard TEXT PRIMARY KEY, input_file TEXT, batch TEXT, status TEXT, output_file TEXT,
    error_file TEXT);
"""

_ADDED = """
CREATE TABLE wordings (mark BLOB PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE digests (name TEXT NOT NULL, row NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (name, row)) WITHOUT ROWID;
"""

_ADAPTATIONS = """
CREATE TABLE adaptations (id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL, field TEXT NOT NULL,
    value TEXT);
"""

TABLES: Final = _VERSION_1 + _ADDED + _ADAPTATIONS

_AMOUNT = f"an integer from 0 to {MAX_AMOUNT}"
_STATES = "'sent', 'settled', 'possible', 'released', 'imported'"
_NAMES = ", ".join(f"'{status}'" for status in STATUSES)
_FIELDS = "'max_tokens_field', 'structured', 'temperature', 'seed', 'reasoning_effort', 'system_role'"
_RULES = (
    ("requests", "session_id", "typeof(session_id) = 'integer'", "an integer"),
    ("requests", "size", f"typeof(size) = 'integer' AND size BETWEEN 0 AND {MAX_AMOUNT}", _AMOUNT),
    ("requests", "candidates", "is_listed(candidates, NULL, kind)", "a JSON list of distinct items from 1"),
    ("attempts", "key", "key IN (SELECT key FROM requests)", "the key of a request"),
    ("attempts", "state", f"state IN ({_STATES})", f"one of {_STATES}"),
    *(
        ("attempts", name, f"typeof({name}) = 'integer' AND {name} BETWEEN 0 AND {MAX_AMOUNT}", _AMOUNT)
        for name in ("reserved", "cost", "tokens")
    ),
    (
        "attempts",
        "state",
        "(state IN ('settled', 'imported')) = (id IN (SELECT attempt FROM answers))",
        "'settled' or 'imported' for attempts with an answer, and no other",
    ),
    ("answers", "attempt", "key = (SELECT a.key FROM attempts a WHERE a.id = attempt)", "an attempt at the same key"),
    ("answers", "status", f"status IS NULL OR status IN ({_NAMES})", f"one of {_NAMES}"),
    (
        "answers",
        "items",
        "status IS NULL OR (SELECT is_listed(answers.items, r.candidates, r.kind) FROM requests r "
        "WHERE r.key = answers.key)",
        "a JSON list of distinct items that are among the candidates of the question",
    ),
    ("answers", "hints", "status IS NULL OR is_texts(hints)", "a JSON list of texts"),
    ("answers", "repairs", "status IS NULL OR is_counts(repairs)", "a JSON object of counts"),
    ("answers", "usage", "usage IS NULL OR is_counts(usage)", "a JSON object of counts"),
    ("wordings", "key", "typeof(mark) = 'blob' AND typeof(key) = 'text'", "a text"),
    ("adaptations", "field", f"field IN ({_FIELDS})", f"one of {_FIELDS}"),
)
"""Of each rule: table, column, a condition that every row fulfils, and what is expected of the column's value."""


@functools.cache
def columns() -> Mapping[str, tuple[str, ...]]:
    """Returns table → its columns, the first of which identifies a row; without the table of the digests."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(TABLES)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    tables.remove("digests")
    found = {table: tuple(row[1] for row in connection.execute(f"PRAGMA table_info({table})")) for table in tables}
    connection.close()
    return found


def _digest_of(table: str, prefix: str = "") -> str:
    """Returns the SQL expression for the digest of a table's row."""
    return f"row_digest('{table}', {', '.join(prefix + column for column in columns()[table])})"


def row_digest(*values: Any) -> bytes:
    """Returns a digest of a row's values; blobs enter as hexadecimal digits."""
    return hashlib.blake2b(json.dumps(values, default=bytes.hex).encode(), digest_size=16).digest()


def add_functions(connection: sqlite3.Connection) -> None:
    """Adds the functions that the digests and the rules use to a connection."""
    connection.create_function("row_digest", -1, row_digest, deterministic=True)
    connection.create_function("is_listed", 3, _is_listed, deterministic=True)
    connection.create_function("is_texts", 1, _is_texts, deterministic=True)
    connection.create_function("is_counts", 1, _is_counts, deterministic=True)


def keep_digests(connection: sqlite3.Connection) -> None:
    """Makes every row that a connection writes get its digest; other connections do not."""
    for table, names in columns().items():
        new = f"INSERT OR REPLACE INTO digests VALUES ('{table}', NEW.{names[0]}, {_digest_of(table, 'NEW.')});"
        for event in ("INSERT", "UPDATE"):
            name = f"digest_{table}_{event.lower()}"
            connection.execute(f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{table} BEGIN {new} END")


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Brings a checked store of an earlier version to this version, within a transaction."""
    for statement in _statements(_ADDED + _ADAPTATIONS):
        connection.execute(statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
    if version < DIGESTS_VERSION:
        for table, names in columns().items():
            connection.execute(f"INSERT INTO digests SELECT '{table}', {names[0]}, {_digest_of(table)} FROM {table}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def check(database: Database) -> None:
    """Checks a whole store: the file by SQLite, its tables, the digest of every row, and the rules of the values.

    Args:
        database: with :func:`add_functions` applied.

    Raises:
        StoreError: something is damaged or was edited; the error names file and row and says what can be done.
    """
    try:
        problem = database.use(lambda connection: next(_problems(connection, database.version), None))
    except StoreError as error:
        problem = f"damaged ({printable(error.__cause__, width=150)})"
    if problem is not None:
        raise StoreError(f"{database.path}: {problem}; {ADVICE}")


def _problems(connection: sqlite3.Connection, version: int) -> Iterator[str]:
    """Yields what is wrong with a store; what comes after the first problem may follow from it."""
    query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    found = {str(name): " ".join(str(sql).split()) for name, sql in connection.execute(query)}
    expected = {sql.split()[2]: " ".join(sql.split()) for sql in _statements(TABLES)}
    tables = [table for table in columns() if table in found]
    if version < VERSION:
        found.setdefault("adaptations", expected["adaptations"])
    if version < DIGESTS_VERSION:
        del expected["digests"]
        found.setdefault("wordings", expected["wordings"])
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            state = "missing" if name not in found else "altered" if name in expected else "no part of a store"
            yield f"{shown(name)} is {state}; expected the tables and indices of a store"
    for (text,) in connection.execute("PRAGMA integrity_check(1)"):
        if text != "ok":
            yield f"damaged ({printable(text.splitlines()[-1], width=150)})"
    if version >= DIGESTS_VERSION:
        yield from _edited_rows(connection, tables)
    if (problem := broken_rule(connection)) is not None:
        yield problem


def broken_rule(connection: sqlite3.Connection) -> str | None:
    """Returns which row has a value of the wrong type or out of its range, or None.

    Args:
        connection: with :func:`add_functions` applied.
    """
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    for table, column, rule, expected in _RULES:
        query = f"SELECT {columns()[table][0]}, {column} FROM {table} WHERE NOT COALESCE({rule}, 0) LIMIT 1"
        row = connection.execute(query).fetchone() if table in names else None
        if row is not None:
            return f"table {table}, row {shown(row[0])}: {column} is {shown(row[1])}; expected {expected}"
    return None


def _edited_rows(connection: sqlite3.Connection, tables: list[str]) -> Iterator[str]:
    """Yields the first row of each table that is not as it was written, or is missing, by the digests."""
    for table in tables:
        row = columns()[table][0]
        # The plus sign leaves the key its type; a column would have it converted, and SQLite could not use the index.
        changed = (
            f"SELECT t.{row}, d.digest IS NULL FROM {table} t "
            f"LEFT JOIN digests d ON d.name = '{table}' AND d.row = +t.{row} "
            f"WHERE d.digest IS NOT {_digest_of(table, 't.')} LIMIT 1"
        )
        for key, is_new in connection.execute(changed):
            what = "was added by hand" if is_new else "was edited by hand or damaged"
            yield f"table {table}, row {shown(key)}: {what}; expected the row as it was written"
        deleted = f"SELECT row FROM digests WHERE name = '{table}' AND row NOT IN (SELECT {row} FROM {table}) LIMIT 1"
        for (key,) in connection.execute(deleted):
            yield f"table {table}, row {shown(key)}: was deleted by hand; expected the row as it was written"
    known = ", ".join(f"'{table}'" for table in tables)
    for name, key in connection.execute(f"SELECT name, row FROM digests WHERE name NOT IN ({known}) LIMIT 1"):
        yield f"table digests, row {shown(key)}: name is {shown(name)}; expected a table"


def _statements(script: str) -> list[str]:
    return [statement.strip() for statement in script.split(";") if statement.strip()]


def _loaded(text: Any) -> Any:
    """Returns the value of a JSON text, or None."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _is_listed(text: Any, candidates: Any, kind: Any) -> bool:
    """Whether a text is a JSON list of distinct items, which are among the candidates where these are given.

    In questions about an item, of the kind "precede", the item 0 stands for "none of these".
    """
    items, least = _loaded(text), 0 if kind == "precede" else 1
    if not isinstance(items, list) or not all(type(item) is int and item >= least for item in items):
        return False
    return len(set(items)) == len(items) and (candidates is None or set(items) <= set(_loaded(candidates) or ()))


def _is_texts(text: Any) -> bool:
    texts = _loaded(text)
    return isinstance(texts, list) and all(isinstance(member, str) for member in texts)


def _is_counts(text: Any) -> bool:
    """Whether a text is a JSON object of integers that are not negative."""
    counts = _loaded(text)
    return isinstance(counts, dict) and all(type(count) is int and count >= 0 for count in counts.values())
