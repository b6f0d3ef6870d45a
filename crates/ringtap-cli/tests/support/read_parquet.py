"""Compares Parquet with `ringtap report --json`: what DuckDB and pyarrow read must be what the trace holds.

    read_parquet.py TRACE.jsonl FILE.parquet       one file
    read_parquet.py TRACE.jsonl FOLDER HOST...     a folder divided by event, to which each host added the same trace

Prints how many records, losses and undecoded records there were.
"""

import json
import math
import sys
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow
import pyarrow.dataset
import pyarrow.parquet

COMMON = ["time", "cpu", "pid", "comm", "common_flags", "common_preempt_count", "host", "boot_id", "instance"]


def mask(words):
    digits = ",".join(f"{word >> 32:08x},{word & 0xFFFFFFFF:08x}" for word in reversed(words))
    return digits.lstrip("0,")


def same(ours, theirs):
    """Whether both mean the same, though JSON has fewer kinds of values."""
    if isinstance(ours, list):
        theirs = list(theirs) if isinstance(theirs, bytes) else theirs
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, str):
        if isinstance(theirs, str):
            return ours == theirs
        if isinstance(theirs, bytes):
            return ours == theirs.hex()
        if isinstance(theirs, list):
            return ours.lstrip("0,") == mask(theirs)
        return isinstance(theirs, int) and int(ours, 16) == theirs
    if isinstance(theirs, float) and ours is None:
        return not math.isfinite(theirs)
    return ours == theirs


def decoded(path):
    """What our own program reads: records and losses, by their table."""
    tables = {}
    for line in Path(path).read_text().splitlines():
        line = json.loads(line)
        if line["type"] == "lost":
            tables.setdefault(("ringtap", "lost"), []).append(line)
        else:
            name = (line["system"], line["event"]) if line["system"] else ("ringtap", "undecoded")
            tables.setdefault(name, []).append(line)
    return tables


def compare_row(ours, common, fields):
    assert common["cpu"] == ours["cpu"], (ours, common)
    if ours["type"] == "lost":
        assert fields == {"count": ours["count"]}, (ours, fields)
        return
    for theirs, key in ("time", "ts"), ("pid", "pid"), ("comm", "comm"):
        assert common[theirs] == ours[key], (ours, common)
    if ours["system"] is None:
        assert list(fields) == ["record"] and int.from_bytes(fields["record"][:2], sys.byteorder) in (
            ours["id"],
            int.from_bytes(ours["id"].to_bytes(2, "big"), "little"),
        ), (ours, fields)
        return
    # A field that has the name of a column that all events have.
    plain = {name.removeprefix("field_") if name[6:] in COMMON else name: held for name, held in fields.items()}
    assert plain.keys() == (ours["fields"] or {}).keys(), (ours, fields)
    for name, value in (ours["fields"] or {}).items():
        assert same(value, plain[name]), (name, ours, fields)


def compare(tables, rows, hosts=(None,)):
    """Rows of one reader, as (system, event, common columns, own columns), by the tables' own order."""
    read = {}
    for system, event, common, fields in rows:
        key = (system, event, common["host"] if hosts != (None,) else None)
        read.setdefault(key, []).append((common, fields))
    expected = {(*name, host) for name in tables for host in hosts}
    assert read.keys() == expected, read.keys() ^ expected
    for (system, event, _), rows in read.items():
        ours = tables[system, event]
        assert len(ours) == len(rows), (system, event, len(ours), len(rows))
        order = sorted(range(len(ours)), key=lambda row: ours[row].get("ts", 0))
        for place, (common, fields) in zip(order, sorted(rows, key=lambda row: row[0]["time"] if event != "lost" else 0)):
            compare_row(ours[place], common, fields)


def wide_rows(rows):
    for row in rows:
        system, event = row["system"], row["event"]
        name = f"{system}_{event}" if f"{system}_{event}" in row else event
        fields = row.get(name) if isinstance(row.get(name), dict) else None
        others = {key for key, held in row.items() if isinstance(held, dict)} - {name}
        assert not others, (system, event, others)
        yield system, event, row, fields or {}


def by_pyarrow(table):
    place = table.schema.get_field_index("time")
    assert table.schema.field(place).type == pyarrow.timestamp("ns"), table.schema
    table = table.set_column(place, "time", table.column("time").cast(pyarrow.int64()))
    return table.to_pylist()


def by_duckdb(source):
    result = duckdb.sql(f"SELECT * REPLACE (epoch_ns(time) AS time) FROM {source}")
    names = result.columns
    return [dict(zip(names, row)) for row in result.fetchall()]


def main():
    tables = decoded(sys.argv[1])
    place, hosts = Path(sys.argv[2]), tuple(sys.argv[3:])
    if not hosts:
        compare(tables, wide_rows(by_pyarrow(pyarrow.parquet.read_table(place))))
        compare(tables, wide_rows(by_duckdb(f"'{place}'")))
        metadata = pyarrow.parquet.read_metadata(place)
        times = metadata.row_group(0).column(0)
        assert "DELTA_BINARY_PACKED" in times.encodings, times
        names = metadata.row_group(0).column(3)
        assert "RLE_DICTIONARY" in names.encodings, names
    else:
        readers = {"pyarrow": [], "DuckDB": []}
        for system, event in tables:
            folder = place / f"system={quote(system)}" / f"event={quote(event)}"
            split = lambda row: (
                {name: row[name] for name in COMMON},
                {name: held for name, held in row.items() if name not in [*COMMON, "system", "event", "hour"]},
            )
            for row in by_pyarrow(pyarrow.parquet.read_table(folder)):
                readers["pyarrow"].append((system, event, *split(row)))
            for row in by_duckdb(f"read_parquet({str(folder / '**' / '*.parquet')!r})"):
                assert row["system"] == system and row["event"] == event, row
                readers["DuckDB"].append((system, event, *split(row)))
        for rows in readers.values():
            compare(tables, rows, hosts)
        # All of it as one table, and what Hive's names say without a file being opened.
        glob = str(place / "**" / "*.parquet")
        counts = duckdb.sql(
            f"SELECT host, count(*) FROM read_parquet({glob!r}, union_by_name = true) GROUP BY host ORDER BY host"
        ).fetchall()
        whole = sum(map(len, tables.values()))
        assert counts == [(host, whole) for host in sorted(hosts)], counts
    lost, undecoded = (len(tables.pop(("ringtap", name), [])) for name in ("lost", "undecoded"))
    print(sum(map(len, tables.values())), lost, undecoded)


main()
