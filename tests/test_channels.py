"""`anomaly notify test` against what receives: a real mail server, the library of Standard Webhooks, published schemas, Alertmanager."""
import base64
import socket
import subprocess
import time
from datetime import datetime
from urllib.parse import urlsplit

import httpx
import jsonschema
import pytest
import standardwebhooks

from needs import need
from server import environment, free_port, run
from sinks import HttpSink, SmtpSink, certificate

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EMAIL = {"EMAIL_ENABLED": "true", "SMTP_HOST": "127.0.0.1", "EMAIL_FROM": "Alerts <alerts@example.org>", "EMAIL_TO": "ops@example.org, Boss <boss@example.org>"}

TEXT = {"type": "object", "required": ["type", "text"], "additionalProperties": False,
        "properties": {"type": {"enum": ["plain_text", "mrkdwn"]}, "text": {"type": "string", "minLength": 1, "maxLength": 3000}, "emoji": {"type": "boolean"}}}
# https://docs.slack.dev/reference/block-kit/blocks
SLACK = {
    "type": "object", "required": ["text", "blocks"], "additionalProperties": False,
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 40000},
        "blocks": {"type": "array", "minItems": 1, "maxItems": 50, "items": {"oneOf": [
            {"type": "object", "required": ["type", "text"], "additionalProperties": False, "properties": {
                "type": {"const": "header"},
                "text": {**TEXT, "properties": {**TEXT["properties"], "type": {"const": "plain_text"}, "text": {"type": "string", "minLength": 1, "maxLength": 150}}}}},
            {"type": "object", "required": ["type", "text"], "additionalProperties": False, "properties": {"type": {"const": "section"}, "text": TEXT}},
            {"type": "object", "required": ["type", "elements"], "additionalProperties": False, "properties": {
                "type": {"const": "context"}, "elements": {"type": "array", "minItems": 1, "maxItems": 10, "items": TEXT}}},
        ]}},
    },
}
# https://developer.pagerduty.com/api-reference (Events API v2, "Send an event to PagerDuty")
PAGERDUTY = {
    "type": "object", "required": ["routing_key", "event_action"], "additionalProperties": False,
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "maxLength": 255},
        "client": {"type": "string"}, "client_url": {"type": "string", "format": "uri"},
        "images": {"type": "array"},
        "links": {"type": "array", "items": {"type": "object", "required": ["href"], "additionalProperties": False,
                                             "properties": {"href": {"type": "string", "format": "uri"}, "text": {"type": "string"}}}},
        "payload": {"type": "object", "required": ["summary", "source", "severity"], "additionalProperties": False, "properties": {
            "summary": {"type": "string", "maxLength": 1024}, "source": {"type": "string", "minLength": 1},
            "severity": {"enum": ["critical", "warning", "error", "info"]}, "timestamp": {"type": "string", "format": "date-time"},
            "component": {"type": "string"}, "group": {"type": "string"}, "class": {"type": "string"}, "custom_details": {"type": "object"}}},
    },
    "if": {"properties": {"event_action": {"const": "trigger"}}}, "then": {"required": ["payload"]}, "else": {"required": ["dedup_key"]},
}
# https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml (postableAlerts)
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
ALERTMANAGER = {"type": "array", "items": {
    "type": "object", "required": ["labels"], "additionalProperties": False,
    "properties": {"startsAt": {"type": "string", "format": "date-time"}, "endsAt": {"type": "string", "format": "date-time"}, "annotations": LABELS,
                   "generatorURL": {"type": "string", "format": "uri"},
                   "labels": {**LABELS, "required": ["alertname"], "propertyNames": {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}}}}}


def notify(*args, **env) -> tuple[int, str, str]:
    done = run("notify", "test", *args, **env)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def sent(channel: str, **env) -> str:
    code, out, err = notify(channel, **env)
    assert code == 0 and out.startswith(f"{channel:<13} sent: ") and out.count("\n") == 1, (code, out, err)
    return out


FORMATS = jsonschema.FormatChecker(formats=())
FORMATS.checks("date-time", ValueError)(lambda text: "T" in text and datetime.fromisoformat(text).tzinfo is not None)
FORMATS.checks("uri")(lambda text: urlsplit(text).scheme in ("http", "https") and bool(urlsplit(text).netloc))


def valid(body, schema) -> None:
    jsonschema.validate(body, schema, format_checker=FORMATS)


@pytest.fixture(scope="module")
def cert(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("cert"))


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_mail_arrives_over_tls_with_a_password(cert, tls):
    with SmtpSink(cert, account=("me", "s3cret"), tls=tls == "tls") as sink:
        account = EMAIL | {"SMTP_PORT": sink.port, "SMTP_TLS": tls, "SMTP_USER": "me", "SMTP_CA_FILE": cert[0]}
        assert "250 2.0.0 queued" in sent("email", **account, SMTP_PASSWORD="s3cret", PUBLIC_URL="https://anomaly.example.org/")
        [received] = sink.received.wait(1)
        assert received["tls"] and received["login"]
        assert (received["from"], received["to"]) == ("alerts@example.org", ["ops@example.org", "boss@example.org"])
        mail = received["mail"]
        assert mail["Subject"].startswith("[test] ") and mail["Auto-Submitted"] == "auto-generated"
        assert mail["Message-ID"].endswith("@anomaly>") and abs(mail["Date"].datetime.timestamp() - time.time()) < 60
        assert "95, expected 54.5 ± 8.84" in mail.get_body(("plain",)).get_content()
        html = mail.get_body(("html",)).get_content()
        [picture] = [part for part in mail.walk() if part.get_content_type() == "image/png"]
        assert picture.get_content().startswith(b"\x89PNG") and f"cid:{picture['Content-ID'].strip('<>')}" in html
        assert "https://anomaly.example.org/" in html
        # A wrong password is told as it is, without it.
        code, out, err = notify("email", **account, SMTP_PASSWORD="wr0ng")
        assert code == 1 and out.startswith("email         refused: ") and "535" in out and "wr0ng" not in out + err, (out, err)


def test_a_mail_server_that_nobody_vouches_for_gets_nothing(cert):
    with SmtpSink(cert, account=("me", "s3cret")) as sink:
        code, out, _ = notify("email", **EMAIL, SMTP_PORT=sink.port, SMTP_USER="me", SMTP_PASSWORD="s3cret")
        assert code == 1 and "certificate" in out and not sink.received.all, out
        # The certificates of a file, by the variable that others read too.
        sent("email", **EMAIL, SMTP_PORT=sink.port, SMTP_USER="me", SMTP_PASSWORD="s3cret", SSL_CERT_FILE=cert[0])


def test_one_bad_address_does_not_keep_the_others_from_being_told():
    with SmtpSink(refuse=lambda address: "550 5.1.1 gone" if "boss" in address else None) as sink:
        said = sent("email", **EMAIL, SMTP_PORT=sink.port, SMTP_TLS="none")
        assert "boss@example.org refused" in said and "gone" in said
        assert sink.received.wait(1)[0]["to"] == ["ops@example.org"]


def test_a_webhook_is_verified_by_the_official_library():
    with HttpSink((204, {}, "")) as sink:
        sent("webhook", WEBHOOK_URL=f"{sink.url}/hook?a=b", WEBHOOK_SECRET=SECRET)
        [request] = sink.received.wait(1)
        data = standardwebhooks.Webhook(SECRET).verify(request["body"], request["headers"])
        assert request["path"] == "/hook?a=b" and data["type"] == "test"
        assert data["data"]["incidents"][0]["peak"]["value"] == 95.0
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(SECRET).verify(request["body"] + b" ", request["headers"])
        # A text that is no base64 signs as it is.
        sent("webhook", WEBHOOK_URL=sink.url, WEBHOOK_SECRET="just text")
        request = sink.received.wait(2)[1]
        standardwebhooks.Webhook(base64.b64encode(b"just text").decode()).verify(request["body"], request["headers"])


def test_slack_pagerduty_and_alertmanager_get_what_their_schemas_say():
    with HttpSink() as sink:
        env = {"SLACK_WEBHOOK_URL": f"{sink.url}/slack", "PAGERDUTY_ROUTING_KEY": "k" * 32, "PAGERDUTY_URL": f"{sink.url}/pagerduty",
               "ALERTMANAGER_URL": f"{sink.url}/am/", "PUBLIC_URL": "https://anomaly.example.org"}
        code, out, err = notify(**env)
        assert code == 0 and [line.split()[:2] for line in out.splitlines()] == [["slack", "sent:"], ["pagerduty", "sent:"], ["alertmanager", "sent:"]], (out, err)
        requests = sink.received.wait(4)
        assert [r["path"] for r in requests] == ["/slack", "/pagerduty", "/pagerduty", "/am/api/v2/alerts"]
        slack, trigger, resolve, alerts = sink.json(4)
        valid(slack, SLACK)
        valid(trigger, PAGERDUTY)
        valid(resolve, PAGERDUTY)
        valid(alerts, ALERTMANAGER)
        assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve") and trigger["dedup_key"] == resolve["dedup_key"]
        assert alerts[0]["labels"] | {"severity": "critical", "test": "true", "dc": "eu"} == alerts[0]["labels"]


def test_the_real_alertmanager_takes_an_alert(tmp_path):
    need("alertmanager")
    (tmp_path / "am.yml").write_text("route:\n  receiver: none\nreceivers:\n- name: none\n")
    url = f"http://127.0.0.1:{free_port()}"
    command = ["prometheus-alertmanager", f"--config.file={tmp_path}/am.yml", f"--storage.path={tmp_path}/data", f"--web.listen-address={url[7:]}", "--cluster.listen-address="]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    if httpx.get(f"{url}/-/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    assert time.monotonic() < deadline and process.poll() is None, "alertmanager does not start"
                    time.sleep(0.1)
            sent("alertmanager", ALERTMANAGER_URL=url, PUBLIC_URL="https://anomaly.example.org")
            [alert] = httpx.get(f"{url}/api/v2/alerts").json()
            assert alert["labels"]["alertname"] == "example_latency_ms" and alert["status"]["state"] == "active"
            assert alert["generatorURL"] == "https://anomaly.example.org/#incident=example"
            code, out, _ = notify("alertmanager", ALERTMANAGER_URL=f"{url}/nowhere")
            assert code == 1 and out.startswith("alertmanager  refused: 404 Not Found"), out
        finally:
            process.kill()


@pytest.mark.parametrize(("answer", "word"), [
    ((500, {}, "oops"), "failed: 500 Internal Server Error: oops"),
    ((429, {"retry-after": "5"}, ""), "failed: 429 Too Many Requests"),
    ((410, {}, "gone"), "refused: 410 Gone: gone"),
    ((302, {"location": "http://169.254.169.254/"}, ""), "refused: 302 Found (redirects are not followed"),
])
def test_what_is_answered_is_told(answer, word):
    with HttpSink(answer) as sink:
        code, out, _ = notify("webhook", WEBHOOK_URL=f"{sink.url}/hunter2")
        assert code == 1 and word in out and "hunter2" not in out and len(sink.received.all) == 1, out


def test_what_must_not_be_reached_is_a_fault_and_so_is_what_is_missing():
    for url in ("http://169.254.169.254/latest/meta-data", "http://[::ffff:169.254.169.254]/", "http://[fd00:ec2::254]/", "http://2852039166/"):
        code, out, err = notify(WEBHOOK_URL=url)
        assert code == 2 and "WEBHOOK_URL: " in err and "nothing is ever sent there" in err and not out, err
    code, _, err = notify(EMAIL_ENABLED="true", NOTIFY_BUDGET="lots", SMTP_PASSWORD="hunter2")
    assert code == 2 and "error: the configuration has 3 faults" in err and "EMAIL_ENABLED: email needs SMTP_HOST, EMAIL_FROM, EMAIL_TO" in err
    assert "hunter2" not in err
    code, out, _ = notify()
    assert code == 2 and out.startswith("no channel is configured; set in") and "WEBHOOK_URL" in out


def test_a_proxy_of_the_environment_is_not_asked():
    with HttpSink() as proxy, HttpSink() as sink:
        sent("webhook", WEBHOOK_URL=sink.url, http_proxy=proxy.url, HTTP_PROXY=proxy.url, ALL_PROXY=proxy.url)
        assert len(sink.received.all) == 1 and not proxy.received.all


def test_no_secret_is_printed(cert):
    done = run("config", "check", WEBHOOK_URL="https://example.org/hunter2", WEBHOOK_SECRET="hunter2", SLACK_WEBHOOK_URL="https://hooks.slack.com/services/hunter2",
               PAGERDUTY_ROUTING_KEY="hunter2", SMTP_USER="me", SMTP_PASSWORD="hunter2", SMTP_CA_FILE=cert[0], SMTP_HOST="mail.example.org")
    out = (done.stdout + done.stderr).decode()
    assert done.returncode == 0 and "hunter2" not in out and "BEGIN" not in out, out
    for line in ("WEBHOOK_URL=https://example.org/… (environment)", "WEBHOOK_SECRET=(hidden) (environment)", "SMTP_HOST=mail.example.org (environment)"):
        assert line in out, out


def test_a_black_hole_is_given_up_within_its_time():
    with socket.create_server(("127.0.0.1", 0)) as hole:
        started = time.monotonic()
        code, out, _ = notify("webhook", WEBHOOK_URL=f"http://127.0.0.1:{hole.getsockname()[1]}/")
        assert code == 1 and out.startswith("webhook       failed: ") and 25 < time.monotonic() - started < 40, out


def test_routes_are_read_and_their_faults_told_with_their_path(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('webhook_url = "http://127.0.0.1:1/"\n[[routes]]\nmetric = "cpu*"\nchannels = ["webhook", "email"]\n')
    done = run("config", "check", "--config", file)
    assert done.returncode == 0 and "  1 route\n" in done.stdout.decode() and "a route names the channel email, which is not configured" in done.stdout.decode()
    file.write_text('[[routes]]\nchannels = ["mail"]\n')
    done = run("config", "check", "--config", file)
    assert done.returncode == 2 and 'routes[0].channels: must be a list of email, webhook, slack, pagerduty, alertmanager or redis, got "mail"' in done.stderr.decode()
