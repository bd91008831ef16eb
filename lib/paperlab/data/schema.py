"""What the columns of a click log mean: fields, labels, and the key of grouped metrics."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Field:
    """One input column.

    kind: ``categorical`` holds an id in ``[0, size)``, where 0 is out-of-vocabulary;
    ``numeric`` holds a float; ``sequence`` is a column of the log's event table: a row's history
    is a span of events, oldest first, and all sequences of a schema are columns of the same events.
    size: number of ids, out-of-vocabulary included (numeric: 0).
    length: the most recent events of a history that a row uses, >= 1, equal for all sequences of
        a schema (otherwise 0).
    shares: name of the categorical field whose embedding table a sequence uses.
    """

    name: str
    kind: Literal["categorical", "numeric", "sequence"] = "categorical"
    size: int = 0
    length: int = 0
    shares: str | None = None

    def __post_init__(self):
        if self.kind not in ("categorical", "numeric", "sequence"):
            raise ValueError(
                f"field {self.name!r}: kind is categorical, numeric or sequence, not {self.kind!r}"
            )
        if self.kind == "categorical" and self.size < 1:
            raise ValueError(
                f"field {self.name!r}: a categorical field needs size >= 1, got {self.size}"
            )
        if self.kind == "sequence" and (
            self.length < 1 or (self.shares is None) == (self.size < 1)
        ):
            raise ValueError(
                f"field {self.name!r}: a sequence needs length >= 1, and either size or shares"
            )


@dataclass(frozen=True)
class Schema:
    """The fields of a log in the order categorical, numeric, sequence; its labels; its user key.

    user: name of the categorical field by which grouped metrics (GAUC) group rows, or None.
    Raises ValueError for duplicate names, a user or a shared table that is not a categorical field,
    and sequences of different length.
    """

    fields: tuple[Field, ...]
    labels: tuple[str, ...] = ("label",)
    user: str | None = None

    def __post_init__(self):
        order = ("categorical", "numeric", "sequence")
        object.__setattr__(
            self, "fields", tuple(sorted(self.fields, key=lambda f: order.index(f.kind)))
        )
        names = [f.name for f in self.fields] + list(self.labels)
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ValueError(f"schema: names occur twice: {doubled}")
        if not self.fields or not self.labels:
            raise ValueError("schema: needs at least one field and one label")
        if len({f.length for f in self.sequences}) > 1:
            lengths = {f.name: f.length for f in self.sequences}
            raise ValueError(f"schema: sequences must have one length, got {lengths}")
        known = {f.name for f in self.categorical}
        for name in [self.user, *(f.shares for f in self.sequences)]:
            if name is not None and name not in known:
                raise ValueError(
                    f"schema: {name!r} is not a categorical field; those are {sorted(known)}"
                )

    @cached_property
    def categorical(self) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.kind == "categorical")

    @cached_property
    def numeric(self) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.kind == "numeric")

    @cached_property
    def sequences(self) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.kind == "sequence")

    @cached_property
    def length(self) -> int:
        """The most recent events of a history that a row uses; 0 without sequences."""
        return self.sequences[0].length if self.sequences else 0

    @cached_property
    def user_column(self) -> int | None:
        """Column of the user key among the categorical fields."""
        return None if self.user is None else [f.name for f in self.categorical].index(self.user)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        raw = json.loads(text)
        return cls(tuple(Field(**f) for f in raw["fields"]), tuple(raw["labels"]), raw["user"])
