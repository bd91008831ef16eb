"""CI's audit: a known vulnerability fails it, no advisory data is said in one line and passes."""

import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from paperlab import records

ROOT = records.project_root(Path(__file__))
BAD = {"vulns": [{"id": "PYSEC-1-1", "summary": "bad", "affected": []}]}
STUB = """#!/usr/bin/env python3
import json, sys, urllib.request
options, found = sys.argv[1:], []
ignored = {options[k + 1] for k, o in enumerate(options) if o == "--ignore-vuln"}
for line in open(options[options.index("--requirement") + 1]):
    name, version = line.strip().split("==")
    asked = json.dumps({"package": {"name": name}, "version": version}).encode()
    service = options[options.index("--osv-url") + 1]
    answer = json.load(urllib.request.urlopen(service, asked))
    found += [v["id"] for v in answer.get("vulns", []) if v["id"] not in ignored]
print(found)
sys.exit(bool(found))
"""


@pytest.fixture
def service():
    """An advisory service on loopback that knows one bad release, old 1.0."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = asked["package"].get("name"), asked.get("version")
            answer = json.dumps(BAD if asked == ("old", "1.0") else {}).encode()
            self.send_response(503 if self.path == "/down" else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def audit(tmp_path, service):
    """audit(lock, ignored, service) runs the script in a project of its own."""

    def call(lock: str, ignored: str = "# none\n", address: str = service + "/query"):
        (tmp_path / ".ci").mkdir()
        shutil.copy(ROOT / ".ci/audit", tmp_path / ".ci")
        (tmp_path / ".ci/audit-ignored").write_text(ignored)
        (tmp_path / "requirements.lock").write_text(lock)
        stub = tmp_path / "pip-audit"
        stub.write_text(STUB)
        stub.chmod(0o755)
        tool = os.environ.get("PIP_AUDIT", str(stub))  # the real one, to hold the stub against
        environment = os.environ | {"OSV_URL": address, "PIP_AUDIT": tool}
        command = [str(tmp_path / ".ci/audit")]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return call


def test_nothing_known_passes(audit):
    assert audit("new==2.0\nother==1.0\n").returncode == 0


def test_a_known_vulnerability_fails(audit):
    done = audit("new==2.0\nold==1.0\n")
    assert done.returncode == 1
    assert "PYSEC-1-1" in done.stdout


def test_what_is_ignored_has_a_reason(audit):
    assert audit("old==1.0\n", "PYSEC-1-1 only on a system that is not ours\n").returncode == 0


def test_without_a_reason_it_fails(audit):
    done = audit("old==1.0\n", "PYSEC-1-1\n")
    assert done.returncode == 2
    assert done.stderr == "audit: .ci/audit-ignored gives no reason for PYSEC-1-1\n"


@pytest.mark.parametrize("down", [True, False])
def test_no_advisory_data_is_said_and_passes(audit, service, down):
    address = f"{service}/down" if down else "http://127.0.0.1:9/query"
    done = audit("old==1.0\n", address=address)
    assert done.returncode == 0
    told = f"audit: the advisory data at {address} cannot be reached; nothing was checked\n"
    assert done.stdout == told


def test_ci_audits_then_tests_then_holds_the_seconds():
    lines = [line.strip() for line in (ROOT / ".ci/run").read_text().splitlines()]
    assert lines.index(".ci/audit") < lines.index("make test") < len(lines) - 1
    assert lines[-1] == ".venv/bin/python tests/helpers/seconds.py"
