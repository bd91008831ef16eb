"""Golden cases of the losses: inputs, values and gradients for tests of any implementation.

``python -m paperlab.align.golden`` writes them to data/reference/golden/preference_losses.json. All
numbers are float64; the tests recompute every value in 500-digit arithmetic from other formulas.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..data.catalogue import data_root
from ..lm.logprobs import token_logps
from .formulas import LOSSES, REFERENCE_FREE
from .losses import ld_weights, preference_loss, sequence_logratio

CHOSEN = [0.0, 1.0, -2.0, 0.3, 10.0, -10.0, 40.0, 5000.0, -5000.0]
REJECTED = [0.0, -0.5, 3.0, 0.3, -10.0, 10.0, -25.0, -5000.0, 5000.0]  # last: beta Delta +-1e3
LENGTHS = {
    "n_chosen": [5.0, 5.0, 3.0, 7.0, 20.0, 12.0, 9.0, 50.0, 60.0],
    "n_rejected": [4.0, 4.0, 6.0, 7.0, 10.0, 30.0, 8.0, 40.0, 50.0],
    "n_gold": [6.0, 4.0, 5.0, 9.0, 15.0, 10.0, 7.0, 45.0, 55.0],
}
FLOOR = -150.0  # nats per token, added where the sums are of log pi, which is at most 0
LOGPS = {
    "logp_chosen": [-10.0, -12.0, -8.0, -21.0, -60.0, -30.0, -18.0, -150.0, -6000.0],
    "logp_rejected": [-9.0, -8.0, -11.0, -20.0, -45.0, -80.0, -60.0, -5200.0, -200.0],
    "logp_gold": [-9.0, -6.0, -10.0, -12.0, -40.0, -20.0, -14.0, -90.0, -110.0],
}
OPTIONS = {  # the defaults come first
    "cdpo": [{}, {"epsilon": 0.3}],
    "robust": [{}, {"epsilon": 0.3}],
    "exo_pair": [{}, {"epsilon": 0.2}],
    "discopop": [{}, {"tau": 1.0}],
    "simpo": [{}, {"gamma": 0.0}],
    "alphapo": [{}, {"alpha": -0.5}],
    "orpo": [{}, {"lam": 0.5}],
    "cpo": [{}, {"lam": 0.2}],
    "tpo": [{}, {"lam": 0.2}],
    "tpo_l": [{}, {"gamma": 0.0}, {"lam": 0.2}],
    "aot": [{}, {"epsilon": 0.2}],
    "aot_unpaired": [{}, {"epsilon": 0.2}],
    "bco": [{}, {"delta": 0.5}],
    "rpo": [{}, {"lam": 0.2}],
    "kto": [{}, {"z": 0.2}, {"lambda_d": 1.5, "lambda_u": 0.5}],
    "fdpo": [
        {},
        {"divergence": "js"},
        *({"divergence": "alpha", "alpha": a} for a in (0.5, 0.0, -0.5)),
    ],
}


def pair_cases() -> list[dict]:
    """Every loss at several settings: inputs, one value per pair, gradients of their sum."""
    cases = []
    for kind in LOSSES:
        takes = LOSSES[kind].__code__.co_varnames
        tensors = {k: v for k, v in (LENGTHS | LOGPS).items() if k in takes}
        for options in [*OPTIONS.get(kind, [{}]), *([{"beta": 0.5}] if "beta" in takes else [])]:
            chosen, rejected = (_tensor(v) for v in (CHOSEN, REJECTED))
            if kind in REFERENCE_FREE:
                chosen = chosen + FLOOR * _tensor(LENGTHS["n_chosen"])
                rejected = rejected + FLOOR * _tensor(LENGTHS["n_rejected"])
            inputs = {"chosen": chosen.tolist(), "rejected": rejected.tolist()}
            chosen, rejected = chosen.requires_grad_(), rejected.requires_grad_()
            given = {k: _tensor(v) for k, v in tensors.items()}
            loss = preference_loss(kind, chosen, rejected, reduction="none", **given, **options)
            gradients = torch.autograd.grad(loss.sum(), (chosen, rejected))
            cases.append(
                {"kind": kind, "options": options}
                | inputs
                | tensors
                | {"loss": loss.tolist()}
                | {
                    f"grad_{n}": g.tolist()
                    for n, g in zip(("chosen", "rejected"), gradients, strict=True)
                }
            )
    return cases


def token_cases() -> list[dict]:
    """Two rows of logits (chosen, rejected): log-probabilities, LD weights and sums."""
    draw = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(2, 6, 5, generator=draw, dtype=torch.float64)).round(decimals=3)
    ids = torch.tensor([[0, 1, 2, 3, 1, 4], [0, 1, 3, 4, 0, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0]]).bool()
    reference = torch.full((2, 5), -1.5, dtype=torch.float64)
    weights = torch.tensor([[0, 1, 0.5, 2, 0.25], [0, 1.5, 0.5, 0, 0]], dtype=torch.float64)
    logps, scored = token_logps(logits, ids, mask), mask[:, 1:]
    case = {"logits": logits, "ids": ids, "mask": mask.int(), "reference_logps": reference}
    case |= {"weights": weights, "logps": logps}
    options = [{}, {"average": True}, {"ld_alpha": 0.5}, {"ld_alpha": 0.0}, {"weights": weights}]
    options += [{"weights": weights, "average": True}]
    sums = [
        {"options": {k: "weights" if k == "weights" else v for k, v in o.items()}}
        | {"logratio": sequence_logratio(logps, reference, scored, **o).tolist()}
        for o in options
    ]
    case |= {"ld_weights_0.5": ld_weights(scored, 0.5)}
    return [{k: v.tolist() for k, v in case.items()} | {"sums": sums}]


def cases() -> dict:
    """The file's content: how to read it, cases of pairs, cases of tokens."""
    about = (
        "chosen and rejected are sums over a response of log pi - log pi_ref (of log pi for "
        f"{', '.join(REFERENCE_FREE)}); loss has one value per pair (aot: per rank); grad_* are "
        "gradients of the sum of loss. Row t of logits predicts row t + 1 of ids; logps, "
        "reference_logps and weights start at the second token."
    )
    return {"about": about, "pairs": pair_cases(), "tokens": token_cases()}


def path() -> Path:
    """The file of the committed cases."""
    return data_root() / "reference/golden/preference_losses.json"


def _tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


if __name__ == "__main__":
    path().parent.mkdir(parents=True, exist_ok=True)
    path().write_text(json.dumps(cases(), indent=1) + "\n")
    print(path().name)
