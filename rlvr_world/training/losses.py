"""Losses on flat tokens: clipped policy loss, KL estimates, and log-probabilities of chosen tokens.

Shapes: T = sampled tokens of any number of rollouts side by side, with no padding; C = those of a chunk; D = width of
the hidden state; V = vocabulary. One number a token; how tokens are weighed is ``advantages.rollout_weights``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rlvr_world.errors import NonFinite
from rlvr_world.models.cpu import product

LOG_RATIO_LIMIT = 20.0
"""exp() of more than this is out of any trust region; the limit keeps 0 * inf out of the loss (as verl does)."""
KL_LIMIT = 10.0
"""RLVR-World clamps its k3 estimate to +-10 a token (``low_var_kl``)."""
Bounds = tuple[Tensor, Tensor] | None
"""(start, stop) of the legal ids of each token, int64 [T]; None where all are legal."""
Settings = tuple[int, float, torch.dtype]
"""Tokens of a chunk, temperature, and the type that products with the head are made in."""


def policy_loss(
    logp_T: Tensor,
    old_logp_T: Tensor,
    advantage_T: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    rollout_T: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate, -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), and where the clip took the gradient.

    r = exp(logp - old_logp): PPO and GRPO; ``clip_high > clip_low`` is clip-higher (DAPO, arXiv 2503.14476).
    With ``rollout_T`` (int64 [T], which rollout a token belongs to, counted from 0) r is the geometric mean over
    the rollout: GSPO (arXiv 2507.18071); a rollout must then be whole in the call.

    Returns loss float [T] and clipped bool [T].
    """
    log_ratio_T = logp_T - old_logp_T
    if rollout_T is not None:
        counts_N = torch.bincount(rollout_T)
        sums_N = log_ratio_T.new_zeros(len(counts_N)).index_add(0, rollout_T, log_ratio_T)
        log_ratio_T = (sums_N / counts_N.clamp(min=1))[rollout_T]
    ratio_T = log_ratio_T.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    loss_T = -torch.minimum(ratio_T * advantage_T, ratio_T.clamp(1 - clip_low, 1 + clip_high) * advantage_T)
    too_low = (ratio_T < 1 - clip_low) & (advantage_T < 0)
    too_high = (ratio_T > 1 + clip_high) & (advantage_T > 0)
    return loss_T, (too_low | too_high).detach()


def kl_estimate(logp_T: Tensor, ref_logp_T: Tensor, kind: Literal["k1", "k2", "k3"] = "k3") -> Tensor:
    """KL(policy || reference) estimated on the policy's own samples, float [T].

    With d = ref - logp: ``k1`` -d (unbiased, noisy, no useful gradient as a loss), ``k2`` d^2 / 2,
    ``k3`` exp(d) - d - 1, never negative: what RLVR-World adds to the loss, clamped as published.
    Source: http://joschu.net/blog/kl-approx.html.
    """
    difference_T = ref_logp_T - logp_T
    if kind == "k1":
        return -difference_T
    if kind == "k2":
        return difference_T.square() / 2
    if kind == "k3":
        bounded_T = difference_T.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        return (bounded_T.exp() - bounded_T - 1).clamp(-KL_LIMIT, KL_LIMIT)
    raise ValueError(f"the KL estimate is k1, k2 or k3, got {kind!r}")


def chosen_logps(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    ids_T: Tensor,
    allowed: Bounds = None,
    temperature: float = 1.0,
    chunk: int = 512,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each id under softmax(hidden @ weight.T / temperature), and that distribution's entropy.

    Head and log-softmax in one, ``chunk`` tokens at a time, recomputed in backward: logits [T, V] never exist
    as a whole. Both outputs are float32 (float64 for float64 input) [T], in nats, and differentiable in
    ``hidden_TD`` and ``weight_VD`` (tied weights included); an unused entropy costs nothing in backward.

    Under autocast, or with bfloat16 hidden states, logits are rounded as the model's own head rounds them and
    everything after them is float32.

    Raises ValueError for an id outside its range or the vocabulary.
    """
    vocabulary = weight_VD.shape[0]
    if len(ids_T) == 0:
        none = hidden_TD.sum() * 0 + weight_VD.sum() * 0  # gradients all the same: ranks that share a model count them
        empty = none + hidden_TD.new_zeros(0, dtype=_wide(hidden_TD.dtype))
        return empty, empty
    starts_T, stops_T = allowed if allowed is not None else (torch.zeros_like(ids_T), ids_T.new_full((1,), vocabulary))
    if ((ids_T < starts_T) | (ids_T >= stops_T)).any() or starts_T.min() < 0 or stops_T.max() > vocabulary:
        raise ValueError("a chosen token lies outside its allowed range or the vocabulary")
    low, high = int(starts_T.min()), int(stops_T.max())
    mixed = allowed is not None and bool(((starts_T != low) | (stops_T != high)).any())
    device = hidden_TD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_TD.dtype
    bounds = (starts_T - low, stops_T - low) if mixed else None
    # Rows of the head that no token may choose are never multiplied: half the vocabulary for video.
    return _ChosenLogps.apply(hidden_TD, weight_VD[low:high], ids_T - low, bounds, (chunk, temperature, dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _chunk_logits(hidden_CD: Tensor, weight_VD: Tensor, bounds: Bounds, part: slice, temperature: float) -> Tensor:
    logits_CV = product(hidden_CD, weight_VD).to(_wide(hidden_CD.dtype))
    if temperature != 1.0:
        logits_CV /= temperature
    if bounds is not None:
        index_V = torch.arange(weight_VD.shape[0], device=weight_VD.device)
        legal_CV = (index_V >= bounds[0][part, None]) & (index_V < bounds[1][part, None])
        # Not -inf: 0 * -inf would be nan in the entropy and in backward, 0 * a finite number is 0.
        logits_CV.masked_fill_(~legal_CV, torch.finfo(logits_CV.dtype).min / 2)
    return logits_CV


class _ChosenLogps(torch.autograd.Function):
    """Keeps the log-sum-exp of each token and recomputes the logits chunk by chunk in backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, ids_T: Tensor, bounds: Bounds, settings: Settings
    ) -> tuple[Tensor, Tensor]:
        chunk, temperature, dtype = settings
        lse_T = torch.empty(len(ids_T), dtype=_wide(dtype), device=hidden_TD.device)
        logp_T, entropy_T = torch.empty_like(lse_T), torch.empty_like(lse_T)
        with torch.autocast(hidden_TD.device.type, enabled=False):
            weight = weight_VD.to(dtype)
            for begin in range(0, len(ids_T), chunk):
                part = slice(begin, begin + chunk)
                logits_CV = _chunk_logits(hidden_TD[part].to(dtype), weight, bounds, part, temperature)
                lse_T[part] = logits_CV.logsumexp(dim=1)
                logps_CV = logits_CV.sub_(lse_T[part, None])
                logp_T[part] = logps_CV.gather(1, ids_T[part, None])[:, 0]
                entropy_T[part] = -logps_CV.exp().mul_(logps_CV).sum(dim=1)
        ctx.save_for_backward(hidden_TD, weight_VD, ids_T, lse_T, entropy_T, *(bounds or ()))
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        return logp_T, entropy_T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, logp_grad_T: Tensor | None, entropy_grad_T: Tensor | None) -> tuple[Any, ...]:
        hidden_TD, weight_VD, ids_T, lse_T, entropy_T, *bounds = ctx.saved_tensors
        chunk, temperature, dtype = ctx.settings
        hidden_grad_TD = torch.empty_like(hidden_TD) if ctx.needs_input_grad[0] else None
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=_wide(dtype)) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden_TD.device.type, enabled=False):
            weight = weight_VD.to(dtype)
            for begin in range(0, len(ids_T), chunk):
                part = slice(begin, begin + chunk)
                hidden_CD = hidden_TD[part].to(dtype)
                logits_CV = _chunk_logits(hidden_CD, weight, tuple(bounds) or None, part, temperature)
                logps_CV = logits_CV.sub_(lse_T[part, None])
                grads = (None if grad_T is None else grad_T[part] for grad_T in (logp_grad_T, entropy_grad_T))
                grad_CV = _logit_grad(logps_CV, ids_T[part], entropy_T[part], *grads)
                grad_CV = grad_CV.div_(temperature).to(dtype)
                if hidden_grad_TD is not None:
                    hidden_grad_TD[part] = product(grad_CV, weight.t())
                if weight_grad_VD is not None:
                    if weight_grad_VD.dtype == dtype:
                        weight_grad_VD.addmm_(grad_CV.T, hidden_CD)
                    else:
                        weight_grad_VD += grad_CV.T @ hidden_CD  # bfloat16 products, summed in float32
        weight_grad = None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype)
        return hidden_grad_TD, weight_grad, None, None, None


def _logit_grad(
    logps_CV: Tensor, ids_C: Tensor, entropy_C: Tensor, logp_grad_C: Tensor | None, entropy_grad_C: Tensor | None
) -> Tensor:
    """d logp[id] / dz = onehot - p, and dH / dz = -p (log p + H). Overwrites ``logps_CV``."""
    if logp_grad_C is None:
        logp_grad_C = torch.zeros_like(entropy_C)
    if entropy_grad_C is None:
        grad_CV = logps_CV.exp_().mul_(-logp_grad_C[:, None])
    else:
        p_CV = logps_CV.exp()
        grad_CV = logps_CV.add_(entropy_C[:, None]).mul_(-entropy_grad_C[:, None]).sub_(logp_grad_C[:, None]).mul_(p_CV)
    return grad_CV.scatter_add_(1, ids_C[:, None], logp_grad_C[:, None])


def finite(values: Tensor, site: str) -> Tensor:
    """``values`` as they are; raises NonFinite, naming ``site``, where one of them is not finite."""
    if bad := int((~torch.isfinite(values.detach())).sum()):
        raise NonFinite(f"{bad} of {values.numel()} numbers of the {site} are not finite")
    return values
