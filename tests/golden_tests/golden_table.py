"""The one table from a case's name to what of ours must reproduce it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import golden_attacks
import golden_heads
import golden_losses
import golden_schedules
import golden_steps
from golden_store import Arguments
from torch import Tensor, nn

from ltrobust.models.heads import prior_log_odds
from ltrobust.training.schedule import Schedule

LOSSES: dict[str, Callable[[golden_losses.LossCase], Tensor]] = {
    "atbsl_bsl": golden_losses.balanced_softmax,
    "reat_bsl": golden_losses.balanced_softmax,
    "robal_multimargin_N": golden_losses.robal_margin,
    "robal_multimargin_R": golden_losses.robal_margin,
    "robal_multimargin_marginonly1": golden_losses.robal_margin,
    "robal_multimargin_marginonly2": golden_losses.robal_margin,
    "robal_multimargin_biasonly": golden_losses.robal_margin,
    "ldam": golden_losses.ldam,
    "ldam_s": golden_losses.ldam,
    "unimargin": golden_losses.unimargin,
    "focal_sigmoid": golden_losses.focal,
    "cb_focal": golden_losses.cb_focal,
    "cdt": golden_losses.cdt,
    "logit_adjust": golden_losses.logit_adjusted,
    "cross_entropy": golden_losses.cross_entropy,
    "robal_trades_reg": golden_losses.robal_total,
    "robal_total_R": golden_losses.robal_total,
    "trades_kl": golden_losses.trades_kl,
    "trades_total": golden_losses.trades_total,
    **{
        f"taet_harl_{batch}_{term}": golden_losses.harl
        for batch in ("absent_classes", "one_class", "all_classes")
        for term in ("total", "balanced", "hierarchical", "rare")
    },
    "reat_rbl": golden_losses.rbl,
    "reat_rbl_first_epoch": golden_losses.rbl,
    "reat_rbl_zeros": golden_losses.rbl,
    "reat_tail": golden_losses.tail,
    "reat_total": golden_losses.reat_total,
    "reat_total_no_tail": golden_losses.reat_total,
}

HEADS: dict[str, Callable[[golden_heads.HeadCase], nn.Module]] = {
    "cosplus": golden_heads.cosplus,
    "cosplus_g2": golden_heads.cosplus,
    "cosplus_eta": golden_heads.cosplus,
    "cos": golden_heads.cos,
    "postproc_cos_posthoc": golden_heads.postproc_cos,
    "postproc_fc_posthoc": golden_heads.postproc_fc,
    "postnorm": golden_heads.postnorm,
    "postnorm_half": golden_heads.postnorm,
    "lws": golden_heads.postnorm,
    "cdt_posthoc": golden_heads.cdt_head,
    "cdt_train": golden_heads.cdt_head,
    "dot": golden_heads.dot,
}
INITIAL_BIASES: dict[str, Callable[[Tensor], Tensor]] = {"fc_focal_init": prior_log_odds}

SCHEDULES: dict[str, Callable[[dict[str, Any], int], tuple[Schedule, int]]] = {
    "robal": golden_schedules.compounding,
    "robal_warmup": golden_schedules.compounding,
    "robal_finetune_one_epoch": golden_schedules.compounding,
    "atbsl": partial(golden_schedules.from_one, (75, 90, 100)),
    "trades": partial(golden_schedules.from_one, (75, 90, 100)),
    "reat_multistep": golden_schedules.multistep_lr,
    "taet_multistep": golden_schedules.multistep_lr,
    "robustlt_multistep": golden_schedules.multistep_lr,
}

ATTACKS: dict[str, Callable[[Arguments], golden_attacks.AttackCase]] = {
    "pgd": golden_attacks.pgd,
    "cw_pgd": golden_attacks.cw,
    "fgsm": golden_attacks.pgd,
    "lsa_pgd": golden_attacks.lsa,
    "robal_fgsm": golden_attacks.single_step,
    "robal_mim": golden_attacks.mim,
}

STEPS: dict[str, Callable[[Arguments, Tensor], golden_steps.StepCase]] = {
    "robal_pgd_at": golden_steps.pgd_at,
    "trades": golden_steps.trades,
    "robal_add_reg": golden_steps.robal,
    "atbsl": golden_steps.at_bsl,
    "reat": golden_steps.reat,
    "taet_harl": golden_steps.taet,
    "taet_loop_stage2": golden_steps.taet_loop,
    "robustlt_pgdat": golden_steps.robustlt,
    "awp": golden_steps.awp,
}
