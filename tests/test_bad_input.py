"""Bad input never panics and is never guessed at: exact counts, and a line, a field and a code for each row."""
import json
import re
import socket
import time

import pytest

from bad_input.cases import Case, cases
from server import run

TABLE = cases()
NEEDED = 80


def fill(body: bytes, metric: str) -> bytes:
    now = time.time()
    for name, value in (("METRIC", metric), ("NOW", f"{now:.3f}"), ("FUTURE", f"{now + 600:.3f}"), ("MILLIS", f"{now * 1000:.0f}")):
        body = body.replace(name.encode(), value.encode()).replace(name.encode("utf-16-le"), value.encode("utf-16-le"))
    return body


def send(server, case: Case, metric: str):
    body = fill(case.body, metric)
    if case.kind == "raw":
        return server.http.post("/events/raw", content=body, headers={"content-type": "application/json"})
    if case.kind == "batch":
        return server.http.post("/events", content=body, params=case.params, headers={"content-type": "application/x-ndjson"} | case.headers)
    return server.http.post("/upload", files={"file": (case.kind, body, "application/octet-stream")}, data=case.form)


def faults(case: Case, response, metric: str) -> list[str]:
    """Everything in which an answer differs from the table, beyond its status."""
    body = response.json()
    if case.kind == "raw":
        return [f"code {body.get('code')}, expected {code}" for _, _, code in case.errors if body.get("code") != code]
    if not case.errors:
        return []  # the status says it all
    counted, wrong = body["files"][0] if "files" in body else body, []
    if counted.get("accepted", 0) != case.accepted or counted.get("rejected") != case.rejected != -1:
        wrong.append(f"accepted {counted.get('accepted')}, rejected {counted.get('rejected')}, expected {case.accepted}, {case.rejected}")
    if len(counted["errors"]) != len(case.errors):
        wrong.append(f"{len(counted['errors'])} errors, expected {len(case.errors)}")
    for error, (line, field, code) in zip(counted["errors"], case.errors):
        field = field and field.replace("METRIC", metric)
        if line not in (None, error["line"]) or field not in (None, error["field"]) or error["code"] != code or not error["message"]:
            wrong.append(f"{error}, expected line {line}, field {field!r}, code {code}")
    return wrong


@pytest.mark.parametrize("number, case", enumerate(TABLE), ids=[case.name for case in TABLE])
def test_case(shared_server, number, case):
    metric = f"bad{number}"
    response = send(shared_server, case, metric)
    assert response.status_code == case.status, f"{response.status_code}, expected {case.status}: {response.text[:600]}"
    wrong = faults(case, response, metric)
    assert not wrong, "; ".join(wrong[:5]) + f" in {response.text[:1500]}"
    assert shared_server.alive and "panicked" not in shared_server.log()
    shared_server.settle()
    taken = sum(n for name, n in shared_server.series_counts(metric).items() if re.match(rf"{metric}\b", name))
    assert taken == case.accepted, f"{taken} rows were taken, expected {case.accepted}"


def test_the_corpus_is_large_enough():
    assert len(TABLE) >= NEEDED and len({case.name for case in TABLE}) == len(TABLE)


OFFLINE = [case for case in TABLE if case.kind not in ("raw", "batch") and not case.form]


@pytest.mark.parametrize("case", OFFLINE, ids=[case.name for case in OFFLINE])
def test_the_offline_command_says_the_same(case, tmp_path):
    """No panic; a file of which nothing can be read is exit code 2; otherwise each bad line is named on stderr."""
    file = tmp_path / case.kind
    file.write_bytes(fill(case.body, "offline"))
    done = run("detect", file, "--format", "json")
    said = done.stderr.decode(errors="replace")
    assert "panicked" not in said and done.returncode == (0 if case.accepted else 2), f"{done.returncode}: {said[:1000]}"
    assert said, "nothing is said"
    for line, _, _ in case.errors[:1]:
        assert line is None or re.search(rf"\b{line}\b", said), f"line {line} is not named: {said[:1000]}"


# --- requests that are wrong as requests ---------------------------------------------------------------------------------

REQUESTS = [
    ("GET", "/anomalies?limit=0", 422), ("GET", "/anomalies?limit=1001", 422), ("GET", "/anomalies?limit=x", 422), ("GET", "/anomalies?cursor=garbage", 400),
    ("GET", "/anomalies?severity=mild", 422), ("GET", "/anomalies?from=yesterday", 422), ("GET", "/anomalies?to=NaN", 422), ("GET", "/anomalies/no-such-id", 404), ("GET", "/incidents?limit=0", 422),
    ("GET", "/incidents?cursor=garbage", 400), ("GET", "/incidents/no-such-id", 404), ("GET", "/series?limit=0", 422), ("GET", "/series?cursor=garbage", 400),
    ("GET", "/series/points?series=none", 404), ("GET", "/series/points", 422), ("GET", "/series/explain?series=none&at=1", 404), ("DELETE", "/series", 422),
    ("DELETE", "/series?series=none", 404), ("GET", "/uploads/no-such-id", 404), ("GET", "/no/such/route", 404), ("GET", "/../../etc/passwd", 404),
    ("GET", "/events/raw", 405), ("PUT", "/anomalies", 405), ("GET", "/anomalies/heat?buckets=0", 422), ("GET", "/ws/anomalies?after=garbage", 400),
]


@pytest.mark.parametrize("method, target, status", REQUESTS, ids=[f"{m} {t}" for m, t, _ in REQUESTS])
def test_request(shared_server, method, target, status):
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="} if "/ws/" in target else {}
    answer = exchange(shared_server, f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n".encode() + "".join(f"{k}: {v}\r\n" for k, v in headers.items()).encode() + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:600]
    assert b"application/problem+json" in head.lower() and re.search(rb'"code":\s*"[a-z0-9_.-]+"', body), answer[:600]


def exchange(server, data: bytes) -> bytes:
    """Sends raw bytes and reads until the server closes, or for two seconds."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=2) as sock:
        try:
            sock.sendall(data)
            while chunk := sock.recv(65536):
                answer += chunk
        except (TimeoutError, ConnectionError):
            pass
    return answer


RAW = {
    "not HTTP": b"hello\r\n\r\n", "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), "zeros": bytes(1000), "a bad length": b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
    "two lengths": b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n[]", "a bad chunk": b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "100,000 bytes of headers": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_request(shared_server, name):
    answer = exchange(shared_server, RAW[name])
    assert answer == b"" or re.match(rb"HTTP/1\.[01] 4\d\d ", answer), answer[:200]
    assert shared_server.alive and shared_server.http.get("/livez").status_code == 200


@pytest.mark.parametrize("name, body", [
    ("no file", b'--XX\r\nContent-Disposition: form-data; name="other"\r\n\r\n1\r\n--XX--\r\n'),
    ("no part", b"--XX--\r\n"),
    ("nothing", b""),
    ("another boundary", b'--YY\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nmetric,value\ncutm,1\n\r\n--YY--\r\n'),
    ("cut in the file", b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nmetric,value,timestamp\ncutm,1,1700000000\n'),
], ids=lambda x: x if isinstance(x, str) else "")
def test_forms_that_are_broken(shared_server, name, body):
    for path in ("/upload", "/upload/bulk"):
        response = shared_server.http.post(path, content=body, headers={"content-type": "multipart/form-data; boundary=XX"})
        assert response.status_code in (400, 422), f"{path}: {response.status_code} {response.text[:300]}"
    shared_server.settle()
    assert shared_server.series_counts("cutm") == {}, "rows of a file that never arrived whole were taken"


def test_no_case_made_the_server_panic(shared_server):
    assert shared_server.alive and "panicked" not in shared_server.log()
    assert json.loads(shared_server.http.get("/health").text)["status"] == "ok"
