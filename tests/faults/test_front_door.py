"""The front door: every parameter of every notebook with wrong names, types and values.

All through the command as a user types it. What is wrong must be refused in one line, with exit code
2, before a kernel starts and before a folder is made; what is odd but fits must arrive as its type.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jupyter_client.provisioning.local_provisioner as kernels
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paperlab import cli, records, runs
from paperlab.parameters import Parameter, inspect

ROOT = records.project_root(Path(__file__))
BOOKS = runs.notebooks(ROOT)
HUGE = 10**60  # above the upper bound of whatever has one
CODE = "__import__('os').mkdir('data')"
NO_NUMBER = [
    *("", " ", "x", "nan", "None", "True", "{}", "()", "{1}", "'1'", "1;2", "1,2", "0x", "1__0"),
    *("1+1", "1j", "b'1'", "...", "[]", "[1]", "1\n2", "１²", "−1", "1e", '"', "'", "\\", "\x1b[2J"),
    *(CODE, "lambda: 1", "--set", "$(id)", "[" * 5000, "[" * 900 + "1" + "]" * 900, "-" * 9000 + "1"),
]  # fmt: skip


def outside(parameter: Parameter) -> list[str]:
    """Numbers just beyond a parameter's bounds, and far beyond."""
    found = []
    for bound, sign in ((parameter.low, -1), (parameter.high, 1)):
        if bound is None:
            continue
        if "int" in parameter.type:
            found += [str(int(bound) + sign), str(sign * HUGE), f"{sign * HUGE:#x}", f"{sign}" + "0" * 4000]  # fmt: skip
        else:
            found += [repr(math.nextafter(bound, sign * math.inf)), f"{sign}e300", str(sign * HUGE)]
    return found


def wrong_values(parameter: Parameter) -> dict[str, list[str]]:
    """What a parameter must not take, of another type and of another value."""
    inside = parameter.type.removeprefix("list[").removesuffix("]")
    kinds = {
        "int": [*NO_NUMBER, "1.0", "1e3", "inf", "1e999", "0..1"],
        "float": [*NO_NUMBER, "inf", "-inf", "1e999", "1" + "0" * 400, "0..1"],
        "bool": [t for t in NO_NUMBER if t != "True"]
        + ["0", "1", "yes", "1.0", "[True]", "'True'"],
        "str": [],  # any text is one
    }[inside]
    values = outside(parameter)
    if inside != parameter.type:
        bare = ["", "x", "1", "0.5", "None", "{}", "{1}", "{'a': 1}", "[", "]", "][", CODE, "[1]2"]
        bare += ["0..", "..3", "3..1", "0..99999999999", "0.." + "9" * 5000, "-1..2"]
        within = [
            "True",
            "None",
            "[[]]",
            "{}",
            "{'a': 1}",
            "()",
            "b'1'",
            "[1",
            "1]",
            "[1]",
            "1, [1]",
        ]
        if inside != "str":
            within += ["x", "nan", "''", "1j", CODE, "1, x", "inf", "1e999", "1.5, nan", "[" * 3000]
        kinds = bare + [f"[{w}]" for w in within]
        kinds += ["[1]", "[0.5, 'a']", "[1e999]"] if inside == "str" else []
        kinds += ["[]", "[ ]", "()", "[,]"] if parameter.default else []
        values = [f"[{v}]" for v in values]
        if inside == "int":
            kinds += ["[1.0]", "[1e3]"]
    return {"type": kinds, "value": values}


def wrong_names(name: str) -> list[str]:
    """Names that are not a parameter's; its case does not matter, so capitals are right."""
    return [
        *(f"{name}_", f"_{name}", name[:-1] + "é", f"{name}.x", f"{name}[0]", f"--{name}", f"{name}:int"),
        *(name.replace(name[0], "\N{CYRILLIC SMALL LETTER A}", 1), f"{name}\nrows", f"'{name}'", name * 50),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The notebooks' cards and parameters in a project without runs; outputs would only cost time."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "notebooks").mkdir()
    (folder / "pyproject.toml").touch()
    for path in BOOKS:
        book = json.loads(path.read_text())
        kept = [c for c in book["cells"] if "parameters" in c["metadata"].get("tags", [])]
        (folder / "notebooks" / path.name).write_text(json.dumps(book | {"cells": kept}))
    for path in (ROOT / "notebooks").glob("[0-9]*.toml"):
        shutil.copy(path, folder / "notebooks")
    return folder


class Started(Exception):
    """A run got past the front door."""


@pytest.fixture
def door(home, monkeypatch, capsys):
    """door(*words) -> exit code, lines of stderr, the values that a run would have taken or None."""
    taken = []

    def begin(notebook, profile, parameters, root):
        taken.append(parameters)
        raise Started

    def kernel(*_, **__):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(records, "begin", begin)  # what a run calls first, before its folder
    monkeypatch.setattr(kernels, "launch_kernel", kernel)
    monkeypatch.setattr(cli, "app", typer.main.get_command(cli.app))  # built once, not at each call
    monkeypatch.chdir(home)

    def call(*words: str):
        taken.clear()
        monkeypatch.setattr(sys, "argv", ["paperlab", *words])
        with warnings.catch_warnings(record=True) as warned:  # they would be more lines on stderr
            warnings.simplefilter("always")
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = end.code
            except Started:
                code = None
        said = capsys.readouterr()
        assert not warned, warned[0].message
        assert not said.out
        assert not (home / "data").exists()
        return code, said.err.splitlines(), taken[0] if taken else None

    return call


def refused(door, stem: str, name: str, value: str) -> None:
    code, lines, taken = door("run", stem, "--set", f"{name}={value}")
    case = f"{stem}: {name[:40]!r}={value[:40]!r}"
    assert taken is None, f"{case} was taken"
    assert code == 2, case
    assert len(lines) == 1 and lines[0].startswith("paperlab: "), f"{case}: {lines}"
    assert len(lines[0]) < 4000, case


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_what_is_wrong_is_refused(door, path):
    for name, parameter in inspect(path).items():
        for wrong in wrong_names(name):
            refused(door, path.stem, wrong, json.dumps(parameter.default))
        for wrong in (w for kind in wrong_values(parameter).values() for w in kind):
            refused(door, path.stem, name, wrong)


NASTY = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(codec="ascii"), max_size=20),
    st.text("0123456789.,[]{}()-+eE_x'\"\\ \n\t=", max_size=20),
    st.sampled_from([*NO_NUMBER, "[" * 300 + "x" + "]" * 300, "\ud800", "[\udcff]", "0..9999"]),
    st.integers().map(str),
    st.floats().map(repr),
    st.recursive(st.integers() | st.text(max_size=3) | st.floats(), st.lists, max_leaves=6).map(repr),
)  # fmt: skip


@settings(
    deadline=None,
    max_examples=250,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), text=NASTY, key=st.one_of(st.none(), NASTY))
def test_any_text_is_refused_or_arrives_as_its_type(door, data, text, key):
    path = data.draw(st.sampled_from(BOOKS), label="notebook")
    known = inspect(path)
    name = data.draw(st.sampled_from(sorted(known)), label="name")
    written = name if key is None else key
    code, lines, taken = door("run", path.stem, "--set", f"{written}={text}")
    if taken is None:
        assert (code, len(lines)) == (2, 1), lines
        assert lines[0].startswith("paperlab: ")
        return
    (parameter,) = [p for n, p in known.items() if n == written.partition("=")[0].strip().lower()]
    inside = parameter.type.removeprefix("list[").removesuffix("]")
    value = taken[parameter.name]
    assert isinstance(value, list) == (inside != parameter.type)
    for v in value if isinstance(value, list) else [value]:
        assert type(v).__name__ == inside
        if inside in ("int", "float"):
            assert math.isfinite(v)
            assert parameter.low is None or v >= parameter.low
            assert parameter.high is None or v <= parameter.high
    json.dumps(taken, allow_nan=False).encode()
    repr(taken).encode()  # a notebook is UTF-8: what cannot be written must not come this far


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "sed=1"], "did you mean seeds"),
        (["--set", "seeds=" + "[" * 5000], "seeds takes list"),
        (["--set", os.fsdecode(b"\xff=\xfe")], "has no parameter"),
    ],
)
def test_the_same_in_a_process_of_its_own(home, words, said):
    command = [sys.executable, "-c", "from paperlab.cli import main; main()", "run", "ssr", *words]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("paperlab: ") and said in line
    assert not (home / "data").exists()


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_every_parameter_is_tried_in_every_way(path):
    """At least ten wrong names each, thirty values of another type, and three beyond every bound."""
    for parameter in inspect(path).values():
        values, bounds = wrong_values(parameter), (parameter.low, parameter.high)
        number = parameter.type.strip("list[]") in ("int", "float")
        assert len(wrong_names(parameter.name)) >= 10
        assert len(values["type"]) >= 30 or parameter.type == "str"
        assert len(values["value"]) >= 3 * sum(bound is not None for bound in bounds)
        assert values["value"] or not number, f"{parameter.name} is a number without a range"
