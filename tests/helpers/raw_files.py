"""Raw files as the sources ship them, written from the authors' sessions, so that the way back can be proved."""

import gzip
import json
import zipfile

import numpy as np

from alkd_jax.data.pandas_frames import read_frame

_DAY = 86_400
_START = 1_100_000_000 // _DAY * _DAY


def released_rows(release, name):
    """The rows of the authors' pickle in the order they were made in, and the titles' file's rows."""
    import csv

    frame = read_frame(release / name / f"{name}.pkl")
    rows = [[*session, label] for session, label in zip(frame.columns["session"], frame.columns["label"], strict=True)]
    by_index = dict(zip(frame.index.tolist(), rows, strict=True))
    with (release / name / f"{name}_title.csv").open(encoding="utf-8", newline="") as file:
        titles = [tuple(row) for row in csv.reader(file)][1:]
    return [by_index[index] for index in sorted(by_index)], titles


def user_days(rows):
    """Sessions as (user number, day, items); users have one to seven sessions on consecutive days."""
    user, left = 74, 0
    for number, items in enumerate(rows):
        if not left:
            user, left = user + 1 + number % 3, 1 + number * 7919 % 7
        yield user, 8 - left, items
        left -= 1


def write_hetrec(
    folder, rows, titles, *, zipped=False, columns=("userID", "movieID", "rating", "timestamp"), mixed=None
):
    """`movies.dat` and the ratings, CRLF and ISO-8859-1, times in milliseconds; sessions outside 5..19 between them."""
    extra = "\t".join(f"x{n}" for n in range(18))
    lines = ["id\ttitle\timdbID\t" + extra, *(f"{item}\t{title}\t0114709\t{extra}" for item, title in titles)]
    movies = "\r\n".join([*lines, "65133\t\\N\t0\t" + extra, ""]).encode("iso-8859-1")
    ratings = ["\t".join(columns)]
    for user, day, items in user_days(rows):
        start = (_START + day * _DAY) * 1000
        # up to 90 minutes of one day in UTC, which other places' midnights cut
        hour = start + (user * 5 + day * 7) % 23 * 3_600_000
        for place, item in enumerate(items):
            value = {"userID": user, "movieID": item, "rating": 3.5, "timestamp": hour + place * 300_000}
            ratings.append("\t".join(str(value[column]) for column in columns))
        for place, (item, _) in enumerate(titles[: 4 if day % 2 else 20]):
            value = {"userID": user, "movieID": item, "rating": 1, "timestamp": start + (400 * _DAY + place) * 1000}
            ratings.append("\t".join(str(value[column]) for column in columns))
    if mixed is not None:
        ratings[1:] = [ratings[1 + row] for row in np.random.default_rng(mixed).permutation(len(ratings) - 1)]
    text = "\r\n".join([*ratings, ""]).encode()
    files = {"movies.dat": movies, "user_ratedmovies-timestamps.dat": text, "readme.txt": b"statistics"}
    if zipped:
        with zipfile.ZipFile(folder / "hetrec2011-movielens-2k-v2.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return folder / "hetrec2011-movielens-2k-v2.zip"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def lengthened(items, least=5):
    """At least five interactions that come to the same items when repeats of earlier ones are dropped."""
    return items + [items[place % len(items)] for place in range(least - len(items))]


def write_amazon(folder, rows, titles, *, year=2018):
    """Reviews and metadata, gzipped JSON lines, Python literals for 2014; times of day resolution, all tied."""
    user_key, item_key, time_key = {
        2014: ("reviewerID", "asin", "unixReviewTime"),
        2018: ("reviewerID", "asin", "unixReviewTime"),
        2023: ("user_id", "parent_asin", "timestamp"),
    }[year]
    scale = 1000 if year == 2023 else 1
    folder.mkdir(parents=True, exist_ok=True)
    reviews, meta = folder / "Video_Games.json.gz", folder / "meta_Video_Games.json.gz"
    with gzip.open(reviews, "wt", compresslevel=1) as file:
        for user, day, items in user_days(rows):
            for item in lengthened(items):
                row = {"overall": 5.0, "reviewText": 'a "fine" game\tindeed', user_key: f"A{user:012d}", item_key: item}
                file.write(json.dumps({**row, time_key: (_START + day * _DAY) * scale}) + "\n")
    with gzip.open(meta, "wt", compresslevel=1, encoding="utf-8") as file:
        for item, title in titles:
            row = {item_key: item, "brand": "it's", "title": title}
            if not title:
                del row["title"]
            file.write((repr(row) if year == 2014 else json.dumps(row)) + "\n")
    return reviews, meta
