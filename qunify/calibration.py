"""How far predictions are from what happens: from observed labels by kept libraries, and from a known truth exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qunify._lib.arrays import tensor_of


def against_labels(probs: Any, labels: Any, bins: int = 15) -> dict[str, float]:
    """Calibration measured on observed labels. Needs the extra `calibration`.

    Parameters
    ----------
    probs : array of float, (N, V), V ≥ 2
    labels : array of int, (N,)
    bins : int
        Of the binned errors and of the miscalibration.

    Returns
    -------
    dict
        `log_loss` (nats; a probability below 2.2e-16, the spacing of float64 at 1, counts as that) and `brier`
        (Σ_k (p_k − δ_k)²), by scikit-learn; `smooth_ece` of the confidence in the likeliest token (Błasiok & Nakkiran
        2024, relplot); `ece` the same by bins of equal width, the last one closed, and `classwise_ece`, the mean over
        tokens of the binned error of p_k. With few labels these three are biased upward: the gap of a bin
        of n tokens is of the order of 1/√n where the prediction is right.

        `brier_miscalibration`, `brier_discrimination` and `brier_uncertainty` with brier = miscalibration −
        discrimination + uncertainty, one token against the rest, summed. The uncertainty is the score of the base
        rates. The miscalibration is the mean, over bins of equally many predictions, of the product of two residuals
        p_k − δ_k: unbiased (Widmann et al. 2019, arXiv:1910.11385, with a kernel of bins), so that calibrated
        predictions have 0 in the mean whatever N and V are, and sometimes less. What varies within a bin cancels, as
        in every binned error.

    Raises
    ------
    ValueError
        If the shapes do not fit, a row is no distribution, or a label is outside [0, V).
    """
    from relplot import smECE
    from sklearn.metrics import brier_score_loss, log_loss

    p = _distributions("against_labels", "probs", probs)
    y = torch.as_tensor(labels)
    if p.dim() != 2 or p.shape[1] < 2 or y.shape != p.shape[:1]:
        raise ValueError(
            f"against_labels: expected probs (N, V) with V ≥ 2 and labels (N,), got {tuple(p.shape)} and "
            f"{tuple(y.shape)}"
        )
    v = p.shape[1]
    whole = not (y.is_floating_point() or y.dtype == torch.bool)
    if len(y) == 0 or not whole or not bool(((y >= 0) & (y < v)).all()):
        raise ValueError(f"against_labels: labels: expected integers in [0, {v}), at least one, got {y.dtype}")
    if not (isinstance(bins, int) and bins >= 1):
        raise ValueError(f"against_labels: bins: expected an integer of at least 1, got {bins!r}")
    classes = list(range(v))
    hit = torch.nn.functional.one_hot(y.long(), v).double()
    confidence, choice = p.max(-1)
    right = (choice == y).double()
    base = hit.mean(0)
    uncertainty = float((base * (1 - base)).sum())
    brier = float(brier_score_loss(y, p, labels=classes, scale_by_half=False))
    miscalibration = _miscalibration(p, hit, bins)
    return {
        "log_loss": float(log_loss(y, p, labels=classes)),
        "brier": brier,
        "brier_miscalibration": miscalibration,
        "brier_discrimination": miscalibration + uncertainty - brier,
        "brier_uncertainty": uncertainty,
        "smooth_ece": float(smECE(confidence.numpy(), right.numpy())),
        "ece": float(_binned_error(confidence[:, None], right[:, None], bins)),
        "classwise_ece": float(_binned_error(p, hit, bins).mean()),
    }


def _binned_error(p: Tensor, hit: Tensor, bins: int) -> Tensor:
    """Σ over bins of equal width of |Σ (p − hit)| / N, for each column of (N, K): (K,)."""
    which = (p * bins).long().clamp(max=bins - 1)
    return _sums(which, p - hit, bins).abs().sum(0) / len(p)


def _miscalibration(p: Tensor, hit: Tensor, bins: int) -> float:
    """Σ over columns of the mean product of two residuals p − hit from one bin. A prediction falls into a bin by how
    many are smaller, so that those that tie share it; one that is alone in its bin has no second, and counts 0."""
    ordered, _ = p.T.contiguous().sort(-1)
    smaller = torch.searchsorted(ordered, p.T.contiguous()).T
    which = smaller * bins // len(p)
    residual = p - hit
    count, total, squares = (_sums(which, x, bins) for x in (torch.ones_like(p), residual, residual.square()))
    products = (total.square() - squares) / (count - 1).clamp(min=1)  # the mean product of two, times the bin's size
    return float(products.sum()) / len(p)


def _sums(which: Tensor, values: Tensor, bins: int) -> Tensor:
    """What values (N, K) add up to in each bin, `which` (N, K) says in which: (bins, K)."""
    return torch.zeros(bins, values.shape[1], dtype=values.dtype).scatter_add(0, which, values)


def against_truth(probs: Any, truth: Any, valid: Any = None) -> dict[str, Tensor]:
    """What only a known truth allows, per context and without sampling error.

    Parameters
    ----------
    probs, truth : array of float, (…, V)
        They broadcast.
    valid : array of bool, (…, V), optional
        The continuations that count as right: by default those that the truth allows.

    Returns
    -------
    dict of Tensor, (…)
        `kl` = KL(truth ‖ probs) and `entropy_gap` = H(probs) − H(truth), nats (positive: flatter than the truth);
        `total_variation`, half the sum of absolute differences; `valid_mass`, the probability of a right
        continuation; `regret` of choosing the likeliest token: max_k truth_k − truth at the choice (ties share).
    """
    p, q = (_distributions("against_truth", name, x) for name, x in (("probs", probs), ("truth", truth)))
    right = q > 0 if valid is None else torch.as_tensor(valid)
    if right.dtype != torch.bool:
        raise ValueError(f"against_truth: valid: expected booleans, got {right.dtype}")
    try:
        if len({x.shape[-1] for x in (p, q, right)}) > 1:
            raise RuntimeError
        p, q, right = torch.broadcast_tensors(p, q, right)
    except RuntimeError:
        raise ValueError(
            f"against_truth: expected shapes that broadcast over one vocabulary, got {tuple(p.shape)}, "
            f"{tuple(q.shape)} and {tuple(right.shape)}"
        ) from None
    best = (p == p.amax(-1, keepdim=True)).double()
    chosen = (best * q).sum(-1) / best.sum(-1)
    return {
        "kl": torch.xlogy(q, q).sum(-1) - torch.xlogy(q, p).sum(-1),
        "entropy_gap": torch.special.entr(p).sum(-1) - torch.special.entr(q).sum(-1),
        "total_variation": (p - q).abs().sum(-1) / 2,
        "valid_mass": torch.where(right, p, 0.0).sum(-1),
        "regret": q.amax(-1) - chosen,
    }


def _distributions(method: str, argument: str, value: Any) -> Tensor:
    p = tensor_of(value).detach().to("cpu", torch.float64)
    off = (p.sum(-1) - 1).abs()
    if p.dim() == 0 or not bool((p >= 0).all()) or not bool((off < 1e-5).all()):
        got = f"a sum of {float(p.sum(-1).flatten()[0]):g}" if p.dim() else "a number"
        raise ValueError(
            f"{method}: {argument}: expected rows of probabilities that sum to 1, got {got} or a bad entry"
        )
    return p / p.sum(-1, keepdim=True)
