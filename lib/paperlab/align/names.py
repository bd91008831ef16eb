"""The losses under the names of TRL 1.16's trainers, and what differs there.

TRL: name in `formulas` -> (trainer and loss type, settings with other names and differences). The
tests compare each pair of losses, with their gradients.
"""

from __future__ import annotations

BATCH = "likelihood averaged over the batch's tokens"  # here within each response
TRL = {
    "sigmoid": ("DPO sigmoid", ""),
    "cdpo": ("", "DPO sigmoid had label_smoothing until release 0.28"),
    "robust": ("DPO robust", "epsilon is label_smoothing"),
    "hinge": ("DPO hinge", ""),
    "ipo_sum": ("", "ipo divides by lengths"),
    "exo_pair": ("DPO exo_pair", "epsilon is label_smoothing, whose default 0 is refused"),
    "discopop": ("DPO discopop", "tau is discopop_tau"),
    "fdpo": (
        "DPO sigmoid, f_divergence_type",
        "f_alpha_divergence_coef is 1 minus the paper's alpha",
    ),
    "ipo": ("DPO ipo", "with ld_alpha divides by tokens, not by the sum of weights"),
    "sigmoid_norm": ("DPO sigmoid_norm", "with ld_alpha as ipo"),
    "simpo": ("CPO simpo", "gamma is simpo_gamma (default 0.5); set cpo_alpha to 0"),
    "alphapo": ("CPO alphapo", "gamma is simpo_gamma; alpha is 0 by default: SimPO"),
    "orpo": ("ORPO", f"lam is beta; {BATCH}, the prompt's included"),
    "apo_zero": ("DPO apo_zero", ""),
    "apo_down": ("DPO apo_down", ""),
    "nca": ("DPO nca_pair", ""),
    "bco": ("DPO bco_pair", "no delta since release 0.29"),
    "sppo_hard": ("DPO sppo_hard", ""),
    "kto": ("", "KTO takes unpaired responses: kto_unpaired"),
    "kto_unpaired": ("KTO kto", "apo_zero_unpaired is z = 0"),
    "sft": ("DPO sft", BATCH),
    "rpo": ("DPO sigmoid and sft", f"lam is the second of loss_weights; {BATCH}"),
    "cpo": ("CPO sigmoid", f"lam is cpo_alpha; {BATCH}; also hinge and ipo of log pi"),
    "tpo": ("TPO sigmoid", f"lam is tpo_alpha; {BATCH}; also hinge and ipo of log pi"),
    "tpo_l": ("TPO tpo-l", f"gamma is tpo_l_gamma; lam is tpo_alpha; {BATCH}"),
    "aot": ("DPO aot", "epsilon is label_smoothing"),
    "aot_unpaired": ("DPO aot_unpaired", "epsilon is label_smoothing"),
}
