"""Rows of a small file, the file as Python's csv writes it, and copies of it with a few bytes damaged."""

import csv
import io

ROWS = [(f"u{n % 5}", f"i{n % 9}", str(1_400_000_000 + n)) for n in range(60)]
TITLES = [(f"i{n}", f"title {n}") for n in range(9)]


def separated(header, rows, separator=",", quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n", quoting=quoting).writerows([header, *rows])
    return text.getvalue().encode()


def pairs(log):
    return [(log.user_ids[user], log.item_ids[item]) for user, item in zip(log.user, log.item, strict=True)]


def mutate(rng, content):
    """Changes, drops, repeats or inserts a few bytes, with those that formats give a meaning more often."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place, byte = (
            int(rng.integers(len(content) + 1)),
            int(rng.choice([*b"\"'\n\r\t,;\\{}[]\0\xff\xef", rng.integers(256)])),
        )
        match rng.integers(4):
            case 0:
                content[place : place + 1] = bytes([byte])
            case 1:
                content[place:place] = bytes([byte])
            case 2:
                del content[place : place + int(rng.integers(1, 40))]
            case _:
                content[place:place] = content[place : place + int(rng.integers(1, 200))]
    return bytes(content)
