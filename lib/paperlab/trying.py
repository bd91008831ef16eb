"""Try a paper on a data set from the command line: a run's folder with its record and its picture."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from . import checks, manifest, plots, records, tryout
from .data.own import shelf
from .parameters import Parameter

SEEDS = Parameter("seeds", "list[int]", [0, 1, 2], "runs", 0, 4_000_000_000)


def run(
    name: str,
    data: str,
    root: Path,
    seeds: str,
    settings: dict[str, str],
    only: Sequence[str],
    threads: int,
    tell: Callable[[str], None],
) -> tuple[tryout.Tryout, Path]:
    """`tryout.run` into a new folder under data/runs; the record's profile is "try".

    Raises what `tryout.run` raises, before the folder is made where the input is at fault; a run that
    ends early is marked failed.
    """
    stem = manifest.named(name, root).stem
    seeds = SEEDS.cast(_listed(seeds))
    settings = cast(stem, settings)
    terms = tryout.terms_of(stem, settings)
    tryout.chosen(terms, only)
    shelf.check_known(data.partition("/")[0])
    found = tryout.load(data, stem)
    parameters = {"data": data, "seeds": list(seeds), "only": list(only)} | terms["settings"]
    record = records.begin(stem, "try", parameters, root)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]
    folder = root / "data/runs" / f"{stamp}-{stem}-try-{record['key']}"
    folder.mkdir(parents=True)
    path, began = folder / "record.json", time.perf_counter()
    with records.running(folder):
        records.write(path, record)
        error, drawn = None, []
        try:
            own = records.start(stem, seeds[0], threads)
            with _budget_named(), _stopping_all():
                tried = tryout.run(stem, found, own, seeds=seeds, only=only, tell=tell, **settings)
            own.verdicts = [judged.stored() for judged in tried.judged]
            own.save_in(folder)
            drawn = [draw(tried, folder).name]
        except BaseException as problem:
            error = {
                "cell": None,
                "message": f"{type(problem).__name__}: {problem}".splitlines()[0],
            }
            raise
        finally:
            ended = {"status": "failed" if error else "ok", "error": error, "figures": drawn}
            ended["seconds"] = round(time.perf_counter() - began, 2)
            records.write(path, (records.read(path) or record) | ended)
    return tried, folder


@contextmanager
def _budget_named() -> Iterator[None]:
    """Name the setting that is at fault where no width of a contender meets its budget."""
    try:
        yield
    except ValueError as problem:
        if "dense weights within" not in str(problem):  # what `nn.budget.width_for` says
            raise
        raise ValueError(f"budget: {problem}; --set budget=WEIGHTS takes another") from None


class _Stopped(BaseException):
    """Ctrl-C in the middle of a comparison."""


@contextmanager
def _stopping_all() -> Iterator[None]:
    """Let Ctrl-C end the whole comparison: `loop.fit` takes a KeyboardInterrupt as the end of one fit."""

    def stop(*_):
        raise _Stopped

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except _Stopped:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


def cast(name: str, settings: dict[str, str]) -> dict[str, object]:
    """Settings from the command line as the types of their defaults; raises BadInput."""
    known, values = tryout.terms_of(name, {})["settings"], {}
    for setting, text in settings.items():
        checks.one_of(known, setting=setting)
        default = known[setting]
        several = isinstance(default, list | tuple)
        kind = type(default[0] if several else default).__name__
        if several:
            kind, default = f"list[{kind}]", list(default)
            text = _listed(text)
        values[setting] = Parameter(setting, kind, default, "").cast(text)
    return values


def _listed(text: str) -> str:
    """One value as a list of one; a list or a range as it is."""
    return text if set("[,") & set(text) or ".." in text else f"[{text}]"


def draw(tried: tryout.Tryout, folder: Path) -> Path:
    """The picture as PNG, or as a page where there is no browser to draw it."""
    figure = tried.figure()
    plots.bundle(figure)  # the house style
    if plots.browser() is None:
        figure.write_html(folder / "verdict.html")
        return folder / "verdict.html"
    figure.write_image(folder / "verdict.png", width=plots.SIZE["width"])
    return folder / "verdict.png"
