"""Click models on fields: one paper a file, one contract, `paperlab.nn.ClickModel`."""

from .autoint import AutoInt
from .dcn import DCN
from .dcnv2 import DCNv2
from .deepfm import DeepFM
from .dlrm import DLRM
from .dnn import DNN
from .final import FINAL
from .finalmlp import DualMLP, FinalMLP
from .fm import FM
from .gdcn import GDCN
from .lr import LR
from .masknet import MaskNet
from .mlcc import MLCC
from .rankmixer import RankMixer
from .ssr import SSR
from .wide_and_deep import WideAndDeep
from .wukong import Wukong
from .xdeepfm import XDeepFM

__all__ = [
    "DCN",
    "DLRM",
    "DNN",
    "FINAL",
    "FM",
    "GDCN",
    "LR",
    "MLCC",
    "SSR",
    "AutoInt",
    "DCNv2",
    "DeepFM",
    "DualMLP",
    "FinalMLP",
    "MaskNet",
    "RankMixer",
    "WideAndDeep",
    "Wukong",
    "XDeepFM",
]
