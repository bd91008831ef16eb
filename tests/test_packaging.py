"""pyproject.toml, requirements.lock and environment.yml say the same."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split())


def test_the_lock_pins_everything_and_names_no_local_build():
    assert LOCK["torch"] == "2.13.0"
    assert not [v for v in LOCK.values() if "+" in v]
    assert len(LOCK) > 100


def test_the_lock_satisfies_the_lower_bounds():
    pinned = {re.sub(r"[-_.]+", "-", n).lower(): v for n, v in LOCK.items()}
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["test"], *extras["book"]]:
        wanted = Requirement(text)
        assert {s.operator for s in wanted.specifier} == {">="}, text
        assert Version(pinned[wanted.name]) in wanted.specifier, text


def test_conda_users_install_the_same_lock():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [d["pip"] for d in listed if isinstance(d, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = [d for d in listed if str(d).startswith("python=")]
    minimum = PROJECT["requires-python"].removeprefix(">=")
    assert Version(python.removeprefix("python=")) >= Version(minimum)


def test_kernels_wait_as_the_front_door_does():
    """A notebook imports torch before paperlab: its kernel must have libgomp's setting from the start."""
    from jupyter_client.kernelspec import get_kernel_spec

    spins = re.search(
        r'"GOMP_SPINCOUNT", "(\d+)"', (ROOT / "lib/paperlab/__init__.py").read_text()
    )[1]
    assert get_kernel_spec("python3").env["GOMP_SPINCOUNT"] == spins, (
        "make installs the kernel spec"
    )
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert conda["variables"] == {"GOMP_SPINCOUNT": int(spins)}


def test_the_top_level_is_the_plan():
    import subprocess

    done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    tops = {line.split("/")[0] for line in done.stdout.splitlines()}
    plan = set(
        [
            "README.md",
            "environment.yml",
            "pyproject.toml",
            "requirements.lock",
            "Makefile",
            "LICENSE",
        ]
    )
    plan |= {
        ".gitignore",
        ".importlinter",
        "CONTRIBUTING.md",
        ".ci",
        "notebooks",
        "lib",
        "data",
        "figures",
        "tests",
    }
    assert not done.stdout or tops == plan
