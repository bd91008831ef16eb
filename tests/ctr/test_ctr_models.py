"""The contract that every click model keeps, on fields of all three kinds."""

import subprocess
import sys
import textwrap

import pytest
import torch
from paperlab.ctr.baselines.afn import AFN
from paperlab.ctr.baselines.autoint import AutoInt
from paperlab.ctr.baselines.dcn import DCN
from paperlab.ctr.baselines.dcnv2 import DCNv2
from paperlab.ctr.baselines.deepfm import DeepFM
from paperlab.ctr.baselines.dlrm import DLRM
from paperlab.ctr.baselines.dnn import DNN
from paperlab.ctr.baselines.edcn import EDCN
from paperlab.ctr.baselines.fibinet import FiBiNET
from paperlab.ctr.baselines.final import FINAL
from paperlab.ctr.baselines.fm import FM
from paperlab.ctr.baselines.fwfm import FwFM
from paperlab.ctr.baselines.gdcn import GDCN
from paperlab.ctr.baselines.lr import LR
from paperlab.ctr.baselines.masknet import MaskNet
from paperlab.ctr.baselines.nfm import NFM
from paperlab.ctr.baselines.pnn import PNN
from paperlab.ctr.baselines.rankmixer import RankMixer
from paperlab.ctr.baselines.wide_and_deep import WideAndDeep
from paperlab.ctr.baselines.wukong import Wukong
from paperlab.ctr.baselines.xdeepfm import XDeepFM
from paperlab.ctr.finalmlp import DualMLP, FinalMLP
from paperlab.ctr.mlcc import MLCC
from paperlab.ctr.ssr import SSR
from paperlab.data import Batch, Field, Schema
from paperlab.nn.click import ClickModel

SCHEMA = Schema(
    (
        Field("user", size=6),
        Field("item", size=5),
        Field("price", kind="numeric"),
        Field("seen", kind="sequence", length=3, shares="item"),
    )
)
SSR_SIZE = {"dim": 4, "views": 3, "width": 6}
FINALMLP_SIZE = {"widths": ((8, 8), (8,)), "heads": 2, "gate_hidden": 6}
CONTEXTS = (("user",), ("item", "price"))
MODELS = {
    "LR": lambda: LR(SCHEMA),
    "FM": lambda: FM(SCHEMA, 4),
    "DNN": lambda: DNN(SCHEMA, 4, widths=(8, 8)),
    "DeepFM": lambda: DeepFM(SCHEMA, 4, widths=(8, 8)),
    "DCNv2": lambda: DCNv2(SCHEMA, 4, widths=(8, 8)),
    "DCNv2 stacked": lambda: DCNv2(SCHEMA, 4, structure="stacked", widths=(8, 8)),
    "DCNv2 crosses": lambda: DCNv2(SCHEMA, 4, structure="crossnet_only"),
    "DCNv2 low rank": lambda: DCNv2(SCHEMA, 4, rank=3, experts=2, widths=(8,)),
    "AutoInt": lambda: AutoInt(SCHEMA, 4, attention_dim=8),
    "AutoInt+": lambda: AutoInt(SCHEMA, 4, attention_dim=8, widths=(8,)),
    "Wukong": lambda: Wukong(SCHEMA, 4, n_lcb=3, n_fmb=3, rank=2, fmb_widths=(8,), widths=(8,)),
    "DCN": lambda: DCN(SCHEMA, 4, widths=(8, 8)),
    "Wide&Deep": lambda: WideAndDeep(SCHEMA, 4, widths=(8, 8)),
    "xDeepFM": lambda: XDeepFM(SCHEMA, 4, maps=(3, 2), widths=(8, 8)),
    "MaskNet": lambda: MaskNet(SCHEMA, 4, widths=(8, 8)),
    "MaskNet parallel": lambda: MaskNet(
        SCHEMA, 4, kind="parallel", blocks=2, block_width=6, widths=(8,)
    ),
    "GDCN": lambda: GDCN(SCHEMA, 4, widths=(8, 8)),
    "GDCN stacked": lambda: GDCN(SCHEMA, 4, structure="stacked", widths=(8, 8)),
    "FINAL": lambda: FINAL(SCHEMA, 4, blocks=((8, 8),)),
    "FINAL sum": lambda: FINAL(SCHEMA, 4, blocks=((8,),), kind="sum", gate=True),
    "FINAL two blocks": lambda: FINAL(SCHEMA, 4, blocks=((8, 8), (8,))),
    "DLRM": lambda: DLRM(SCHEMA, 4, bottom_widths=(8,), widths=(8, 8)),
    "NFM": lambda: NFM(SCHEMA, 4, widths=(8, 8)),
    "NFM normed": lambda: NFM(SCHEMA, 4, widths=(8,), batch_norm=True, dropout=0.1),
    "FwFM": lambda: FwFM(SCHEMA, 4),
    "FwFM field": lambda: FwFM(SCHEMA, 4, linear="field"),
    "IPNN": lambda: PNN(SCHEMA, 4, widths=(8, 8)),
    "OPNN": lambda: PNN(SCHEMA, 4, product="outer", widths=(8, 8)),
    "PNN*": lambda: PNN(SCHEMA, 4, product="both", widths=(8, 8)),
    "FiBiNET": lambda: FiBiNET(SCHEMA, 4, reduction=1, widths=(8, 8)),
    "FiBiNET all": lambda: FiBiNET(SCHEMA, 4, kind="all", reduction=1, widths=(8,)),
    "FiBiNET each": lambda: FiBiNET(SCHEMA, 4, kind="each", reduction=1, widths=(8,)),
    "AFN": lambda: AFN(SCHEMA, 4, units=6, ensemble=False, widths=(8,)),
    "AFN+": lambda: AFN(SCHEMA, 4, units=6, widths=(8, 8)),
    "EDCN": lambda: EDCN(SCHEMA, 4, crosses=2),
    "EDCN addition": lambda: EDCN(SCHEMA, 4, bridge="addition", crosses=2, hidden=8),
    "EDCN joined": lambda: EDCN(SCHEMA, 4, bridge="concatenation", crosses=2),
    "EDCN apart": lambda: EDCN(SCHEMA, 4, bridge=None, regulation=False, crosses=2),
    "RankMixer": lambda: RankMixer(SCHEMA, 4, tokens=3, width=12, expansion=2),
    "DualMLP": lambda: DualMLP(SCHEMA, 4, widths=((8, 8), (8,))),
    "FinalMLP": lambda: FinalMLP(SCHEMA, 4, **FINALMLP_SIZE),
    "FinalMLP gated": lambda: FinalMLP(SCHEMA, 4, contexts=CONTEXTS, **FINALMLP_SIZE),
    "FinalMLP live": lambda: FinalMLP(SCHEMA, 4, init_ctx_std=0.5, **FINALMLP_SIZE),
    "MLCC": lambda: MLCC(SCHEMA, 4, widths=(8,)),
    "MC-MLCC": lambda: MLCC(SCHEMA, 4, channels=2, widths=(8,)),
    "MLCC stacked": lambda: MLCC(SCHEMA, 4, layers=2, norm=True, widths=()),
    "SSR-S": lambda: SSR(SCHEMA, "static", **SSR_SIZE),
    "SSR-D": lambda: SSR(SCHEMA, "dynamic", **SSR_SIZE),
    "SSR-D released": lambda: SSR(SCHEMA, gate=True, residual=True, **SSR_SIZE),
    "SSR-S released": lambda: SSR(SCHEMA, "static", residual=True, n_hidden=2, **SSR_SIZE),
    "SSR ReLU": lambda: SSR(SCHEMA, alpha0=0.0, **SSR_SIZE),
    "SSR none": lambda: SSR(SCHEMA, "none", **SSR_SIZE),
    "SSR top-k": lambda: SSR(SCHEMA, "topk", keep=0.5, **SSR_SIZE),
    "SSR soft": lambda: SSR(SCHEMA, "soft", **SSR_SIZE),
    "SSR dropout": lambda: SSR(SCHEMA, "dropout", keep=0.8, **SSR_SIZE),
}


def draw(rows: int = 32, seed: int = 0) -> Batch:
    """Clicks that item, price and history decide, so that even LR has something to learn."""
    generator = torch.Generator().manual_seed(seed)
    users = torch.randint(6, (rows, 1), generator=generator)
    items = torch.randint(1, 5, (rows, 4), generator=generator)
    items[: rows // 4, 1] = 0  # histories that begin with padding
    items[0, 1:] = 0  # and an empty one
    price = torch.randn(rows, 1, generator=generator)
    score = 2 * (items[:, 0] > 2) - 1 + price[:, 0] + (items[:, 1:] == 2).sum(1) - 0.5
    ids, history = torch.cat([users, items[:, :1]], 1).int(), items[:, 1:, None].int()
    return Batch(ids, price, (score > 0).float()[:, None], history)


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    made = MODELS[request.param]()
    for p in made.embed.parameters():  # large enough that every layer has something to see
        torch.nn.init.normal_(p, 0, 0.3)
    return made


def test_loss_and_every_gradient_are_finite_and_used(model):
    batch = draw()
    assert isinstance(model, ClickModel)
    assert model(batch).shape == (32,)
    loss = model.loss(batch)
    loss.backward()
    assert loss.isfinite()
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, f"{name} has no part in the loss"
            grad = p.grad.to_dense()
            assert grad.isfinite().all() and grad.any(), name


def test_a_tiny_log_is_learned(model):
    batch = draw(64)
    rate = batch.labels.mean()
    constant = torch.nn.functional.binary_cross_entropy(rate.expand(64, 1), batch.labels)
    model.lr = 0.03
    optimiser = model.configure_optimizers()
    seen = []  # at this rate the loss of a stacked model has spikes, and where they fall depends on rounding
    for step in range(80):
        optimiser.zero_grad()
        model.loss(batch).backward()
        optimiser.step()
        if step >= 60:
            with torch.no_grad():
                seen.append(model.eval().loss(batch))
            model.train()
    assert torch.stack(seen).median() < 0.7 * constant


def test_a_row_does_not_depend_on_the_rows_beside_it(model):
    batch = draw()
    model.eval()
    alone = torch.cat(
        [model(Batch(*(None if t is None else t[k : k + 1] for t in batch))) for k in range(4)]
    )
    torch.testing.assert_close(alone, model(batch)[:4], rtol=1e-4, atol=1e-5)


def test_weights_survive_a_state_dict(model, request):
    torch.manual_seed(1)
    other = MODELS[request.node.callspec.params["model"]]()
    model.eval(), other.eval()
    assert not torch.equal(other(draw()), model(draw()))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(draw()), model(draw()))


def test_bf16_autocast_gives_the_same_loss_in_float32(model):
    batch = draw()
    model.eval()  # no dropout
    exact = model.loss(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.loss(batch)
    rounded.backward()
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0.01)
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["FM", "DCNv2", "SSR-D"])
def test_embedding_penalty_counts_the_whole_table(name):
    model, batch = MODELS[name](), draw()
    plain = model.loss(batch)
    model.embedding_l2 = 0.1
    table = model.embed.table.weight
    torch.testing.assert_close(model.loss(batch), plain + 0.05 * table.square().sum())


def test_base_options_reach_the_base():
    for build in (LR, FM, DNN, DeepFM, DCNv2, AutoInt, Wukong):
        model = build(SCHEMA, lr=0.5, embedding_l2=0.1)
        assert (model.lr, model.embedding_l2) == (0.5, 0.1)
    for build in (RankMixer, SSR):
        model = build(SCHEMA, dim=8, lr=0.5, embedding_l2=0.1)
        assert (model.lr, model.embedding_l2, model.d_in) == (0.5, 0.1, 32)
    with pytest.raises(TypeError, match="momentum"):
        DNN(SCHEMA, momentum=0.9)


WIDE = Schema((Field("a", size=3000), Field("b", size=3000), Field("n", kind="numeric")))
ALL = [LR, FM, DNN, DeepFM, DCN, DCNv2, AutoInt, Wukong, WideAndDeep, XDeepFM, MaskNet, GDCN]
ALL += [FINAL, DLRM, RankMixer, SSR, MLCC, DualMLP, FinalMLP, NFM, FwFM, PNN, FiBiNET, EDCN, AFN]


@pytest.mark.parametrize("build", ALL)
def test_the_initial_scale_is_an_argument(build):
    for std in (None, 0.0, 1e-4, 0.03, 0.5):
        torch.manual_seed(0)
        weights = build(WIDE, **({} if std is None else {"std": std})).embed.table.weight.detach()
        assert weights.std().item() == pytest.approx(0.01 if std is None else std, rel=0.05)
        assert abs(weights.mean().item()) <= 4 * weights.std().item() / weights.numel() ** 0.5
    with pytest.raises(ValueError, match="std must be at least 0 and finite"):
        build(WIDE, std=-1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr must be above 0 and finite, got 0.0"),
        ({"embedding_l2": -1.0}, "embedding_l2 must be at least 0 and finite"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"dim": 2.5}, "dim must be a whole number, got 2.5"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"widths": (8, 0)}, "widths must be whole numbers of at least 1"),
    ],
)
def test_what_all_models_share_is_checked(options, message):
    with pytest.raises(ValueError, match=message):
        DNN(SCHEMA, **options)


CHECKED = """
import runpy, sys, typing
import beartype, lightning, torch            # their own TYPE_CHECKING blocks must stay closed
from jaxtyping import TypeCheckError, install_import_hook

typing.TYPE_CHECKING = True                  # our annotations' names now exist at run time
with install_import_hook(["paperlab.ctr", "paperlab.nn"], "beartype.beartype"):
    from paperlab import nn
    from paperlab.ctr.baselines.afn import AFN
    from paperlab.ctr.baselines.edcn import EDCN
    from paperlab.ctr.baselines.fibinet import FiBiNET
    from paperlab.ctr.baselines.fwfm import FwFM
    from paperlab.ctr.baselines.nfm import NFM
    from paperlab.ctr.baselines.pnn import PNN
    from paperlab.ctr.baselines.autoint import AutoInt
    from paperlab.ctr.baselines.dcn import DCN
    from paperlab.ctr.baselines.dcnv2 import DCNv2
    from paperlab.ctr.baselines.dlrm import DLRM
    from paperlab.ctr.baselines.dnn import DNN
    from paperlab.ctr.baselines.deepfm import DeepFM
    from paperlab.ctr.finalmlp import DualMLP
    from paperlab.ctr.baselines.final import FINAL
    from paperlab.ctr.baselines.fm import FM
    from paperlab.ctr.finalmlp import FinalMLP
    from paperlab.ctr.baselines.gdcn import GDCN
    from paperlab.ctr.baselines.lr import LR
    from paperlab.ctr.mlcc import MLCC
    from paperlab.ctr.baselines.masknet import MaskNet
    from paperlab.ctr.baselines.rankmixer import RankMixer
    from paperlab.ctr.ssr import SSR
    from paperlab.ctr.baselines.wide_and_deep import WideAndDeep
    from paperlab.ctr.baselines.wukong import Wukong
    from paperlab.ctr.baselines.xdeepfm import XDeepFM
    from paperlab.nn import budget, grouped
typing.TYPE_CHECKING = False
from paperlab.ctr.baselines.fm import pairwise
try:
    pairwise(torch.zeros(2, 3))              # the checks are on: a wrong shape is refused
except TypeCheckError:
    pass
else:
    raise SystemExit("shapes were not checked")

tests = runpy.run_path(sys.argv[1])
for name, build in tests["MODELS"].items():
    model, batch = build(), tests["draw"]()
    model.training_step(batch, 0).backward()
    model.configure_optimizers().step()
    if name == "SSR-D":
        x = model.embed(batch).flatten(1)
        layer = model.layers[0].filter
        layer.select.inspect(layer.project(x).unflatten(1, layer.shape))
        assert len(model.filtered(batch)) == 2
print("checked", len(tests["MODELS"]))
"""


def test_shapes_in_signatures_are_true():
    """Every forward pass, with jaxtyping and beartype checking each annotated call."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHECKED), __file__], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["checked", str(len(MODELS))]
