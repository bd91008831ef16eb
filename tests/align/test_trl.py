"""Every loss that TRL has too: its trainers' own values and gradients, and ours.

A trainer's loss method runs on a bigram model, whose logits are a table's rows: no trainer is built
and nothing is downloaded. Gradients are with respect to the table. Likelihood terms of TRL are
averaged over the batch's tokens: where one takes part, prompts have one token and chosen responses
equal lengths, so that its mean and ours are the same number.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from helpers.pairs import padded, rows
from helpers.tensors import seeded
from paperlab.align.formulas import LOSSES, kto_baseline, kto_unpaired
from paperlab.align.losses import (
    preference_loss,
    preference_metrics,
    sequence_logratio,
    token_metrics,
    wpo_weight,
)
from paperlab.align.names import TRL
from paperlab.lm.logprobs import token_logps
from torch import nn

V = 11
SIDES = ("chosen", "rejected")
UNEQUAL = padded(rows([(2, 4), (3, 3), (1, 6), (2, 3), (3, 5), (1, 2)]))  # 3 pairs, chosen first
EQUAL = padded(rows([(1, 4), (1, 4), (1, 4), (1, 3), (1, 6), (1, 2)]))
TRIPLES = padded(rows([(1, 4), (1, 2), (1, 4), (1, 3), (1, 6), (1, 2), (1, 5), (1, 5), (1, 5)]))


class Bigram(nn.Module):
    """Logits of the next token are a row of the table; output as of a model under TRL's trainers."""

    is_gradient_checkpointing = False

    def __init__(self, seed):
        super().__init__()
        self.table = nn.Parameter(seeded(V, V, seed=seed))

    def forward(self, input_ids, labels=None, **_):
        logits = self.table[input_ids]
        if labels is None:
            return SimpleNamespace(logits=logits)
        p, labels = logits[:, :-1].log_softmax(-1), labels[:, 1:]  # what TRL's fused head reports
        chosen = p.gather(2, labels.clamp(min=0)[..., None]).squeeze(2)
        return SimpleNamespace(
            log_probs=chosen.masked_fill(labels == -100, 0),
            entropy=-(p.exp() * p).sum(-1),
            mean_logits=logits[:, :-1].mean(-1),
            is_top1=p.argmax(-1) == labels,
            log_sum_sq_probs=(2 * p).logsumexp(-1),
        )


def trainer(cls, model, **settings):
    """A trainer that has what its loss method reads, and nothing else."""
    same = lambda x: x  # noqa: E731
    made = object.__new__(cls)
    made.accelerator = SimpleNamespace(
        device="cpu", gather=same, gather_for_metrics=same, unwrap_model=same
    )
    made.args = SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=0.05)
    made.model, made._metrics = model, {"train": defaultdict(list)}
    defaults = dict(beta=0.1, label_smoothing=0.0, aux_loss_enabled=False, ref_model=Bigram(2))
    defaults |= dict(_total_train_tokens=0, _tp_size=1, precompute_ref_logps=False)
    for name, value in (defaults | settings).items():
        setattr(made, name, value)
    return made


def inputs(ids, mask):
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": mask.int(),
    }


def sides(ids, mask):
    """The batch as TRL's older trainers take it."""
    batch = {}
    for side, i, m in zip(SIDES, ids.chunk(2), mask.chunk(2), strict=True):
        batch[f"{side}_input_ids"], batch[f"{side}_labels"] = i, i.masked_fill(~m, -100)
        # ORPO's likelihood counts prompt and response, found by the attention
        batch[f"{side}_attention_mask"] = (m | (torch.arange(i.shape[1]) == 0)).int()
    return batch


def ours(kind, ids, mask, reference=True, ld_alpha=None, weight=None, **options):
    """The loss of the same bigram model through the library; the model; the metrics."""
    policy, fixed = Bigram(1), Bigram(2)
    logits = policy(ids).logits
    logps, scored = token_logps(logits, ids, mask), mask[:, 1:]
    with torch.no_grad():
        before = token_logps(fixed(ids).logits, ids, mask) if reference else None
    s = sequence_logratio(logps, before, scored, ld_alpha=ld_alpha)
    alone = sequence_logratio(logps, None, scored, ld_alpha=ld_alpha)
    n = scored.sum(1)
    every = {
        f"{what}_{side}": value
        for what, whole in (("n", n), ("logp", alone))
        for side, value in zip((*SIDES, "gold"), whole.split(3), strict=False)
    }
    given = {k: v for k, v in every.items() if k in LOSSES[kind].__code__.co_varnames}
    weight = wpo_weight(logits, logps, mask) if weight == "wpo" else weight
    chosen, rejected = s.split(3)[:2]
    loss = preference_loss(kind, chosen, rejected, weight=weight, **given, **options)

    def metrics():
        seen = preference_metrics(chosen, rejected, 0.1, alone)
        return seen | token_metrics(logits, ids, mask)

    return loss, policy, metrics


def agree(found, policy, wanted, theirs):
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5, abs=1e-6)
    (slope,) = torch.autograd.grad(found, policy.table)
    (their_slope,) = torch.autograd.grad(wanted, theirs.table)
    assert their_slope.abs().max() > 1e-3
    torch.testing.assert_close(slope, their_slope, rtol=1e-4, atol=1e-5)


SMOOTH = ({"label_smoothing": 0.1}, {"epsilon": 0.1})
ALPHA = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7}
DPO = {  # our kind: TRL's loss types, its settings, ours
    "sigmoid": (["sigmoid"], {}, {}),
    "robust": (["robust"], *SMOOTH),
    "hinge": (["hinge"], {}, {}),
    "ipo": (["ipo"], {}, {}),
    "sigmoid_norm": (["sigmoid_norm"], {}, {}),
    "apo_zero": (["apo_zero"], {}, {}),
    "nca": (["nca_pair"], {}, {}),
    "bco": (["bco_pair"], {}, {}),
    "exo_pair": (["exo_pair"], *SMOOTH),
    "sppo_hard": (["sppo_hard"], {}, {}),
    "apo_down": (["apo_down"], {}, {}),
    "discopop": (["discopop"], {}, {}),
    "aot": (["aot"], *SMOOTH),
    "aot_unpaired": (["aot_unpaired"], *SMOOTH),
    "fdpo": (["sigmoid"], {"f_divergence_type": "forward_kl"}, {}),
    "fdpo js": (["sigmoid"], {"f_divergence_type": "js_divergence"}, {"divergence": "js"}),
    "fdpo alpha": (["sigmoid"], ALPHA, {"divergence": "alpha", "alpha": 0.3}),  # 1 minus TRL's
    "sigmoid ld": (["sigmoid"], {"ld_alpha": 0.3}, {"ld_alpha": 0.3}),
    "ipo ld": (["ipo"], {"ld_alpha": 0.3}, {"ld_alpha": 0.3}),  # both divided by tokens here
    "sigmoid wpo": (["sigmoid"], {"use_weighting": True}, {"weight": "wpo"}),
    "sft": (["sft"], {}, {}),
    "rpo": (["sigmoid", "sft"], {"loss_weights": [1.0, 0.5]}, {"lam": 0.5}),
}


@pytest.mark.parametrize("name", DPO)
def test_dpo_trainer(name):
    from trl import DPOTrainer

    types, settings, options = DPO[name]
    kind = name.split()[0]
    ids, mask = EQUAL if kind in ("sft", "rpo") else UNEQUAL
    defaults = {"f_divergence_type": "reverse_kl", "ld_alpha": None, "use_weighting": False}
    defaults |= {"loss_types": types, "loss_weights": [1.0] * len(types)}
    theirs = trainer(DPOTrainer, Bigram(1), **defaults | settings)
    wanted = theirs._compute_loss(theirs.model, inputs(ids, mask), return_outputs=False)
    found, policy, metrics = ours(kind, ids, mask, **options)
    agree(found, policy, wanted, theirs.model)
    seen = {k: v[-1] for k, v in theirs._metrics["train"].items()}
    mine = metrics()
    assert set(seen) - set(mine) == {"num_tokens"}
    for key, value in mine.items():
        assert value.item() == pytest.approx(seen[key], abs=1e-5), key


def test_a_mean_over_the_batchs_tokens_weighs_each_pair_by_its_length():
    """TRL's likelihood at unequal lengths: ours, with weights n / mean n."""
    from trl import DPOTrainer

    ids, mask = UNEQUAL
    settings = {"f_divergence_type": "reverse_kl", "ld_alpha": None, "use_weighting": False}
    theirs = trainer(DPOTrainer, Bigram(1), loss_types=["sft"], loss_weights=[1.0], **settings)
    wanted = theirs._compute_loss(theirs.model, inputs(ids, mask), return_outputs=False)
    n = mask[:3].sum(1).float()
    agree(*ours("sft", ids, mask, weight=n / n.mean())[:2], wanted, theirs.model)
    assert abs(ours("sft", ids, mask)[0] - wanted) > 1e-3


@pytest.mark.parametrize(
    ("kind", "settings", "options"),
    [
        ("cpo", {"loss_type": "sigmoid", "cpo_alpha": 0.5}, {"lam": 0.5}),
        ("hinge", {"loss_type": "hinge", "cpo_alpha": 0}, {}),
        ("cdpo", {"loss_type": "sigmoid", "cpo_alpha": 0, **SMOOTH[0]}, SMOOTH[1]),
        ("ipo", {"loss_type": "ipo", "cpo_alpha": 0}, {}),
        ("simpo", {"loss_type": "simpo", "cpo_alpha": 0, "simpo_gamma": 0.5}, {"gamma": 0.5}),
        (
            "alphapo",
            {"loss_type": "simpo", "cpo_alpha": 0, "simpo_gamma": 0.5, "alpha": 0.25},
            {"gamma": 0.5, "alpha": 0.25},
        ),
    ],
)
def test_cpo_trainer(kind, settings, options):
    from trl.experimental.cpo import CPOTrainer

    ids, mask = EQUAL
    defaults = {"alpha": 0.0, "is_encoder_decoder": False, "pad_token_id": 0}
    theirs = trainer(CPOTrainer, Bigram(1), **defaults | settings)
    wanted, _ = theirs.get_batch_loss_metrics(theirs.model, sides(ids, mask))
    found, policy, _ = ours(kind, ids, mask, reference=False, beta=0.1, **options)
    agree(found, policy, wanted, theirs.model)


def test_orpo_trainer():
    from trl.experimental.orpo import ORPOTrainer

    ids, mask = EQUAL
    settings = {"is_encoder_decoder": False, "padding_value": 0, "beta": 0.3}
    theirs = trainer(ORPOTrainer, Bigram(1), **settings)
    wanted, _ = theirs.get_batch_loss_metrics(theirs.model, sides(ids, mask))
    found, policy, _ = ours("orpo", ids, mask, reference=False, lam=0.3)
    agree(found, policy, wanted, theirs.model)


@pytest.mark.parametrize(
    ("kind", "settings", "options"),
    [
        ("tpo", {"loss_type": "sigmoid"}, {}),
        ("tpo_l", {"loss_type": "tpo-l", "tpo_l_gamma": 0.5}, {"gamma": 0.5}),
    ],
)
def test_tpo_trainer(kind, settings, options):
    from trl.experimental.tpo import TPOTrainer

    ids, mask = TRIPLES
    theirs = trainer(TPOTrainer, Bigram(1), tpo_alpha=0.5, **settings)
    wanted = theirs._compute_loss(theirs.model, inputs(ids, mask), return_outputs=False)
    found, policy, _ = ours(kind, ids, mask, reference=False, beta=0.1, lam=0.5, **options)
    agree(found, policy, wanted, theirs.model)


@pytest.mark.parametrize("kind", ["kto", "apo_zero_unpaired"])
def test_kto_trainer(kind):
    from trl import KTOTrainer

    ids, mask = UNEQUAL
    desirable = torch.tensor([True, False, False, True, True, False])
    other = padded(rows([(2, 3), (1, 5), (3, 4), (2, 2), (1, 6), (2, 5)], seed=9))
    settings = {"loss_type": kind, "calculate_KL": kind == "kto"}
    settings |= {"desirable_weight": 1.5, "undesirable_weight": 0.5}
    theirs = trainer(KTOTrainer, Bigram(3), **settings)
    batch = inputs(ids, mask) | {f"KL_{k}": v for k, v in inputs(*other).items()}
    wanted = theirs._compute_loss(theirs.model, batch | {"label": desirable}, return_outputs=False)
    policy, before = Bigram(3), Bigram(2)

    def score(i, m):
        with torch.no_grad():
            reference = token_logps(before(i).logits, i, m)
        return sequence_logratio(token_logps(policy(i).logits, i, m), reference, m[:, 1:])

    z = kto_baseline(score(*other)) if kind == "kto" else 0.0
    assert kind != "kto" or z > 0
    found = kto_unpaired(score(ids, mask), desirable, z, 0.1, lambda_d=1.5, lambda_u=0.5).mean()
    agree(found, policy, wanted, theirs.model)


def test_every_loss_stands_in_the_table_of_names():
    assert [k for k in TRL if k != "kto_unpaired"] == list(LOSSES)
