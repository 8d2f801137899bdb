"""What a sensor's own web page answers: calibration and settings of network devices."""

from __future__ import annotations

import http.client

from sensors.clock import host_now_s
from sensors.errors import SensorError

LONGEST_ANSWER = 4 << 20  # bytes; a sensor's settings are some tens of thousands


def http_get(host: str, port: int, path: str, timeout_s: float) -> bytes:
    """What a device's own web page answers. Straight to the device: a proxy of the environment does not know it.

    Raises:
        SensorError: no connection, no answer in time, an answer that is none or too long.
    """
    where, end_s = f"http://{host}:{port}{path}", host_now_s() + timeout_s
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = b""
        while part := answer.read1(65536):
            body += part
            if host_now_s() > end_s or len(body) > LONGEST_ANSWER:
                raise TimeoutError(f"{len(body)} bytes and no end")
    except (OSError, http.client.HTTPException) as error:
        raise SensorError(
            where, f"an answer within {timeout_s} s", str(error) or type(error).__name__,
            "Is the device on, is its address right, and is this host in its network?",
        ) from error  # fmt: skip
    finally:
        connection.close()
    if answer.status != 200:
        raise SensorError(where, "status 200", f"{answer.status} {answer.reason}", "Is this the right device?")
    return body
