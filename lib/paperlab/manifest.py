"""One manifest a paper, ``notebooks/NNN_slug.toml``: what cards, lists, runs and figures share.

Keys of a manifest; ``note`` and the tables may be left out:

    name        short name of the paper, as in the notebook's heading
    question    the heading's question
    title, authors, venue, arxiv    the paper's; arxiv is a list of ids, empty where there is none
    claim       the paper's claim in one sentence
    status      one of STATUSES; drafts are not listed by `paperlab index`
    family      a folder of FAMILIES
    module      the paper's file, as a dotted name below paperlab
    quick_data  what the quick run reads
    data        names of the catalogue's sets that some profile reads, NAME or NAME/PART
    note        paragraphs under the card: what is the paper's, what is reconstructed
    [colours]           method = "#rrggbb"
    [profiles.NAME]     parameter = value, for the parameters that differ from the quick run's
    [measured.NAME]     seconds and memory_mb (peak) of a profile, last measured
    [tryout]            how the method is tried on a reader's data: see `paperlab.tryout`

A notebook with the status "no paper" leaves out title, authors, venue, arxiv and module.
"""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from .parameters import BadInput, Parameter, inspect, pick


class Family(NamedTuple):
    """A folder of lib/paperlab, the words that readers see, and the kind of its templates."""

    folder: str
    caption: str
    template: str


FAMILIES = {  # a number's first digit -> its family; the only such list
    "0": Family("start", "Start here", "plain"),  # no papers: how the workspace itself works
    "1": Family("ctr", "Click-through-rate models", "click"),
    "2": Family("interest", "User interest and sequences", "click"),
    "3": Family("feedback", "Feedback and conversion", "click"),
    "4": Family("retrieval", "Retrieval", "click"),
    "5": Family("rl", "Reinforcement learning", "agent"),
    "6": Family("align", "Alignment", "language"),
    "7": Family("rlvr", "Reasoning with verifiable rewards", "language"),
    "8": Family("structure", "Structure", "plain"),
    "9": Family("evaluation", "Evaluation", "plain"),
}
STATUSES = ("reproduction", "partial", "our reading of the abstract", "draft", "no paper")
OF_A_PAPER = ("title", "authors", "venue", "arxiv", "module")
OPTIONAL = ("note", "colours", "profiles", "measured", "tryout")
TRYOUT = {"kind": str, "contenders": str, "method": str, "rivals": list, "delta": float}
NOTEBOOK = re.compile(r"(\d{3})_(\w+)")
MEASURES = {"seconds", "memory_mb"}


@dataclass(frozen=True)
class Manifest:
    """What a manifest says; see the keys above. stem: NNN_slug."""

    stem: str
    name: str
    question: str
    claim: str
    status: str
    family: str
    quick_data: str
    data: list[str]
    title: str = ""
    authors: str = ""
    venue: str = ""
    arxiv: list[str] = field(default_factory=list)
    module: str = ""
    note: str = ""
    colours: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    tryout: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> str:
        return self.stem[:3]

    @property
    def slug(self) -> str:
        return self.stem[4:]

    @property
    def heading(self) -> str:
        return f"{self.number} · {self.name}: {self.question}"

    def profile(self, name: str, known: dict[str, Parameter]) -> dict[str, Any]:
        """A profile's values as the types of the notebook's parameters; "quick" has none.

        name: a profile of the manifest, or a TOML file, FILE.toml, whose keys are parameters.
        Raises BadInput for an unknown profile, and for a parameter or a value that does not fit.
        """
        if name.endswith(".toml"):
            chosen, where = _profile_file(Path(name)), Path(name).name
        elif name == "quick" or name in self.profiles:
            chosen, where = self.profiles.get(name, {}), f"{self.stem}.toml: profiles.{name}"
        else:
            names = ", ".join(["quick", *self.profiles])
            raise BadInput(f"{self.slug} has no profile {name!r}; it has: {names}, or FILE.toml")
        values = {}
        for key, value in chosen.items():
            try:
                parameter = pick(known, key, self.slug)
                if parameter.name in values:
                    raise BadInput(f"{parameter.name} is set twice")
                values[parameter.name] = parameter.cast(value)
            except BadInput as error:
                raise BadInput(f"{where}: {error}") from None
        return values


def _profile_file(path: Path) -> dict[str, Any]:
    """The values of a profile that is a file of its own; raises BadInput."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError):
        raise BadInput(
            f"{path} cannot be read: a profile file is TOML, NAME = value a line"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path.name}: not TOML: {str(error).splitlines()[0]}") from None


def read(path: Path) -> Manifest:
    """A manifest file by itself; raises BadInput, which names the file and the key."""
    try:
        return parse(path.read_text(), path.stem)
    except FileNotFoundError:
        raise BadInput(f"{path.name} is missing: every notebook but 000 has a manifest") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path.name}: not TOML: it is not UTF-8") from None


def parse(text: str, stem: str) -> Manifest:
    """`read` of a manifest's text; stem: NNN_slug."""
    file = f"{stem}.toml"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{file}: not TOML: {str(error).splitlines()[0]}") from None
    if not NOTEBOOK.fullmatch(stem):
        raise BadInput(f"{file}: a manifest is called NNN_slug.toml, as its notebook is")
    kinds = {f.name: f.type for f in fields(Manifest) if f.name != "stem"}
    for key, value in table.items():
        if key not in kinds:
            raise BadInput(f"{file}: {key}: unknown key; there are {', '.join(kinds)}")
        if not _fits(value, kinds[key]):
            raise BadInput(f"{file}: {key}: must be {kinds[key]}, not {str(value)[:40]!r}")
        if kinds[key] == "str" and key != "note" and (set("|\n") & set(value) or not value.strip()):
            raise BadInput(f"{file}: {key}: must be one line of text without |")
    optional = {*OPTIONAL, *(OF_A_PAPER if table.get("status") == "no paper" else ())}
    for key in kinds:
        if key not in table and key not in optional:
            raise BadInput(f"{file}: {key}: missing")
    manifest = Manifest(stem=stem, **table)
    _check_values(manifest, file)
    return manifest


def _fits(value: Any, kind: str) -> bool:
    """Whether a value of TOML has the type that a field of `Manifest` names."""
    if kind == "str":
        return isinstance(value, str)
    if kind == "list[str]":
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    inside = kind.removeprefix("dict[str, ").removesuffix("]")
    if not isinstance(value, dict):
        return False
    if inside == "Any":
        return True
    if inside == "float":
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in value.values())
    return all(_fits(v, inside) for v in value.values())


def _check_values(manifest: Manifest, file: str) -> None:
    folders = [family.folder for family in FAMILIES.values()]
    if manifest.status not in STATUSES:
        raise BadInput(f"{file}: status: must be one of {', '.join(STATUSES)}")
    if manifest.family not in folders:
        raise BadInput(f"{file}: family: must be one of {', '.join(folders)}")
    for name in manifest.arxiv:
        if not re.fullmatch(r"\d{4}\.\d{4,5}", name):
            raise BadInput(f"{file}: arxiv: an id is like 2604.08011, not {name[:40]!r}")
    for method, code in manifest.colours.items():
        if not re.fullmatch(r"#[0-9a-f]{6}", code):
            raise BadInput(f"{file}: colours.{method}: must be like #1f77b4, not {code[:40]!r}")
    if "quick" in manifest.profiles:
        raise BadInput(f"{file}: profiles.quick: the notebook's own values are the quick profile")
    for profile, numbers in manifest.measured.items():
        if not set(numbers) <= MEASURES or not all(0 < v < float("inf") for v in numbers.values()):
            raise BadInput(f"{file}: measured.{profile}: must be seconds and memory_mb above 0")
    terms = manifest.tryout
    if terms and {k: type(v) for k, v in terms.items() if k != "settings"} != TRYOUT:
        keys = ", ".join(f"{key} ({kind.__name__})" for key, kind in TRYOUT.items())
        raise BadInput(f"{file}: tryout: must hold {keys} and may hold settings, a table")
    if terms and not (terms["delta"] > 0 and terms["rivals"]):
        raise BadInput(f"{file}: tryout: delta must be above 0, and rivals at least one")


def notebooks(root: Path) -> list[Path]:
    """The project's NNN_slug.ipynb, in order; copies such as 101_ssr-Copy1.ipynb are left out."""
    books = sorted((root / "notebooks").glob("*.ipynb"))
    return [path for path in books if NOTEBOOK.fullmatch(path.stem)]


def readable(root: Path) -> tuple[list[Manifest], list[str]]:
    """The manifests that can be read and fit their notebooks, in order, and what is wrong with the others.

    The start page, 000, has none.
    """
    good, bad = [], []
    for path in notebooks(root):
        if path.stem.startswith("000"):
            continue
        try:
            manifest = read(path.with_suffix(".toml"))
            known = inspect(path) if manifest.profiles else {}
            for profile in manifest.profiles:
                manifest.profile(profile, known)
        except BadInput as error:
            bad.append(str(error))
        else:
            good.append(manifest)
    return good, bad


def every(root: Path) -> list[Manifest]:
    """All manifests in the order of their numbers, checked against each other and their notebooks.

    Raises BadInput for what `readable` and `colours` refuse, a manifest without a notebook, and two
    notebooks of one number or slug.
    """
    manifests, bad = readable(root)
    if bad:
        raise BadInput(bad[0])
    colours(root)
    stems = {manifest.stem for manifest in manifests}
    for path in _files(root):
        if path.stem not in stems:
            raise BadInput(f"{path.name}: there is no {path.stem}.ipynb beside it")
    for part in ("number", "slug"):
        seen: dict[str, str] = {}
        for manifest in manifests:
            value = getattr(manifest, part)
            if value in seen:
                raise BadInput(f"{manifest.stem}.toml: {part}: {seen[value]}.toml has {value} too")
            seen[value] = manifest.stem
    return manifests


def named(name: str, root: Path | None = None) -> Manifest:
    """The manifest of a notebook by number, slug or NNN_slug; raises BadInput that lists the slugs."""
    paths = _files(root or project_root())
    for path in paths:
        if name.replace("-", "_") in (path.stem, *NOTEBOOK.fullmatch(path.stem).groups()):
            return read(path)
    raise BadInput(f"no paper {name!r}; there are: {', '.join(path.stem[4:] for path in paths)}")


def _files(root: Path) -> list[Path]:
    """All manifest files; ruff.toml, for instance, is none."""
    return sorted((root / "notebooks").glob("[0-9]*.toml"))


@functools.cache
def colours(root: Path) -> dict[str, str]:
    """Method -> colour, from all manifests; read once a process.

    Raises BadInput where a method has two colours, or two methods of a family share one.
    """
    found: dict[str, tuple[str, str]] = {}  # method -> colour, file
    owners: dict[tuple[str, str], str] = {}  # family, colour -> method
    for path in _files(root):
        manifest = read(path)
        for method, code in manifest.colours.items():
            other, file = found.setdefault(method, (code, path.name))
            if other != code:
                raise BadInput(f"{path.name}: colours.{method}: {code}, but {other} in {file}")
            owner = owners.setdefault((manifest.family, code), method)
            if owner != method:
                raise BadInput(f"{path.name}: colours.{method}: {code} is the colour of {owner}")
    return {method: code for method, (code, _) in found.items()}


def project_root(start: Path | None = None) -> Path:
    """The nearest folder above (the current one, then this file) with notebooks/ and pyproject.toml.

    Raises FileNotFoundError when there is none.
    """
    for place in (start or Path.cwd(), Path(__file__)):
        for folder in (place.resolve(), *place.resolve().parents):
            if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
                return folder
    raise FileNotFoundError("no Paperlab project here: a folder with notebooks/ and pyproject.toml")
