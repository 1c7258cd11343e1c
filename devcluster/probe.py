"""Waits until addresses answer; also a program of its own, to be run inside a network namespace.

A check of health on the machine itself, so the certificate behind https is not verified.
"""

import http.client
import socket
import ssl
import sys
import time
import urllib.parse
from collections.abc import Sequence


def wait(addresses: Sequence[str], seconds: float) -> list[str]:
    """Wait until every address answers with success; returns those that don't when the time is over.

    An address is http://host:port/path, https://… or unix:///path (a listening socket is enough).
    """
    deadline = time.monotonic() + seconds
    failing = list(addresses)
    while True:
        failing = [address for address in failing if not _answers(address)]
        if not failing or time.monotonic() >= deadline:
            return failing
        time.sleep(0.1)


def _answers(address: str) -> bool:
    url = urllib.parse.urlsplit(address)
    try:
        if url.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(url.path)
            return True
        host, port = url.hostname or "", url.port
        client = (
            http.client.HTTPSConnection(host, port, timeout=3, context=ssl._create_unverified_context())  # noqa: S323
            if url.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=3)
        )
        try:
            client.request("GET", url.path)
            return 200 <= client.getresponse().status < 300
        finally:
            client.close()
    except (OSError, http.client.HTTPException):
        return False


if __name__ == "__main__":
    sys.stdout.write("\n".join(wait(sys.argv[2:], float(sys.argv[1]))))
