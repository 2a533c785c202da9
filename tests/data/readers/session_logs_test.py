"""Readers of public session logs, on small files made from what their publishers and users state about the formats."""

import gzip
import json
import zipfile

import polars as pl
import pytest

import alkd_jax as alkd
from alkd_jax.data.readers import registry
from tests.helpers.damaged_files import pairs

DAY = 86_400_000
CLICKS = (
    "1,2014-04-07T10:51:09.277Z,214536502,0\n"
    "1,2014-04-07T10:54:09.868Z,214536500,0\n"
    "2,2014-04-07T13:56:37.614Z,214662742,S\n"
)
VIEWS = [
    "1;NA;81766;526309;2016-05-09",
    "1;NA;31331;1031018;2016-05-10",
    "1;NA;32118;243569;2016-05-09",
    "2;7;9;0;2016-05-11",
]


def sessions_of_log(log):
    found = {}
    for session, item in zip(log.session, log.item, strict=True):
        found.setdefault(log.session_ids[session], []).append(log.item_ids[item])
    return found


@pytest.mark.parametrize("place", ["file", "gzip", "folder", "zip"])
def test_yoochoose_clicks_have_milliseconds_and_no_header(tmp_path, place):
    path = tmp_path / "yoochoose-clicks.dat"
    path.write_text(CLICKS)
    if place == "gzip":
        path = tmp_path / "part.dat.gz"
        path.write_bytes(gzip.compress(CLICKS.encode()))
    elif place == "zip":
        with zipfile.ZipFile(tmp_path / "yoochoose.zip", "w") as archive:
            archive.write(path, "data/yoochoose-clicks.dat")
        path = tmp_path / "yoochoose.zip"
    log = registry.read_interactions(f"yoochoose:{tmp_path if place == 'folder' else path}")
    assert sessions_of_log(log) == {"1": ["214536502", "214536500"], "2": ["214662742"]}
    assert log.time.tolist() == [1396867869277, 1396868049868, 1396878997614]
    assert log.split is None


def test_yoochoose_test_file_is_more_of_the_same(tmp_path):
    (tmp_path / "a.dat").write_text(CLICKS)
    (tmp_path / "b.dat").write_text("5,2014-04-08T10:51:09.277Z,7,0\n5,2014-04-08T10:51:09.277Z,8,0,9\n")
    log = registry.read_interactions(f"yoochoose:{tmp_path}/a.dat:{tmp_path}/b.dat")
    assert (len(log), log.split, list(log.session_ids)) == (4, None, ["1", "2", "5"])
    assert log.report["bad_rows"]["reasons"] == {"too many fields": 1}
    assert log.report["rows_read"] == 5


@pytest.mark.parametrize(
    "header", ["sessionId;userId;itemId;timeframe;eventdate", "session_id;user_id;item_id;timeframe;eventdate"]
)
def test_diginetica_times_count_from_the_first_date_of_the_session(tmp_path, header):
    (tmp_path / "train-item-views.csv").write_text("\n".join([header, *VIEWS]))
    log = registry.read_interactions(f"diginetica:{tmp_path}")
    first = 1_462_752_000_000  # 2016-05-09
    assert log.time.tolist() == [first + 526_309, first + 1_031_018, first + 243_569, first + 2 * DAY]
    assert sessions_of_log(log) == {"1": ["81766", "31331", "32118"], "2": ["9"]}
    rules = alkd.data.SessionRules(boundary="given", min_length=2)
    assert [log.item_ids[item] for item in alkd.data.sessionize(log, rules).item] == ["32118", "81766", "31331"]


def test_diginetica_titles_and_bad_rows(tmp_path):
    bad = [
        "3;NA;5;soon;2016-05-09",
        "3;NA;5;-1;2016-05-09",
        "3;NA;5;1;May",
        "3;NA;;1;2016-05-09",
        "3;NA;5",
        "3;NA;5;1e99;2016-05-09",
    ]
    (tmp_path / "v.csv").write_text("\n".join(["sessionId;userId;itemId;timeframe;eventdate", *VIEWS, *bad]))
    (tmp_path / "products.csv").write_text("itemId;pricelog2;product.name.tokens\n9;10;4875,776\n31331;2;\n")
    log = registry.read_interactions(f"diginetica:{tmp_path}/v.csv:{tmp_path}")
    assert dict(log.titles) == {"9": "4875,776", "31331": ""}
    assert log.report["bad_rows"]["reasons"] == {"too few fields": 1, "no item": 1, "no readable time": 4}
    assert (log.report["rows_read"], log.report["rows_used"]) == (10, 4)


def test_retailrocket_keeps_the_kinds_of_events(tmp_path):
    rows = ["1433221332117,257597,view,355908,", "1433224214164,992329,transaction,248676,4000", "1433224214164,1,,3,"]
    (tmp_path / "events.csv").write_text(
        "\n".join(["timestamp,visitorid,event,itemid,transactionid", *rows, "12,1,view,3,"])
    )
    log = registry.read_interactions(f"retailrocket:{tmp_path}")
    assert pairs(log) == [("257597", "355908"), ("992329", "248676")]
    assert [log.event_names[event] for event in log.event] == ["view", "transaction"]
    assert log.report["events_read"] == {"view": 1, "transaction": 1}
    assert log.report["bad_rows"]["reasons"] == {"no event": 1, "time out of range": 1}
    assert log.time.tolist() == [1433221332117, 1433224214164]


def otto_line(session, *events):
    keys = ("aid", "ts", "type")
    return json.dumps({"session": session, "events": [dict(zip(keys, event, strict=True)) for event in events]})


def test_otto_sessions_of_both_files(tmp_path):
    start = 1_659_304_800_025
    train = [
        otto_line(0, (1, start, "clicks"), (2, start + 5, "carts")),
        otto_line(1, (1, start, "clicks"), (None, start, "orders")),
        otto_line(2),
        '{"session": 3, "events": [7]}',
        otto_line(None, (1, start, "clicks")),
        otto_line(4, (1, start, "clicks"), (3, 5, "clicks")),
        otto_line(5, (1, start, None)),
        "not json",
    ]
    (tmp_path / "otto-recsys-train.jsonl").write_text("\n".join(train))
    (tmp_path / "t.jsonl").write_text(otto_line(9, (2, start, "orders"), (1, start + 9, "clicks")))
    log = registry.read_interactions(f"otto:{tmp_path}:{tmp_path}/t.jsonl")
    assert sessions_of_log(log) == {"0": ["1", "2"], "9": ["2", "1"]}
    assert log.split.tolist() == [0, 0, 2, 2]
    assert [log.event_names[event] for event in log.event] == ["clicks", "carts", "orders", "clicks"]
    assert log.time.tolist() == [start, start + 5, start, start + 9]
    reasons = {"not a JSON object": 1, "no list of events": 2, "no item": 1, "no user": 1, "time out of range": 1}
    assert log.report["bad_rows"]["reasons"] == {**reasons, "no event": 1}
    assert (log.report["rows_read"], log.report["rows_used"]) == (9, 2)


M2_SESSIONS = """prev_items,next_item,locale
"['B09W9FND7K' 'B09JSPLN1M'\n 'B09']",B0A,DE
"['B1', 'B2']",B3,UK
"['B1' __import__('os')]",B2,DE
"['B1' ... 'B9']",B2,DE
"['B1']",'B9',DE
[],B7,DE
['B1'],,DE
"""
M2_PRODUCTS = 'id,locale,title,price\nB2,DE,"Titel, ""zwei""",3\nB2,UK,Two,3\nB3,UK,Three,1\n'


def test_amazon_m2_lists_are_parsed_and_not_evaluated(tmp_path):
    (tmp_path / "sessions_train.csv").write_text(M2_SESSIONS)
    (tmp_path / "products_train.csv").write_text(M2_PRODUCTS)
    log = registry.read_interactions(f"amazon-m2:{tmp_path}")
    assert sessions_of_log(log) == {
        "2": ["B09W9FND7K", "B09JSPLN1M", "B09", "B0A"],
        "4": ["B1", "B2", "B3"],
        "8": ["B7"],
    }
    assert not log.has_times
    assert dict(log.titles) == {"B2": 'Titel, "zwei"', "B3": "Three"}
    assert log.report["bad_rows"]["reasons"] == {"not a list of item ids": 2, "not an item id": 1, "no item": 1}
    assert (log.report["rows_read"], log.report["rows_used"]) == (7, 3)


def test_amazon_m2_of_one_locale(tmp_path):
    (tmp_path / "sessions_train.csv").write_text(M2_SESSIONS)
    (tmp_path / "products_train.csv").write_text(M2_PRODUCTS)
    log = registry.read_interactions(f"amazon-m2:{tmp_path}:UK")
    assert sessions_of_log(log) == {"4": ["B1", "B2", "B3"]}
    assert dict(log.titles) == {"B2": "Two", "B3": "Three"}
    report = log.report
    assert (report["rows_read"], report["rows_used"], report["rows_not_asked_for"]) == (7, 1, 6)
    assert registry.read_interactions(f"amazon-m2:{tmp_path}/sessions_train.csv").titles is None
    with pytest.raises(ValueError, match="locale is 'US'; expected"):
        registry.read_interactions(f"amazon-m2:{tmp_path}:US")


def test_yambda_flat_and_sequential_files_say_the_same(tmp_path):
    rows = {"uid": [1, 1, 2], "timestamp": [0, 5, 5], "item_id": [3, 4, 3], "played_ratio_pct": [100, 50, 120]}
    (tmp_path / "flat").mkdir()
    flat = pl.DataFrame(rows).cast({name: pl.UInt32 for name in rows})
    flat.write_parquet(tmp_path / "flat" / "listens.parquet")
    flat.group_by("uid", maintain_order=True).agg(pl.all()).write_parquet(tmp_path / "listens.parquet")
    logs = [registry.read_interactions(f"yambda:{tmp_path}/{name}") for name in ("flat", "listens.parquet")]
    for log in logs:
        assert pairs(log) == [("1", "3"), ("1", "4"), ("2", "3")]
        assert log.time.tolist() == [0, 5000, 5000]
        assert [log.event_names[event] for event in log.event] == ["listen+", "listen", "listen+"]
        assert log.report["bad_rows"]["total"] == 0
    assert [log.report["rows_read"] for log in logs] == [3, 2]


def test_yambda_rows_of_lists_are_bad_as_a_whole(tmp_path):
    frame = pl.DataFrame(
        {
            "uid": [1, 2, 3, 4, 5, None],
            "timestamp": [[0, 5], [5], [1, 2], [], [5, None], [5]],
            "item_id": [[3, 4], [3], [1], [], [1, 2], [1]],
            "event_type": [["listen", "like"], ["listen"], ["like"], [], ["like", "like"], ["like"]],
            "played_ratio_pct": [[51, None], [12], [3], [], [None, None], [None]],
        }
    )
    frame.write_parquet(tmp_path / "multi_event.parquet")
    (tmp_path / "likes.parquet").write_bytes(b"repeats a part of the other, and is not read")
    log = registry.read_interactions(f"yambda:{tmp_path}")
    assert pairs(log) == [("1", "3"), ("1", "4"), ("2", "3")]
    assert [log.event_names[event] for event in log.event] == ["listen+", "like", "listen"]
    reasons = {"lists of different lengths": 1, "no item": 1, "no readable time": 1, "no user": 1}
    assert log.report["bad_rows"]["reasons"] == reasons
    assert (log.report["rows_read"], log.report["rows_used"]) == (6, 2)


def test_merrec_items_are_products_of_all_months(tmp_path):
    for month, session, name in (("20230601", 2, "Shoes, used"), ("20230501", 1, "Shoes")):
        (tmp_path / month).mkdir()
        pl.DataFrame(
            {
                "user_id": [1, 1],
                "sequence_id": [1, 1],
                "session_id": [session, session],
                "item_id": [90 + session, 80 + session],
                "product_id": [7, None],
                "event_id": ["item_view", "item_like"],
                "stime": [f"{month[:4]}-{month[4:6]}-01 00:00:12 UTC", "2023-05-01 00:00:13 UTC"],
                "name": [name, "Bag"],
            }
        ).write_parquet(tmp_path / month / "0000.parquet")
    log = registry.read_interactions(f"merrec:{tmp_path}")
    assert sessions_of_log(log) == {"1:1:1": ["7"], "1:1:2": ["7"]}
    assert log.titles == {"7": "Shoes"}
    assert log.report["bad_rows"]["reasons"] == {"no item": 2}
    assert log.report["events_read"] == {"item_view": 2}


def test_files_that_are_missing_or_are_others_are_named(tmp_path):
    (tmp_path / "events.csv").write_text("timestamp,visitor,event,itemid\n1,2,view,3\n")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing")
    for source, error, message in (
        (f"retailrocket:{tmp_path}", ValueError, r"events\.csv, line 1: columns are .*expected visitorid"),
        (f"yoochoose:{tmp_path}", FileNotFoundError, "has no yoochoose-clicks"),
        (f"otto:{tmp_path}/none.jsonl", FileNotFoundError, "no such file"),
        (f"merrec:{tmp_path}", ValueError, r"x\.parquet: not a readable Parquet file"),
        (f"yambda:{tmp_path}/none", FileNotFoundError, "no such file"),
        (f"diginetica:{tmp_path}/events.csv", ValueError, "expected sessionId or session_id; if ',' separates"),
    ):
        with pytest.raises(error, match=message):
            registry.read_interactions(source)
