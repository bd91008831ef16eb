"""Closes the network, but for loopback, in every Python process that has this folder on PYTHONPATH.

Python imports a module of this name when it starts: kernels, commands, workers and servers that a
test starts are closed as the test's own process is. What is not Python, the browser above all, is
closed by the network namespace that .ci/run makes.
"""

import errno
import os
import sys

SENDS = ("socket.connect", "socket.sendto", "socket.sendmsg")  # Python's audit events
LOOKS_UP = ("socket.getaddrinfo", "socket.gethostbyname")
HERE = ("", "localhost", "::1", "0.0.0.0", "::", os.uname().nodename)


def closed(event: str, arguments: tuple) -> None:
    if event in SENDS:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a path of this machine
    elif event in LOOKS_UP:
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if not isinstance(host, str) or host in HERE or host.startswith("127."):
        return
    if event in LOOKS_UP:
        from socket import EAI_AGAIN, gaierror

        raise gaierror(EAI_AGAIN, f"the network is closed while testing: {host}")
    raise OSError(errno.ENETUNREACH, f"the network is closed while testing: {host}")


sys.addaudithook(closed)
