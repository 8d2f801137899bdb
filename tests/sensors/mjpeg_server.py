"""An MJPEG stream over HTTP on the loopback interface, which can fall silent, tear pictures, stop and come back."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import threading
import time
from collections.abc import Callable

import cv2

from tests.sensors.films import picture


class Server:
    """An MJPEG stream over HTTP: pictures 0, 1, 2, ... as soon as the one before was sent, 5 ms apart."""

    def __init__(self, port: int = 0) -> None:
        self.silent, self.ending = threading.Event(), threading.Event()
        self.torn: set[int] = set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
                self.end_headers()
                with contextlib.suppress(OSError):  # the client may go away
                    outer._stream(self.wfile.write)

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=lambda: self._http.serve_forever(0.01), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def _stream(self, write: Callable[[bytes], object]) -> None:
        for number in itertools.count():
            while self.silent.is_set() and not self.ending.is_set():
                time.sleep(0.002)
            if self.ending.is_set():
                return
            data = cv2.imencode(".jpg", picture(number % 256)[..., ::-1])[1].tobytes()
            if number in self.torn:
                data = data[: len(data) // 2]
            head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            write(head.encode() + data + b"\r\n")
            time.sleep(0.005)

    def stop(self) -> None:
        self.ending.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
