"""The table: requests and files that are wrong, each with its status, counts and row errors.

In a body METRIC stands for a metric that only this case uses, and NOW, FUTURE, MILLIS for the present, ten minutes from
now and the present in milliseconds. An error is (line, field, code); the codes are those of the engine's `Code`.
"""
import gzip
import random
from dataclasses import dataclass, field

import zstandard

GOOD_CSV = "METRIC,50,1700000000"
GOOD_JSON = '{"metric": "METRIC", "value": 50, "timestamp": 1700000000}'
GOOD_TXT = "METRIC,50,1700000000"


@dataclass
class Case:
    """One bad thing. `rejected` is the number of errors unless given, -1 where the file as a whole is refused."""

    name: str
    kind: str  # raw, batch, or the name of an uploaded file
    body: bytes
    status: int
    accepted: int = 0
    errors: list = field(default_factory=list)
    rejected: int | None = None
    headers: dict = field(default_factory=dict)
    params: dict = field(default_factory=dict)
    form: dict = field(default_factory=dict)

    def __post_init__(self):
        self.body = self.body.encode() if isinstance(self.body, str) else self.body
        self.rejected = len(self.errors) if self.rejected is None else self.rejected


def raw(name: str, body, status: int, code: str = "") -> Case:
    """POST /events/raw; `code` is that of the problem."""
    return Case(f"raw: {name}", "raw", body, status, errors=[(1, None, code)] if code else [])


def refused(name: str, file: str, body, code: str, line: int | None = None) -> Case:
    """POST /upload of a file of which nothing can be taken: one error for the whole."""
    return Case(name, file, body, 422, 0, [(line, None, code)], rejected=-1)


def nested(levels: int) -> str:
    """An event with so many levels; the event is the first, `meta` the second."""
    return '{"metric": "METRIC", "value": 1, "meta": {"a": ' + "[" * (levels - 2) + "]" * (levels - 2) + "}}"


def event(**fields) -> str:
    """An event with these fields as raw JSON texts, over a good one; None leaves a field out."""
    members = {"metric": '"METRIC"', "value": "50", "timestamp": "1700000000"} | fields
    return "{" + ", ".join(f'"{k}": {v}' for k, v in members.items() if v is not None) + "}"


# (name, the event, the field at fault, code): each is met alone, as a line of NDJSON, as an element of an array and in files.
BAD_EVENTS = [
    ("no metric", event(metric=None), "metric", "missing_field"),
    ("no value", event(value=None), "value", "missing_field"),
    ("empty metric", event(metric='""'), "metric", "invalid_metric"),
    ("metric of 256 bytes", event(metric=f'"{"x" * 256}"'), "metric", "invalid_metric"),
    ("metric with a newline", event(metric='"a\\nb"'), "metric", "invalid_metric"),
    ("metric that is a number", event(metric="5"), "metric", "invalid_type"),
    ("metric that is null", event(metric="null"), "metric", "invalid_type"),
    ("value in quotes", event(value='"50"'), "value", "invalid_type"),
    ("value that is null", event(value="null"), "value", "invalid_type"),
    ("value that is true", event(value="true"), "value", "invalid_type"),
    ("value that is a list", event(value="[50]"), "value", "invalid_type"),
    ("value that overflows", event(value="1e999"), "value", "invalid_value"),
    ("time before 1970", event(timestamp="-1"), "timestamp", "invalid_timestamp"),
    ("time before 1970 as text", event(timestamp='"1969-12-31T23:59:59Z"'), "timestamp", "invalid_timestamp"),
    ("time that is no time", event(timestamp='"yesterday"'), "timestamp", "invalid_timestamp"),
    ("time that is empty", event(timestamp='""'), "timestamp", "invalid_timestamp"),
    ("month 13", event(timestamp='"2025-13-01T00:00:00Z"'), "timestamp", "invalid_timestamp"),
    ("30 February", event(timestamp='"2025-02-30"'), "timestamp", "invalid_timestamp"),
    ("hour 25", event(timestamp='"2025-01-01T25:00:00Z"'), "timestamp", "invalid_timestamp"),
    ("time that is true", event(timestamp="true"), "timestamp", "invalid_type"),
    ("time that is a list", event(timestamp="[]"), "timestamp", "invalid_type"),
    ("time in milliseconds", event(timestamp="MILLIS"), "timestamp", "milliseconds_timestamp"),
    ("time in the future", event(timestamp="FUTURE"), "timestamp", "future_timestamp"),
    ("labels that are a number", event(labels="5"), "labels", "invalid_labels"),
    ("a label that is a number", event(labels='{"a": 1}'), "labels", "invalid_labels"),
    ("33 labels", event(labels="{" + ", ".join(f'"l{i}": "x"' for i in range(33)) + "}"), "labels", "invalid_labels"),
    ("meta that is a text", event(meta='"x"'), "meta", "invalid_meta"),
    ("id that is a number", event(id="5"), "id", "invalid_id"),
    ("id that is empty", event(id='""'), "id", "invalid_id"),
    ("id of 256 bytes", event(id=f'"{"x" * 256}"'), "id", "invalid_id"),
    ("the same key twice", '{"metric": "METRIC", "value": 1, "value": 2}', "value", "duplicate_key"),
    ("the same label twice", event(labels='{"a": "1", "a": "2"}'), "labels", "duplicate_key"),
    ("the same key twice in meta", event(meta='{"x": [{"a": 1, "a": 2}]}'), "meta", "duplicate_key"),
    ("two synonyms of the time alone", '{"metric": "METRIC", "value": 1, "time": 1700000000, "ts": 1700000000}', "timestamp", "ambiguous_field"),
    ("17 levels", nested(17), "meta", "too_deep"),
    ("an array for an event", "[]", "", "invalid_type"),
    ("a number for an event", "5", "", "invalid_type"),
    ("a text for an event", '"event"', "", "invalid_type"),
    ("null for an event", "null", "", "invalid_type"),
]

# What is not JSON: 400 alone, that line's error in NDJSON, and in an array the end of all of it.
NOT_JSON = [
    ("a word", "hello"),
    ("cut", GOOD_JSON[:-5]),
    ("NaN", event(value="NaN")),
    ("Infinity", event(value="Infinity")),
    ("-Infinity", event(value="-Infinity")),
    ("a plus sign", event(value="+1")),
    ("a leading zero", event(value="01")),
    ("no digit before the point", event(value=".5")),
    ("no digit behind the point", event(value="5.")),
    ("hexadecimal", event(value="0x10")),
    ("a comma too many", '{"metric": "METRIC", "value": 1,}'),
    ("two documents", GOOD_JSON + GOOD_JSON),
    ("single quotes", "{'metric': 'METRIC', 'value': 1}"),
    ("a comment", '{"metric": "METRIC", /* here */ "value": 1}'),
    ("a raw newline in a text", '{"metric": "a\tb", "value": 1}'),
]

# (name, row, field, code) of a file with the header metric,value,timestamp,labels.dc,id
CSV_HEADER = "metric,value,timestamp,labels.dc,id"
BAD_ROWS = [
    ("a word for a value", "METRIC,abc,1700000000,eu,", "value", "invalid_value"),
    ("NaN", "METRIC,NaN,1700000000,eu,", "value", "invalid_value"),
    ("inf", "METRIC,inf,1700000000,eu,", "value", "invalid_value"),
    ("overflow", "METRIC,1e999,1700000000,eu,", "value", "invalid_value"),
    ("hexadecimal", "METRIC,0x10,1700000000,eu,", "value", "invalid_value"),
    ("an underscore", "METRIC,1_000,1700000000,eu,", "value", "invalid_value"),
    ("an empty value", "METRIC,,1700000000,eu,", "value", "missing_field"),
    ("an empty metric", ",50,1700000000,eu,", "metric", "invalid_metric"),
    ("a metric of 256 bytes", f"{'x' * 256},50,1700000000,eu,", "metric", "invalid_metric"),
    ("a word for a time", "METRIC,50,yesterday,eu,", "timestamp", "invalid_timestamp"),
    ("a time before 1970", "METRIC,50,-5,eu,", "timestamp", "invalid_timestamp"),
    ("month 13", "METRIC,50,2025-13-01,eu,", "timestamp", "invalid_timestamp"),
    ("milliseconds", "METRIC,50,MILLIS,eu,", "timestamp", "milliseconds_timestamp"),
    ("the future", "METRIC,50,FUTURE,eu,", "timestamp", "future_timestamp"),
    ("an id of 256 bytes", f"METRIC,50,1700000000,eu,{'x' * 256}", "id", "invalid_id"),
    ("a column too few", "METRIC,50,1700000000", "", "invalid_row"),
    ("a column too many", "METRIC,50,1700000000,eu,,more", "", "invalid_row"),
    ("bytes that are not UTF-8", b"caf\xe9,50,1700000000,eu,", "", "invalid_utf8"),
]


def lines(*rows) -> bytes:
    return b"\n".join(r if isinstance(r, bytes) else r.encode() for r in rows) + b"\n"


def cases() -> list[Case]:
    table: list[Case] = []

    # one event
    table += [raw(name, body, 422, code) for name, body, _, code in BAD_EVENTS]
    table += [raw(name, body, 400, "invalid_json") for name, body in NOT_JSON]
    table += [
        raw("nothing", "", 400, "invalid_json"),
        raw("blanks", " \n ", 400, "invalid_json"),
        raw("bytes that are not UTF-8", b'{"metric": "\xff\xfe", "value": 1}', 400, "invalid_utf8"),
        raw("zeros", bytes(100), 400),
        raw("65,537 bytes", event(meta='{"a": "' + "x" * 65_537 + '"}'), 413, "too_large"),
        raw("never closed", "[" * 30_000, 400),
    ]

    # batches: every bad event in the middle of good ones, as NDJSON and as an array
    for name, body, at, code in BAD_EVENTS:
        table.append(Case(f"ndjson: {name}", "batch", lines(GOOD_JSON, body, GOOD_JSON), 202, 2, [(2, at, code)]))
        table.append(Case(f"array: {name}", "batch", f"[{GOOD_JSON}, {body}, {GOOD_JSON}]", 202, 2, [(2, at, code)]))
    for name, body in NOT_JSON:
        if name != "two documents":
            table.append(Case(f"array: {name}", "batch", f"[{GOOD_JSON}, {body}, {GOOD_JSON}]", 400))
        table.append(Case(f"ndjson: {name}", "batch", lines(GOOD_JSON, "", body, GOOD_JSON), 202, 2, [(3, "", "invalid_json")]))
    table += [
        Case("ndjson: bytes that are not UTF-8", "batch", lines(GOOD_JSON, b'{"metric": "\xff", "value": 1}', GOOD_JSON), 202, 2, [(2, None, "invalid_utf8")]),
        Case("ndjson: a row of 70,000 bytes", "batch", lines(GOOD_JSON, event(meta='{"a": "' + "x" * 70_000 + '"}'), GOOD_JSON), 202, 2, [(2, "", "too_large")]),
        Case("ndjson: nothing good", "batch", lines('{"metric": 5}', "[]", "oops"), 422, 0, [(1, "metric", "invalid_type"), (2, "", "invalid_type"), (3, "", "invalid_json")]),
        Case("ndjson: every kind of fault at once", "batch", lines(*[body for _, body, _, _ in BAD_EVENTS], GOOD_JSON), 202, 1, [(i + 1, at, code) for i, (_, _, at, code) in enumerate(BAD_EVENTS)]),
        Case("ndjson: one of two is bad and all or nothing is asked", "batch", lines(GOOD_JSON, event(value=None)), 422, 0, [(2, "value", "missing_field")], params={"atomic": "true"}),
        Case("ndjson: 1,500 bad rows, of which 1,000 are listed", "batch", lines(*["{}"] * 1500, GOOD_JSON), 202, 1, [(i + 1, None, "missing_field") for i in range(1000)], rejected=1500),
        Case("batch: an empty array", "batch", "[]", 422),
        Case("batch: a cut array", "batch", f"[{GOOD_JSON}, {GOOD_JSON}", 400),
        Case("batch: an array and more", "batch", f"[{GOOD_JSON}] x", 400),
        Case("batch: a comma too many", "batch", f"[{GOOD_JSON},]", 400),
        Case("batch: said to be gzip and is not", "batch", lines(GOOD_JSON), 400, headers={"content-encoding": "gzip"}),
        Case("batch: cut gzip", "batch", gzip.compress(lines(GOOD_JSON, GOOD_JSON))[:-6], 400, headers={"content-encoding": "gzip"}),
        Case("batch: said to be zstd and is not", "batch", lines(GOOD_JSON), 400, headers={"content-encoding": "zstd"}),
        Case("batch: an unknown encoding", "batch", lines(GOOD_JSON), 415, headers={"content-encoding": "br"}),
        Case("batch: a bomb", "batch", gzip.compress(b" " * (80 << 20)), 413, headers={"content-encoding": "gzip"}),
    ]

    # files
    for name, row, at, code in BAD_ROWS:
        table.append(Case(f"csv: {name}", "bad.csv", lines(CSV_HEADER, "METRIC,50,1700000000,eu,", "", row, "METRIC,50,1700000000,eu,"), 200, 2, [(4, at, code)]))
    for name, body, at, code in BAD_EVENTS[::4]:
        table.append(Case(f"json file: {name}", "bad.json", f"[{GOOD_JSON},\n{body},\n{GOOD_JSON}]", 200, 2, [(2, at, code)]))
        table.append(Case(f"ndjson file: {name}", "bad.ndjson", lines(GOOD_JSON, "", body, GOOD_JSON), 200, 2, [(3, at, code)]))
    utf16 = "\ufeff" + "\n".join(["metric,value,timestamp", GOOD_CSV, "METRIC,x,1700000000"])
    table += [
        Case("csv: every kind of fault at once", "all.csv", lines(CSV_HEADER, *[row for _, row, _, _ in BAD_ROWS], "METRIC,50,1700000000,eu,"), 200, 1, [(i + 2, at, code) for i, (_, _, at, code) in enumerate(BAD_ROWS)]),
        Case("csv: 33 labels", "wide_labels.csv", lines("metric,value,timestamp," + ",".join(f"labels.l{i}" for i in range(33)), "METRIC,1,1700000000," + ",".join("x" * 33)), 422, 0, [(2, "labels", "invalid_labels")]),
        Case("csv: a quote that is never closed", "quote.csv", lines("metric,value,timestamp", GOOD_CSV, '"METRIC,50,1700000000', GOOD_CSV), 200, 2, [(3, "", "invalid_row")]),
        Case("csv: semicolons and a bad decimal comma", "semi.csv", lines("metric;value;timestamp", "METRIC;0,48;1700000000", "METRIC;0,4,8;1700000001"), 200, 1, [(3, "value", "invalid_value")]),
        Case("csv: a bad cell of a wide table", "wide.csv", lines("timestamp,METRIC.a,METRIC.b", "1700000000,1,2", "1700000001,x,3", "1700000002,,4"), 200, 4, [(3, "METRIC.a", "invalid_value")]),
        Case("csv: CRLF and a BOM", "bom.csv", "\ufeffmetric,value,timestamp\r\n" + GOOD_CSV + "\r\nMETRIC,x,1700000000\r\n", 200, 1, [(3, "value", "invalid_value")]),
        Case("csv: UTF-16", "utf16.csv", utf16.encode("utf-16-le"), 200, 1, [(3, "value", "invalid_value")]),
        refused("csv: no value column", "novalue.csv", lines("metric,timestamp", "METRIC,1700000000"), "invalid_file", line=1),
        refused("csv: no metric column", "nometric.csv", lines("value,labels.dc,timestamp", "5,eu,1700000000"), "invalid_file", line=1),
        refused("csv: gzip that is cut", "cut.csv.gz", gzip.compress(lines("metric,value,timestamp", *[GOOD_CSV] * 1000))[:-9], "invalid_file"),
        refused("csv: zstd that is cut", "cut.csv.zst", zstandard.compress(lines("metric,value,timestamp", *[GOOD_CSV] * 1000))[:-9], "invalid_file"),
        refused("file: empty", "empty.csv", b"", "invalid_file"),
        refused("file: blanks", "blank.json", b"\n  \n", "invalid_file"),
        refused("file: random bytes", "random.csv", random.Random(3).randbytes(5000), "invalid_file"),
        refused("file: a picture", "picture.png", b"\x89PNG\r\n\x1a\n" + random.Random(4).randbytes(2000), "invalid_file"),
        Case("file: an unknown time zone", "zone.csv", lines("metric,value,timestamp", GOOD_CSV), 422, form={"timezone": "Mars/Phobos"}),
        refused("json file: a cut array", "cut.json", "[" + ",\n".join([GOOD_JSON] * 2000), "invalid_json"),
        refused("json file: an array with NaN", "nan.json", f"[{GOOD_JSON}, {event(value='NaN')}]", "invalid_json"),
        refused("json file: an array and more", "more.json", f"[{GOOD_JSON}] x", "invalid_json"),
        Case("ndjson file: a line that is not JSON", "bad.jsonl", lines(GOOD_JSON, "{oops", GOOD_JSON), 200, 2, [(2, "", "invalid_json")]),
        Case("txt: a word for a value", "bad.txt", lines(GOOD_TXT, "METRIC,x,1700000000", GOOD_TXT), 200, 2, [(2, "value", "invalid_value")]),
        Case("txt: a word for a time", "time.txt", lines(GOOD_TXT, "", "METRIC,1,soon", GOOD_TXT), 200, 2, [(3, "timestamp", "invalid_timestamp")]),
        Case("txt: one column", "one.txt", lines(GOOD_TXT, "METRIC", GOOD_TXT), 200, 2, [(2, "", "invalid_row")]),
        Case("txt: tabs and a bad value", "tab.txt", lines("METRIC\t1\t1700000000", "METRIC\t-\t1700000001"), 200, 1, [(2, "value", "invalid_value")]),
        Case("txt: an empty metric", "empty.txt", lines(GOOD_TXT, ",1,1700000000"), 200, 1, [(2, "metric", "invalid_metric")]),
    ]
    return table
