"""A reverse proxy on 127.0.0.1 that serves an app below a path, as nginx or Caddy do: it takes the path away."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

DROPPED = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host"}


@contextlib.contextmanager
def reverse_proxy(target: str, path: str, *, forwarded: bool = True) -> Iterator[str]:
    """The address below which ``target`` is found, with ``path`` at its end; all else is not found.

    ``forwarded`` says whether it tells the app, beside ``Host``, for which host and protocol it stands.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # an answer ends where its connection does: streams need no chunks

        def answer(self) -> None:
            if not self.path.startswith(f"{path}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}
            headers["Host"] = self.headers["Host"]
            if forwarded:
                headers |= {"X-Forwarded-Host": self.headers["Host"], "X-Forwarded-Proto": "http"}
            upstream = http.client.HTTPConnection(urlsplit(target).netloc, timeout=120)
            upstream.request(self.command, self.path.removeprefix(path), body, headers)
            response = upstream.getresponse()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in DROPPED:
                    self.send_header(name, value)
            self.end_headers()
            while part := response.read1(1 << 16):
                self.wfile.write(part)
                self.wfile.flush()
            upstream.close()

        do_GET = do_POST = do_HEAD = answer

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, http.client.IncompleteRead):  # one of both sides left
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.daemon_threads = True
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_address[1]}{path}"
    finally:
        found.shutdown()
        found.server_close()
