"""Records under kill -9 and full disks: the old one or the new one, never half of one."""

import errno
import json
import os
import random
import resource
import signal
import sys

import pytest
from paperlab import records

OLD, NEW = ({"notebook": "101_x", "rows": [name] * 2_000} for name in ("old", "new"))


def killed(die) -> int:
    """The signal that ends a child, which first does what `die` does."""
    child = os.fork()
    if child == 0:  # no clean-up of the test's own process in here
        try:
            die()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] & 127


def test_a_hundred_kills_in_the_middle_of_writing_leave_the_old_record(tmp_path):
    """The kernel kills the child at a drawn byte of the record: file sizes are limited there."""
    path, draw = tmp_path / "record.json", random.Random(0)
    records.write(path, OLD)
    for _ in range(100):
        byte = draw.randrange(len(json.dumps(NEW, indent=1)))

        def die(byte=byte):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (byte, byte))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python's own answer is an OSError
            records.write(path, NEW)

        assert killed(die) == signal.SIGXFSZ
        (draft,) = tmp_path.glob(".record.json.*")
        assert draft.stat().st_size == byte  # it was killed there
        assert json.loads(path.read_text()) == OLD
        draft.unlink()


def test_a_kill_before_any_step_leaves_the_old_record_or_the_new_one(tmp_path):
    """Kill -9 before each line of `records.replace`, until a child lives through all of them."""
    path, found, whole = tmp_path / "record.json", [], False
    while not whole:
        steps = len(found)
        records.write(path, OLD)

        def die(steps=steps):
            left = iter(range(steps))

            def step(frame, event, _):
                if event == "line" and next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step

            sys.settrace(
                lambda frame, *_: step if frame.f_code is records.replace.__code__ else None
            )
            records.write(path, NEW)
            os._exit(0)

        whole = killed(die) == 0
        found.append(json.loads(path.read_text())["rows"][0])
    assert len(found) > 10
    assert found == sorted(found, reverse=True)  # old up to the step that renames, new from there
    assert set(found) == {"old", "new"}


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
