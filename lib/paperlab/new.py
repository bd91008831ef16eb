"""A new paper's files from a template that works as it is: manifest, model, test, notebook.

The templates are `paperlab.templates.newcomer_KIND`, the manifest and the notebook beside each, and
its test under tests/templates; a new paper's are those of its family's kind with other names.
"""

from __future__ import annotations

import builtins
import json
import keyword
import re
from pathlib import Path

from . import index, manifest, records
from .manifest import FAMILIES
from .parameters import BadInput

NAME = re.compile(r"([1-9]\d\d)_([a-z][a-z0-9_]{0,29})")
TITLE = re.compile(r'([^\s|"\\:][^|"\\:\n\r]{0,59}): ([^\s|"\\][^|"\\\n\r]{0,119})')


def new(name: str, title: str, family: str | None, root: Path) -> list[Path]:
    """Write a paper's files and change no other; the notebook is not run yet.

    name: NNN_slug. title: "Name: question?". family: a folder of lib/paperlab, made where it is
    missing; None takes that of the number's first digit. Returns the new files, the notebook last.
    Raises BadInput, before anything is written, for a malformed name or title, a name that is taken,
    and an unknown family.
    """
    number, slug, family = _checked(name, title, family, root)
    short, question = TITLE.fullmatch(title).groups()
    kind = next(f.template for f in FAMILIES.values() if f.folder == family)
    camel = "".join(part.capitalize() for part in slug.split("_"))
    words = {f"newcomer_{kind}": slug, "Newcomer": camel, "templates": family, "NNN": number}
    words |= {'"NAME"': json.dumps(short, ensure_ascii=False)}
    words |= {'"QUESTION"': json.dumps(question, ensure_ascii=False)}

    def filled(text: str) -> str:
        return re.sub("|".join(words), lambda match: words[match[0]], text)

    folder = "lib/paperlab/templates"
    sources = {
        root / f"notebooks/{name}.toml": f"{folder}/newcomer_{kind}.toml",
        root / f"lib/paperlab/{family}/{slug}.py": f"{folder}/newcomer_{kind}.py",
        root / f"tests/{family}/test_{slug}.py": f"tests/templates/test_newcomer_{kind}.py",
        root / f"notebooks/{name}.ipynb": f"{folder}/newcomer_{kind}.ipynb",
    }
    taken = [path.relative_to(root).as_posix() for path in sources if path.exists()]
    taken += [p.relative_to(root).as_posix() for p in root.glob(f"tests/**/test_{slug}.py")]
    if taken:
        raise BadInput(f"{taken[0]} exists: choose another name")
    texts = {}  # all of them, before the first is written
    package = root / f"lib/paperlab/{family}/__init__.py"
    if not package.exists():
        texts[package] = f'"""Papers of the family {family}, one a file."""\n'
    code = ""
    for path, template in sources.items():
        text = (root / template).read_text()
        if path.suffix == ".ipynb":  # words stand inside JSON's quotes
            book = json.loads(text)
            for cell in book["cells"]:
                source = "".join(cell["source"])
                code += source if cell["cell_type"] == "code" else ""
                cell["source"] = filled(source)
            card = index.card(manifest.parse(texts[path.with_suffix(".toml")], name))
            texts[path] = index.with_cell(json.dumps(book), card)
        else:
            code += text if path.suffix == ".py" else ""
            texts[path] = filled(text)
    if camel in {*re.findall(r"\w+", code), *dir(builtins)}:
        raise BadInput(f"{slug}: {camel} is a name in the template: choose another")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        records.replace(path, text)
    return list(texts)


def _checked(name: str, title: str, family: str | None, root: Path) -> tuple[str, str, str]:
    """Number, slug and family."""
    form = NAME.fullmatch(name)
    words = (form[2], form[2].capitalize()) if form else ()
    if form is None or any(map(keyword.iskeyword, words)):
        raise BadInput(
            f"{name}: write NNN_slug, 100 to 999 and at most 30 of a-z, 0-9 and _, like 104_name"
        )
    number, slug = form.groups()
    if slug.startswith("newcomer"):
        raise BadInput(f"{slug} is the name of a template: choose another")
    if not TITLE.fullmatch(title):
        raise BadInput(
            f'--title {title[:60]!r}: write "Name: does it work?" in one line, without | " \\'
        )
    for book in manifest.notebooks(root):
        if book.stem.startswith(f"{number}_"):
            raise BadInput(f"{number} is taken by {book.stem}: choose another number")
        if book.stem[4:] == slug:
            raise BadInput(f"{slug} is taken by {book.stem}: choose another name")
    folders = [known.folder for digit, known in FAMILIES.items() if digit != "0"]  # no papers there
    if family is not None and family not in folders:
        raise BadInput(f"--family {family}: one of {', '.join(folders)}")
    return number, slug, family or FAMILIES[number[0]].folder
