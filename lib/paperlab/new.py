"""A new paper's files from templates that work as they are: model, test, notebook, rows.

The templates are `paperlab.templates.newcomer`, its notebook beside it and its test, all of them
living files; a new paper's are these with other names.
"""

from __future__ import annotations

import json
import keyword
import re
from pathlib import Path

from . import records, runs

FAMILIES = {  # a number's first digit -> folder of lib/paperlab
    "1": "ctr",
    "2": "interest",
    "3": "feedback",
    "4": "retrieval",
    "5": "rl",
    "6": "align",
    "7": "rlvr",
    "8": "structure",
    "9": "evaluation",
}
NAME = re.compile(r"([1-9]\d\d)_([a-z][a-z0-9_]{0,29})")
TITLE = re.compile(r'[^\s|"\\][^|"\\\n\r]{0,119}')
TAKEN = (
    "newcomer",
    "templates",
    "batch",
    "click_model",
    "f",
    "float",
    "schema",
    "tensor",
)  # by the template
PROFILE = """{slug}:
  full:
    seeds: [0, 1, 2, 3, 4]
    rows: 60000
"""


def new(name: str, title: str, family: str | None, root: Path) -> list[Path]:
    """Write a paper's files and its rows in profiles.yaml and README.md; the notebook is not run yet.

    name: NNN_slug. family: a folder of lib/paperlab, made where it is missing; None takes that of
    the number's first digit. Returns the new files, the notebook last. Raises BadInput before
    anything is written: for a name or a title that is none, what is taken, an unknown family.
    """
    number, slug, family = _checked(name, title, family, root)
    words = {"newcomer": slug, "Newcomer": "".join(part.capitalize() for part in slug.split("_"))}
    words |= {"templates": family, "NNN": number, "Title of the paper": title}

    def filled(text: str) -> str:
        return re.sub("|".join(words), lambda found: words[found[0]], text)

    source = {
        root / f"lib/paperlab/{family}/{slug}.py": "lib/paperlab/templates/newcomer.py",
        root / f"tests/{family}/test_{slug}.py": "tests/templates/test_newcomer.py",
        root / f"notebooks/{name}.ipynb": "lib/paperlab/templates/newcomer.ipynb",
    }
    taken = [path.relative_to(root).as_posix() for path in source if path.exists()]
    taken += [p.relative_to(root).as_posix() for p in root.glob(f"tests/**/test_{slug}.py")]
    if taken:
        raise runs.BadInput(f"{taken[0]} exists: choose another name")
    texts = {}  # all of them, before the first is written
    package = root / f"lib/paperlab/{family}/__init__.py"
    if not package.exists():
        texts[package] = f'"""Papers of the family {family}, one a file."""\n'
    for path, template in source.items():
        text = (root / template).read_text()
        if path.suffix == ".ipynb":  # a title stands inside JSON's quotes
            book = json.loads(text)
            for cell in book["cells"]:
                cell["source"] = filled("".join(cell["source"]))
            texts[path] = json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        else:
            texts[path] = filled(text)
    made, readme, profiles = list(texts), root / "README.md", root / "notebooks/profiles.yaml"
    row = f"| [{name}](notebooks/{name}.ipynb) | | {title} |"
    texts[profiles] = profiles.read_text().rstrip("\n") + "\n" + PROFILE.format(slug=slug)
    texts[readme] = _with_row(readme, number, row)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        records.replace(path, text)
    return made


def _checked(name: str, title: str, family: str | None, root: Path) -> tuple[str, str, str]:
    """Number, slug and family."""
    form = NAME.fullmatch(name)
    words = (form[2], form[2].capitalize()) if form else ()
    if form is None or any(map(keyword.iskeyword, words)):
        raise runs.BadInput(
            f"{name}: write NNN_slug, 100 to 999 and at most 30 of a-z, 0-9 and _, like 104_name"
        )
    number, slug = form.groups()
    if slug in TAKEN:
        raise runs.BadInput(f"{slug} is taken by the template: choose another name")
    if not TITLE.fullmatch(title):
        raise runs.BadInput(
            f'--title {title[:60]!r}: one line of 1 to 120 characters without | " \\'
        )
    for book in runs.notebooks(root):
        if book.stem.startswith(f"{number}_"):
            raise runs.BadInput(f"{number} is taken by {book.stem}: choose another number")
        if book.stem[4:] == slug:
            raise runs.BadInput(f"{slug} is taken by {book.stem}: choose another name")
    if family is not None and family not in FAMILIES.values():
        raise runs.BadInput(f"--family {family}: one of {', '.join(FAMILIES.values())}")
    return number, slug, family or FAMILIES[number[0]]


def _with_row(readme: Path, number: str, row: str) -> str:
    """The README with one more row in its table of papers, by number."""
    lines = readme.read_text().splitlines(keepends=True)
    listed = [
        (i, m[1]) for i, line in enumerate(lines) if (m := re.match(r"\| \[(\d{3})_\w+\]\(", line))
    ]
    if not listed:
        raise runs.BadInput("README.md has no table of papers with rows | [NNN_slug](...) | ... |")
    place = next((i for i, other in listed if other > number), listed[-1][0] + 1)
    return "".join([*lines[:place], f"{row}\n", *lines[place:]])
