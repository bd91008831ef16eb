"""Click models by name, with one width each, for comparisons at equal numbers of dense weights.

The presets of notebook 110. Two hidden layers of one width where a model has an MLP; no dropout,
BatchNorm (but AFN's own) or penalty. Numbers of crosses, maps, heads, units and views are plain
choices that nobody tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..data.schema import Schema
from ..nn.click import ClickModel
from ..nn.mlp import MLP
from .baselines.afn import AFN
from .baselines.autoint import AutoInt
from .baselines.dcn import DCN
from .baselines.dcnv2 import DCNv2
from .baselines.deepfm import DeepFM
from .baselines.dlrm import DLRM
from .baselines.dnn import DNN
from .baselines.edcn import EDCN
from .baselines.fibinet import FiBiNET
from .baselines.final import FINAL
from .baselines.fm import FM
from .baselines.fwfm import FwFM
from .baselines.gdcn import GDCN
from .baselines.lr import LR
from .baselines.masknet import MaskNet
from .baselines.nfm import NFM
from .baselines.pnn import PNN
from .baselines.rankmixer import RankMixer
from .baselines.wide_and_deep import WideAndDeep
from .baselines.wukong import Wukong
from .baselines.xdeepfm import XDeepFM
from .finalmlp import DualMLP, FinalMLP
from .mlcc import MLCC
from .ssr import SSR

Builder = Callable[[Schema, int | None], ClickModel]

FLAT = ("LR", "FM", "FwFM")  # lookups and a few numbers: there is no width to set
BASE = (*FLAT, "DNN", "DNN + LN, GELU")  # what every architecture stands beside


def builders(dim: int = 8, std: float = 0.03) -> dict[str, Builder]:
    """Name -> (schema, width) -> model, as `trials.compare` takes them; BASE comes first.

    dim: width of a field's vector. std: standard deviation of the initial tables.
    A builder of FLAT ignores the width.
    """
    own = {"std": std}

    def deep(cls: type[ClickModel], **more) -> Builder:
        return lambda schema, w: cls(schema, dim, widths=(w, w), **more, **own)

    def streams(w: int) -> tuple[tuple[int, ...], ...]:
        return (2 * w, 2 * w), (2 * w,)

    stack = {"layers": 2, "n_lcb": 8, "n_fmb": 8, "rank": 4}
    mixer = {"tokens": 2, "layers": 2, "expansion": 1}
    plain = {"batch_norm": False} | own
    return {
        "LR": lambda s, _: LR(s, **own),
        "FM": lambda s, _: FM(s, dim, **own),
        "FwFM": lambda s, _: FwFM(s, dim, **own),
        "DNN": deep(DNN),
        # the control for models that have LayerNorm and GELU beside their own mechanism
        "DNN + LN, GELU": lambda s, w: _NormedDNN(s, dim, widths=(w, w), **own),
        "Wide&Deep": deep(WideAndDeep),
        "DeepFM": deep(DeepFM),
        "NFM": deep(NFM),
        "DLRM": deep(DLRM),
        "IPNN": deep(PNN),
        "FiBiNET": deep(FiBiNET, kind="each"),
        "xDeepFM": deep(XDeepFM, maps=(8, 8)),
        "MaskNet": deep(MaskNet, ratio=0.5),
        "DCN": deep(DCN, crosses=2),
        "DCNv2": deep(DCNv2, crosses=2),
        "GDCN": deep(GDCN, crosses=2),
        "EDCN": lambda s, w: EDCN(s, dim, crosses=2, hidden=w, **own),
        "AutoInt+": deep(AutoInt, layers=2, attention_dim=16),
        "AFN+": deep(AFN, units=16),
        "FINAL-1B": lambda s, w: FINAL(s, dim, blocks=((2 * w, 2 * w),), **own),
        "FINAL-2B": lambda s, w: FINAL(s, dim, blocks=streams(w), **own),
        "DualMLP": lambda s, w: DualMLP(s, dim, widths=((w, w), (w,)), **plain),
        "FinalMLP": lambda s, w: FinalMLP(s, dim, widths=streams(w), heads=2, **plain),
        "MLCC": deep(MLCC, dropout=0.0),
        "SSR-D": lambda s, w: SSR(s, dim=dim, views=4, width=w, **own),
        "Wukong": lambda s, w: Wukong(s, dim, fmb_widths=(w,), widths=(w,), **stack, **own),
        "RankMixer": lambda s, w: RankMixer(s, dim, width=2 * w, **mixer, **own),
    }


class _NormedDNN(DNN):
    """DNN with LayerNorm and GELU after each hidden layer, where DNN has ReLU."""

    def __init__(self, schema: Schema, dim: int, *, widths: tuple[int, int], **options):
        super().__init__(schema, dim, widths=widths, **options)
        between = partial(_norm_then_gelu, widths[0])
        self.mlp = MLP(self.d_in, widths, out=1, activation=between)


def _norm_then_gelu(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.GELU())


def contenders() -> dict[str, Builder]:
    """What `paperlab.tryout` compares: the models that most users ask for, on tables of width 16."""
    every = builders(16)
    names = ("LR", "FM", "DNN", "DeepFM", "xDeepFM", "MaskNet", "DCNv2", "AutoInt+", "FinalMLP")
    return {name: every[name] for name in (*names, "SSR-D")}
