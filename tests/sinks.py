"""Where messages arrive in tests: a mail server with STARTTLS and passwords, an HTTP server that answers as it is told."""
import email
import email.policy
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Received:
    """What arrived, in order."""

    def __init__(self):
        self.all, self._changed = [], threading.Condition()

    def add(self, item) -> None:
        with self._changed:
            self.all.append(item)
            self._changed.notify_all()

    def wait(self, n: int, timeout: float = 30) -> list:
        """The first `n`, as soon as they are there."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= n, timeout), f"{len(self.all)} of {n} arrived within {timeout} s"
            return self.all[:n]


class HttpSink:
    """Takes every request, and answers with (status, headers, body); the last answer holds for all that follow."""

    def __init__(self, *answers):
        self.received, answers = Received(), list(answers) or [(200, {}, "ok")]
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(n := int(self.headers["content-length"]))
                if len(body) < n:
                    return  # who sent it is gone
                received.add({"path": self.path, "headers": dict(self.headers), "body": body, "at": time.time()})
                status, headers, text = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                for name, value in {"content-length": str(len(text.encode())), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                if not isinstance(sys.exc_info()[1], ConnectionError):  # who asked is gone
                    super().handle_error(request, client_address)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def json(self, n: int = 1) -> list:
        return [json.loads(request["body"]) for request in self.received.wait(n)]

    def __enter__(self) -> "HttpSink":
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and localhost that nobody but who is told trusts, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


class SmtpSink:
    """A mail server. With a certificate it wants STARTTLS first (or speaks TLS from the start), with an account a password."""

    def __init__(self, cert: tuple[Path, Path] | None = None, account: tuple[str, str] | None = None, tls: bool = False, refuse=lambda address: None):
        self.received, self.account, self.refuse, self.tls = Received(), account, refuse, tls
        sink, listener, context = self, socket.create_server(("127.0.0.1", 0)), None
        self.port = listener.getsockname()[1]
        if cert:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*cert)

        class Server(Controller):
            def _create_server(self):
                return self.loop.create_server(self._factory_invoker, sock=listener, ssl=self.ssl_context)

            def factory(self):
                starttls = bool(context) and not tls
                return SMTP(self.handler, hostname="sink", tls_context=context if starttls else None, require_starttls=starttls,
                            authenticator=sink.authenticate if account else None, auth_required=bool(account), auth_require_tls=bool(context) and not tls)

        self.controller = Server(self, hostname="127.0.0.1", port=self.port, ssl_context=context if tls else None)
        self.controller.start()

    def authenticate(self, server, session, envelope, mechanism, data):
        given = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode())
        return AuthResult(success=given == self.account, handled=False)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if answer := self.refuse(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.received.add({"mail": mail, "from": envelope.mail_from, "to": envelope.rcpt_tos, "raw": envelope.content,
                           "tls": self.tls or session.ssl is not None, "login": session.authenticated})
        return "250 2.0.0 queued"

    def __enter__(self) -> "SmtpSink":
        return self

    def __exit__(self, *_) -> None:
        self.controller.stop()
