"""Moments of the worlds against the sheet, against their own logs, and against KuaiRand."""

import os

import numpy as np
import polars as pl
import pytest
from paperlab.data import fetch
from paperlab.rl import calibration
from paperlab.rl.worlds.funnel import FunnelModel
from paperlab.rl.worlds.live import LiveModel

TEACHING = calibration.PRESETS["teaching"]


def test_the_teaching_worlds_moments_are_the_sheets():
    found = calibration.simulated(TEACHING)
    assert found["clicks per exposure"] == pytest.approx(0.357, abs=5e-4)
    assert found["follows per click"] == pytest.approx(0.037, abs=5e-4)
    assert found["gifts per click"] == pytest.approx(0.051, abs=5e-4)


def test_moments_are_those_of_a_log():
    found = calibration.simulated(TEACHING)
    log = FunnelModel().log_dataset("uniform", 1_200_000, seed=0, steps=calibration.EXPOSURES)
    clicks = log["click"].sum()
    assert log["click"].mean() == pytest.approx(found["clicks per exposure"], rel=0.01)
    assert log["follow"].sum() / clicks == pytest.approx(found["follows per click"], rel=0.02)
    assert (log["gift"] > 0).sum() / clicks == pytest.approx(found["gifts per click"], rel=0.03)
    assert log["gap"].mean() == pytest.approx(found["requests between exposures"], rel=0.01)
    live = LiveModel().log_dataset("uniform", 400_000, seed=0, horizon=1000)
    whole = live["session"] < live["session"].max() - 5000
    for band, groups in calibration.BANDS.items():
        mean = np.mean([live["video_seconds"][whole & (live["group"] == g)].mean() for g in groups])
        assert mean == pytest.approx(found[f"seconds a video, {band}"], rel=0.005)


def test_a_table_holds_targets_against_a_preset():
    wanted = calibration.simulated(TEACHING)
    exact = calibration.table(wanted, TEACHING)
    assert (
        exact["moment"].to_list() == list(wanted) and not exact["relative error"].to_numpy().any()
    )
    doubled = calibration.table({k: v / 2 for k, v in wanted.items()}, TEACHING)
    assert doubled["relative error"].to_numpy() == pytest.approx(1)
    near = calibration.simulated(calibration.PRESETS["kuai"])
    assert near["clicks per exposure"] > 1.5 * wanted["clicks per exposure"]


def test_kuai_has_the_moments_of_the_selected_rows():
    if not os.environ.get("PAPERLAB_DATA"):
        pytest.skip("needs a copy of KuaiRand's explicit part: name its folder in PAPERLAB_DATA")
    try:
        wanted = calibration.targets()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    errors = calibration.table(wanted, calibration.PRESETS["kuai"])["relative error"]
    assert errors.abs().max() < 1e-3


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERLAB_DATA", str(tmp_path))
    (tmp_path / "kuairand").mkdir()
    return tmp_path / "kuairand"


def test_official_files_by_hand(shelf):
    rows = {"user_id": [1, 1, 1, 2], "video_id": [5, 6, 5, 6], "time_ms": [10, 20, 30, 5]}
    rows |= {
        "is_click": [1, 0, 1, 1],
        "is_follow": [1, 0, 0, 0],
        "play_time_ms": [4000, 0, 8000, 9000],
    }
    log = pl.DataFrame(rows)
    log[:2].write_csv(shelf / "log_standard_4_08_to_4_21_1k.csv")
    log[2:].write_csv(shelf / "log_standard_4_22_to_5_08_1k.csv")
    users = pl.DataFrame({"user_id": [1, 2], "user_active_degree": ["full_active", "UNKNOWN"]})
    users.write_csv(shelf / "user_features_1k.csv")
    videos = pl.DataFrame({"video_id": [5, 6], "author_id": [7, 8]})
    videos.write_csv(shelf / "video_features_basic_1k.csv")
    found = calibration.targets("1k")
    assert found["clicks per exposure"] == 0.75
    assert found["follows per click"] == pytest.approx(1 / 3)
    assert found["seconds a video, full_active"] == 4 and found["seconds a video, less active"] == 9
    assert found["requests between exposures"] == 2 / 8  # user 1 met author 7 two rows later
    assert "seconds a video, high_active" not in found


def test_faults_say_what_to_do(shelf):
    with pytest.raises(ValueError, match="part must be one of explicit, pure, 1k, 27k, not '2k'"):
        calibration.targets("2k")
    for part, name in (("explicit", "kuairand27k_explicit"), ("27k", "log_standard_4_08")):
        with pytest.raises(FileNotFoundError, match="https://kuairand.com") as error:
            calibration.targets(part)
        assert name in str(error.value) and "\n" not in str(error.value)
    (shelf / "kuairand27k_explicit_kcore15.parquet").write_bytes(b"x")
    (shelf / "kuairand_pure_user_features.parquet").write_bytes(b"x")
    with pytest.raises(ValueError, match="SHA-256"):
        calibration.targets()
    assert fetch.sha256(shelf / "kuairand_pure_user_features.parquet")
