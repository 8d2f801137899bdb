"""A device's web page on loopback: a good answer, and everything that is none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from sensors.errors import SensorError
from sensors.web_page import http_get

HERE = "127.0.0.1"
Page = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Page], int]]:
    servers: list[HTTPServer] = []

    def start(page: Page) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        servers.append(HTTPServer((HERE, 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return int(servers[-1].server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.end_headers()
    handler.wfile.write(body)


def test_the_page_of_a_device(serve: Callable[[Page], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # is not asked
    port = serve(lambda handler: answer(handler, handler.path.encode() * 50_000))
    assert http_get(HERE, port, "/page", 5.0) == b"/page" * 50_000


def test_a_page_that_does_not_work_is_said(serve: Callable[[Page], int]) -> None:
    missing = serve(lambda handler: answer(handler, b"no", 404))
    with pytest.raises(SensorError, match="status 200; got 404"):
        http_get(HERE, missing, "/", 5.0)
    release = threading.Event()
    silent = serve(lambda handler: release.wait(20.0) and None)
    with pytest.raises(SensorError, match=r"within 0.05 s; got timed out. Is the device on"):
        http_get(HERE, silent, "/", 0.05)
    release.set()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        for _ in range(30):
            answer(handler, b".")
            time.sleep(0.01)

    with pytest.raises(SensorError, match=r"within 0.1 s"):
        http_get(HERE, serve(trickle), "/", 0.1)
    with socket.socket() as free:
        free.bind((HERE, 0))
        with pytest.raises(SensorError, match="refused"):
            http_get(HERE, free.getsockname()[1], "/", 1.0)
