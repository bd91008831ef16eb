"""Click models on fields: one paper a file, one contract, `paperlab.nn.ClickModel`."""

from .autoint import AutoInt
from .dcnv2 import DCNv2
from .deepfm import DeepFM
from .dnn import DNN
from .finalmlp import DualMLP, FinalMLP
from .fm import FM
from .lr import LR
from .mlcc import MLCC
from .rankmixer import RankMixer
from .ssr import SSR
from .wukong import Wukong

__all__ = [
    "DNN",
    "FM",
    "LR",
    "MLCC",
    "SSR",
    "AutoInt",
    "DCNv2",
    "DeepFM",
    "DualMLP",
    "FinalMLP",
    "RankMixer",
    "Wukong",
]
