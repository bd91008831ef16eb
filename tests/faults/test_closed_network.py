"""The tests run without a network: the guard bites here, in a child, in a worker and in a kernel."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from paperlab import records

ROOT = records.project_root(Path(__file__))
ABROAD = "192.0.2.1"  # kept for documentation: nobody answers there
TRY = f"""import socket
try:
    socket.create_connection(({ABROAD!r}, 80), timeout=20)
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("way", "arguments"),
    [
        ("connect", [(ABROAD, 80)]),
        ("connect", [("2001:db8::1", 80, 0, 0)]),
        ("connect_ex", [(ABROAD, 80)]),
        ("sendto", [b"", (ABROAD, 80)]),
        ("sendmsg", [[b""], [], 0, (ABROAD, 80)]),
    ],
)
def test_nothing_is_sent_abroad(way, arguments):
    family = socket.AF_INET6 if ":" in arguments[-1][0] else socket.AF_INET
    abroad = socket.socket(family, socket.SOCK_DGRAM)  # whose connect would send nothing
    with abroad, pytest.raises(OSError, match="the network is closed while testing"):
        getattr(abroad, way)(*arguments)


def test_no_name_is_looked_up():
    for look_up in (socket.gethostbyname, lambda name: socket.getaddrinfo(name, 80)):
        with pytest.raises(socket.gaierror, match="closed while testing: paperlab.example"):
            look_up("paperlab.example")


def test_loopback_and_the_machine_s_own_name_stay_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, server.getsockname()[1])).close()
    assert socket.getaddrinfo(None, 80)
    one, other = socket.socketpair()  # addresses that are no hosts
    with one, other:
        one.sendall(b"x")
    try:
        socket.getaddrinfo(socket.gethostname(), 80)
    except socket.gaierror as error:
        assert "closed while testing" not in str(error)


def attempt() -> str:
    try:
        socket.create_connection((ABROAD, 80), timeout=20).close()
    except OSError as error:
        return str(error)
    return "open"


def test_children_and_workers_are_closed(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", TRY], capture_output=True, text=True, cwd=tmp_path
    )
    assert "closed while testing" in child.stdout, child
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert "closed while testing" in pool.submit(attempt).result()


def test_kernels_are_closed(tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(TRY)])
    NotebookClient(
        book, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert "closed while testing" in book.cells[0].outputs[0]["text"]


def test_notebooks_are_run_from_here_too(pytestconfig):
    """nbval starts their kernels from a process that conftest.py has closed, as all that tests start."""
    assert pytestconfig.getini("testpaths") == ["tests", "notebooks"]
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT / "tests/offline")


@pytest.mark.skipif("PAPERLAB_CLOSED" not in os.environ, reason="only where .ci/run closed it all")
def test_no_interface_but_loopback():
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
