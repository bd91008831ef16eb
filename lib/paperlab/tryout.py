"""A paper's method on a data set of the reader's: equal trials, trivial rivals, one verdict.

`paperlab try SLUG --data NAME` and the real-data section of a paper's notebook are both `run`. A
paper takes part by the table ``[tryout]`` of its manifest:

    kind        clicks, sequences, preferences or bandit: `paperlab.scoring.KIND` trains and scores them
    contenders  module below paperlab whose function ``contenders()`` gives what is compared
    method      the contender that the paper is about
    rivals      the contenders that it is compared with, a claim each
    delta       smallest effect that matters, in the kind's metric
    settings    keyword arguments of the kind's ``score``, where they differ from its defaults
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import checks, manifest, plots, verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from .recording import Record
    from .scoring.scores import Scores

KINDS = ("clicks", "sequences", "preferences", "bandit")
WORDS = {  # what an outcome says of the method; {}: the smallest effect that matters
    "supported": "better",
    "leans for": "better, by less than {}",
    "no difference": "no difference within {}",
    "leans against": "worse, by less than {}",
    "contradicted": "worse",
    "unresolved": "unresolved at {}",
}


@dataclass(frozen=True)
class Tryout:
    """A method and its rivals on one data set, judged.

    table: name of rows and units in the record. claims: one a rival.
    """

    name: str
    data: str
    table: str
    scores: Scores
    claims: list[verdict.Claim]
    seconds: float

    @property
    def judged(self) -> list[verdict.Judged]:
        """The claims with their outcomes, Holm's correction over this data set's alone."""
        return verdict.judge(self.claims)

    def sentences(self) -> list[str]:
        """One line a rival: outcome, difference, interval, seeds; then what a reader must know."""
        pair = self.scores.pair
        pairs = f"{len({row[pair] for row in self.scores.rows})} {pair}s"
        metric, lines = plots.heading(self.scores.metric), []
        for found in self.judged:
            [c], [(low, high)] = found.claim.comparisons, found.spans
            said = WORDS[found.outcome].format(f"{found.claim.delta:g} {metric}")
            lines.append(
                f"on {self.data}: {c.source['a']} against {c.source['b']}: {said}: "
                f"{c.estimate.value:+.4f} {metric} [{low:+.4f}, {high:+.4f}], {pairs}"
                + f" ({found.note})"
                * bool(found.note)
            )
        return [*lines, *self.scores.notes, f"{self.seconds:.0f} s in all"]

    def board(self) -> list[dict]:
        """One row a contender, best first: mean, half-width of its interval, other columns."""
        s = self.scores
        table = verdict.compare(s.rows, s.metric, pair=s.pair, better=s.better, columns=s.columns)
        return table.to_dicts()

    def figure(self) -> go.Figure:
        """The differences with their intervals, and the band that does not matter."""
        from . import charts

        return charts.forest(self.judged, title=f"{self.name} on {self.data}")

    def show(self) -> None:
        """Display board, picture and sentences in a notebook."""
        from IPython.display import Markdown, display

        plots.table(self.board(), best={self.scores.metric: self.scores.better})
        look = "What to look for: an interval that leaves the grey band."
        plots.show(self.figure(), self.table.replace(" ", "_").replace("/", "_"), look)
        display(Markdown("\n".join(f"- {line}" for line in self.sentences())))


def run(
    name: str,
    data: object,
    record: Record,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    only: Sequence[str] = (),
    tell: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> Tryout:
    """Compare a paper's method with its rivals on a data set, and put rows and units into a record.

    name: the paper's slug.
    data: name of a data set, NAME or NAME/PART, or what `paperlab.data.load` returns.
    seeds: of the initial weights and the order of rows; with one the interval covers test rows only.
    only: the contenders that are compared, the method among them; all by default.
    tell: called with a line of text after each trained model.
    settings: of the kind's ``score``, in place of the manifest's.
    Raises ValueError for a paper that takes no data, data of another kind, or an unknown setting.
    """
    terms = terms_of(name, settings)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be at least one, each once, got {list(seeds)}")
    if isinstance(data, str):
        data = load(data, name)
    kind = import_module(f"paperlab.scoring.{terms['kind']}")
    contenders, rivals = chosen(terms, only)
    began = time.perf_counter()
    found = kind.score(data, contenders, seeds=list(seeds), tell=tell, **terms["settings"])
    table = f"tryout {data.name}"
    record.table(table, found.rows, metric=found.metric, better=found.better, pair=found.pair)
    shared = {k: getattr(found, k) for k in ("labels", "weights", "clusters")}
    if found.units:
        record.scores(table, found.units, **shared)
    more = {"delta": terms["delta"], "better": found.better, "floor": found.floor}
    claims = [
        verdict.claim(
            record, f"{terms['method']} beats {rival} on {data.name}", table, terms["method"], rival,
            kind=found.evidence, **more,
        )
        for rival in rivals
    ]  # fmt: skip
    seconds = time.perf_counter() - began
    return Tryout(terms["method"], data.name, table, found, claims, seconds)


def terms_of(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The table ``[tryout]`` of a paper, its settings complete: defaults, the manifest's, the caller's.

    Raises ValueError for a paper without one and for a setting that its kind does not have.
    """
    paper = manifest.named(name)
    if not paper.tryout:
        takes = ", ".join(m.slug for m in manifest.every(manifest.project_root()) if m.tryout)
        raise ValueError(f"{paper.slug} takes no data set of yours; these do: {takes}")
    score = import_module(f"paperlab.scoring.{paper.tryout['kind']}").score
    known = inspect.signature(score).parameters
    defaults = {k: p.default for k, p in known.items() if p.default is not p.empty}
    for setting in settings:
        checks.one_of(defaults, setting=setting)
    return paper.tryout | {"settings": defaults | paper.tryout.get("settings", {}) | settings}


def chosen(terms: dict[str, Any], only: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The contenders that are compared, and those among them that the method is judged against.

    Raises ValueError for an unknown name, and where no rival is left.
    """
    contenders = import_module(f"paperlab.{terms['contenders']}").contenders()
    for name in only:
        checks.one_of(contenders, only=name)
    if only:
        contenders = {k: v for k, v in contenders.items() if k in {terms["method"], *only}}
    rivals = [rival for rival in terms["rivals"] if rival in contenders]
    if not rivals:
        raise ValueError(
            f"only must name a rival of {terms['method']}: {', '.join(terms['rivals'])}"
        )
    return contenders, rivals


def load(data_name: str, paper_name: str) -> object:
    """A data set, NAME or NAME/PART; raises ValueError where it is not of the kind that a paper takes."""
    from . import data

    wanted = terms_of(paper_name, {})["kind"]
    name, _, part = data_name.partition("/")
    if (kind := data.kind(name)) != wanted:
        raise ValueError(f"{name} holds {kind}; {paper_name} takes {wanted}")
    return data.load(name, **({"part": part} if part else {}))
