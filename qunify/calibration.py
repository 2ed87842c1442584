"""How far predictions are from what happens: from observed labels by kept libraries, and from a known truth exactly."""

from __future__ import annotations

from typing import Any

import torch
from scipy.optimize import isotonic_regression
from torch import Tensor


def against_labels(probs: Any, labels: Any, bins: int = 15) -> dict[str, float]:
    """Calibration measured on observed labels. Needs the extra `calibration`.

    Parameters
    ----------
    probs : array of float, (N, V)
    labels : array of int, (N,)
    bins : int
        Equal-width bins of the binned errors.

    Returns
    -------
    dict
        `log_loss` (nats; a probability of 0 counts as the least float above it) and `brier` (Σ_k (p_k − δ_k)²), by
        scikit-learn; `smooth_ece` of the confidence in the likeliest
        token (Błasiok & Nakkiran 2024, relplot); `ece` the same by bins and `classwise_ece`, the mean over tokens of
        the binned error of p_k (torchmetrics); `brier_miscalibration`, `brier_discrimination` and `brier_uncertainty`
        with brier = miscalibration − discrimination + uncertainty: the score against that of isotonic recalibration
        (SciPy) and that of the base rates, one token against the rest, summed (Dimitriadis et al. 2021).

    Raises
    ------
    ValueError
        If the shapes do not fit, a row is no distribution, or a label is outside [0, V).
    """
    from relplot import smECE
    from sklearn.metrics import brier_score_loss, log_loss
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    p = _distributions("against_labels", "probs", probs)
    y = torch.as_tensor(labels)
    if p.dim() != 2 or y.shape != p.shape[:1]:
        raise ValueError(
            f"against_labels: expected probs (N, V) and labels (N,), got {tuple(p.shape)} and {tuple(y.shape)}"
        )
    v = p.shape[1]
    if len(y) == 0 or y.is_floating_point() or not bool(((y >= 0) & (y < v)).all()):
        raise ValueError(f"against_labels: labels: expected integers in [0, {v}), at least one")
    classes = list(range(v))
    hit = torch.nn.functional.one_hot(y, v).double()
    confidence, choice = p.max(-1)
    base = hit.mean(0)
    uncertainty = float((base * (1 - base)).sum())
    brier = float(brier_score_loss(y, p, labels=classes, scale_by_half=False))
    recalibrated, classwise = 0.0, 0.0
    for column, happened in zip(p.T.contiguous(), hit.T.contiguous(), strict=True):
        recalibrated += float((_recalibrated(column, happened) - happened).square().mean())
        classwise += float(binary_calibration_error(column, happened.long(), n_bins=bins, norm="l1")) / v
    return {
        "log_loss": float(log_loss(y, p, labels=classes)),
        "brier": brier,
        "brier_miscalibration": brier - recalibrated,
        "brier_discrimination": uncertainty - recalibrated,
        "brier_uncertainty": uncertainty,
        "smooth_ece": float(smECE(confidence.numpy(), (choice == y).double().numpy())),
        "ece": float(multiclass_calibration_error(p, y, num_classes=v, n_bins=bins, norm="l1")),
        "classwise_ece": classwise,
    }


def _recalibrated(column: Tensor, happened: Tensor) -> Tensor:
    """The increasing function of predictions (N,) that is nearest to what happened; predictions that tie stay tied."""
    level, place, size = column.unique(return_inverse=True, return_counts=True)
    mean = torch.zeros_like(level).index_add(0, place, happened) / size
    return torch.from_numpy(isotonic_regression(mean.numpy(), weights=size.double().numpy()).x)[place]


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
    p = torch.as_tensor(value).detach().to("cpu", torch.float64)
    off = (p.sum(-1) - 1).abs()
    if p.dim() == 0 or not bool((p >= 0).all()) or not bool((off < 1e-5).all()):
        got = f"a sum of {float(p.sum(-1).flatten()[0]):g}" if p.dim() else "a number"
        raise ValueError(
            f"{method}: {argument}: expected rows of probabilities that sum to 1, got {got} or a bad entry"
        )
    return p / p.sum(-1, keepdim=True)
