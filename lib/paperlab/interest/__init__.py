"""Click models on a user's history: one paper a file, one head, `paperlab.nn.ClickModel`."""

from .attention import TargetAttention
from .average import AveragePooling
from .base import InterestModel
from .bst import BST
from .dien import DIEN
from .din import DIN
from .encoding import TemporalEncoding
from .sasrec import SASRec
from .tin import TIN

__all__ = [
    "BST",
    "DIEN",
    "DIN",
    "TIN",
    "AveragePooling",
    "InterestModel",
    "SASRec",
    "TargetAttention",
    "TemporalEncoding",
]
