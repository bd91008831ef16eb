"""Records under kill -9 and full disks: the old one or the new one, never half of one."""

import errno
import json
import os
import random
import signal
import time

import pytest
from paperlab import records

OLD, NEW = ({"notebook": "101_x", "rows": [name] * 20_000} for name in ("old", "new"))


def test_a_hundred_kills_in_the_middle_of_writing_leave_a_whole_record(tmp_path):
    """A child writes two records in turn and is killed at a random moment, a hundred times."""
    path, draw, seen = tmp_path / "record.json", random.Random(0), set()
    records.write(path, OLD)
    drafts = 0
    for _ in range(100):
        child = os.fork()
        if child == 0:  # no clean-up of the test's own process in here
            try:
                while True:
                    records.write(path, NEW)
                    records.write(path, OLD)
            finally:
                os._exit(1)
        time.sleep(draw.uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        found = json.loads(path.read_text())
        assert found in (OLD, NEW)
        seen.add(found["rows"][0])
        drafts += (tmp_path / f".record.json.{child}").exists()
    assert seen == {"old", "new"}
    assert drafts > 10  # so many kills did fall into a write


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_record_and_leaves_no_draft(tmp_path, monkeypatch, call):
    path = tmp_path / "record.json"
    records.write(path, OLD)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if call == "fsync" else records.Path, call, full)
    with pytest.raises(OSError, match="No space left"):
        records.write(path, NEW)
    assert json.loads(path.read_text()) == OLD
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
