"""Downloads that break, hashes that differ, disks that fill: one line, and no half file."""

import errno
import hashlib
import http.server
import threading

import pytest
from paperlab.data import catalogue, fetch, prepare, sources

BODY = b"label\n" * 1000


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.delenv("PAPERLAB_DATA", raising=False)
    monkeypatch.setattr(fetch, "data_root", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def server():
    """A file server on loopback: /whole sends all, /cut promises all and sends half."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/gone":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[: len(BODY) // 2] if self.path == "/cut" else BODY)

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def entry(url: str | None, sha256="unverified", size=None) -> catalogue.Entry:
    file = catalogue.File("x.tsv", sha256, url, size)
    return catalogue.Entry(
        "x", "clicks", "criteo", "X", "https://x.example", "terms", "cite", (file,)
    )


def leftovers(shelf) -> list[str]:
    return sorted(p.name for p in shelf.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_download_is_checked_and_pinned(shelf, server, capsys):
    path = fetch.official(entry(f"{server}/whole"), "x.tsv")
    assert path.read_bytes() == BODY
    digest = hashlib.sha256(BODY).hexdigest()
    assert path.with_name("x.tsv.sha256").read_text() == digest
    said = capsys.readouterr().err
    assert digest in said
    assert "terms" in said
    path.write_bytes(BODY + b"more")
    with pytest.raises(ValueError, match="another SHA-256"):
        fetch.official(entry(f"{server}/whole"), "x.tsv")


@pytest.mark.parametrize(
    ("place", "sha256", "size", "error", "message"),
    [
        ("/cut", "unverified", None, FileNotFoundError, "put it in data/x/"),
        ("/gone", "unverified", None, FileNotFoundError, "get it from https://x.example"),
        ("/whole", "0" * 64, None, ValueError, "another SHA-256 than 000000000000"),
        ("/whole", "unverified", 17, ValueError, "6,000 bytes instead of 17"),
    ],
)
def test_a_bad_download_leaves_nothing(shelf, server, place, sha256, size, error, message):
    with pytest.raises(error, match=message) as raised:
        fetch.official(entry(server + place, sha256, size), "x.tsv")
    assert "\n" not in str(raised.value)
    assert leftovers(shelf) == []


def test_no_network_says_what_to_do(shelf):
    closed = "http://127.0.0.1:9/x"
    for url in (closed, None):
        with pytest.raises(
            FileNotFoundError, match=r"x\.tsv not found; get it from .* put it in data/x/"
        ):
            fetch.official(entry(url), "x.tsv")
    assert leftovers(shelf) == []


def test_a_full_disk_while_downloading_leaves_nothing(shelf, server, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "sha256", full)
    with pytest.raises(OSError, match="No space left"):
        fetch.official(entry(f"{server}/whole"), "x.tsv")
    assert leftovers(shelf) == []


def test_a_full_disk_while_preparing_can_be_gone_on_from(tmp_path, monkeypatch):
    rows = "\n".join(f"{k % 2}\t{k % 7}" for k in range(2000)) + "\n"
    (tmp_path / "x.tsv").write_text(rows)
    recipe, source = (
        prepare.Recipe("label", ("a",)),
        sources.TextSource(tmp_path / "x.tsv", ("label", "a")),
    )
    prepare.prepare(source, recipe, tmp_path / "whole", {})
    monkeypatch.setattr(sources, "CHUNK_BYTES", 1000)
    calls, sync = [], prepare.os.fsync

    def full(number):
        calls.append(number)
        if len(calls) == 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr(prepare.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        prepare.prepare(source, recipe, tmp_path / "cut", {})
    assert not (tmp_path / "cut").exists()
    prepare.prepare(source, recipe, tmp_path / "cut", {})
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "cut" / path.name).read_bytes() == path.read_bytes()
