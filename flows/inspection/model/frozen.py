"""Recipe (a): a frozen backbone and an L2-regularised logistic head on features pooled from several layers."""

import logging
import warnings
from dataclasses import dataclass

import numpy as np

from inspection.model.examples import TrainingSet, folds_of

log = logging.getLogger(__name__)

PENALTIES = tuple(10.0**power for power in range(-6, 1))  # scikit-learn's C for images of weight one
INNER_FOLDS = 5

_Try = tuple[np.ndarray, float, np.ndarray, float, float]  # losses, C, out-of-fold logits, slope, offset


@dataclass(frozen=True)
class Head:
    """A linear head on standardised features: logits = weight @ feature + bias."""

    weight: np.ndarray  # float64 [K, F]
    bias: np.ndarray  # float64 [K]

    def scaled(self, slope: float, offset: float) -> "Head":
        """The head whose logits are slope * logits + offset."""
        return Head(self.weight * slope, self.bias * slope + offset)


class LogisticFits:
    """Logistic regressions on the same features, cheap to repeat.

    Every solution with an L2 penalty is a combination of the rows, so the features are first rotated into the space
    that the rows span: exact, and a thousand columns instead of four thousand.
    """

    def __init__(self, features: np.ndarray, views: int) -> None:
        """Rotate standardised features, float32 [views * N, F]: all images, then all of their next view, and so on."""
        self.views = views
        self.images = len(features) // views
        self._features = features
        self._basis: np.ndarray | None = None
        self.columns: np.ndarray = features
        if len(features) < features.shape[1]:
            values, vectors = np.linalg.eigh((features @ features.T).astype(np.float64))
            keep = values > values[-1] * 1e-9
            roots = np.sqrt(values[keep])
            self.columns = vectors[:, keep] * roots
            self._basis = vectors[:, keep] / roots

    def fit(self, labels: np.ndarray, penalty: float, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit on all views of some images, classes balanced; returns weight [K, columns] and bias [K].

        K is 1 for two classes (logit of the higher one), else the number of classes.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        rows = (np.arange(self.views)[:, None] * self.images + images[None, :]).ravel()
        chosen = np.tile(labels[images], self.views)
        present, counts = np.unique(labels[images], return_counts=True)
        share = {
            label: len(images) / (len(present) * count * self.views)
            for label, count in zip(present, counts, strict=True)
        }
        weights = np.array([share[label] for label in chosen])
        solver = "newton-cholesky" if self.columns.shape[1] <= 1500 else "lbfgs"
        model = LogisticRegression(C=penalty, solver=solver, max_iter=1000)
        with warnings.catch_warnings():  # the last digits of a logit change no decision
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(self.columns[rows], chosen, sample_weight=weights)
        return model.coef_, model.intercept_

    def out_of_fold(self, labels: np.ndarray, penalty: float, folds: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Logits [N] of the unchanged view of each image, from a fit that has not seen its group."""
        logits = np.zeros(self.images)
        for rest, part in folds:
            weight, bias = self.fit(labels, penalty, rest)
            logits[part] = self.columns[part] @ weight[0] + bias[0]
        return logits

    def unrotate(self, weight: np.ndarray, bias: np.ndarray) -> Head:
        """The head on the standardised features themselves."""
        if self._basis is not None:
            weight = (weight @ self._basis.T) @ self._features
        return Head(weight, bias)


def fit_score_head(fits: LogisticFits, training_set: TrainingSet, seed: int) -> tuple[Head, dict[str, float]]:
    """Fit the defect logit: the penalty with the best out-of-fold loss, then calibrated on those logits.

    Returns:
        the head, and figures for the record (penalty, out-of-fold AUROC and loss).
    """
    from sklearn.metrics import roc_auc_score

    labels = training_set.is_bad.astype(np.int64)
    folds = folds_of(training_set, INNER_FOLDS, seed)
    tried = []
    for penalty in PENALTIES:
        logits = fits.out_of_fold(labels, penalty, folds)
        slope, offset = fit_common_scale(logits, training_set.is_bad)
        losses = balanced_losses(slope * logits + offset, training_set.is_bad)
        tried.append((losses, penalty, logits, slope, offset))
    losses, penalty, logits, slope, offset = _strongest_as_good(tried)
    head = fits.unrotate(*fits.fit(labels, penalty, np.arange(fits.images))).scaled(slope, offset)
    figures = {"C": penalty, "inner_auroc": float(roc_auc_score(labels, logits)), "inner_loss": float(losses.mean())}
    return head, figures


def fit_type_head(fits: LogisticFits, training_set: TrainingSet, names: tuple[str, ...], penalty: float) -> Head:
    """Fit type logits on the bad images whose type is among `names`; the head has a row for each name."""
    indices = np.array([training_set.defect_types.index(name) for name in names])
    images = np.flatnonzero(np.isin(training_set.types, indices) & training_set.is_bad)
    weight, bias = fits.fit(training_set.types, penalty, images)
    if len(names) == 2:  # one logit tells two types apart: half of it for one, half against the other
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return fits.unrotate(weight, bias)


def fit_common_scale(scores: np.ndarray, is_bad: np.ndarray) -> tuple[float, float]:
    """Slope and offset that turn scores into log-odds of a balanced set, so that models can be averaged.

    Targets are smoothed, so that perfectly separated scores still get a finite scale.

    Source: Platt, Probabilistic outputs for support vector machines, 1999.

    Args:
        scores: float [N], of images that the model was not fitted to.
        is_bad: bool [N].
    """
    from scipy.optimize import minimize

    bad, good = int(is_bad.sum()), int((~is_bad).sum())
    targets = np.where(is_bad, (bad + 1) / (bad + 2), 1 / (good + 2))
    weights = np.where(is_bad, 0.5 / bad, 0.5 / good)
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    standard = (scores - centre) / spread

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * standard + parameters[1]
        error = weights * (1 / (1 + np.exp(-np.clip(logits, -50, 50))) - targets)
        value = np.sum(weights * (np.logaddexp(0, logits) - targets * logits))
        return float(value), np.array([np.sum(error * standard), np.sum(error)])

    slope, offset = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, None), (None, None)]
    ).x
    return float(slope / spread), float(offset - slope * centre / spread)


def balanced_losses(logits: np.ndarray, is_bad: np.ndarray) -> np.ndarray:
    """Logistic loss of each image, [N], weighted so that both classes weigh the same in the mean."""
    share = float(is_bad.mean())
    weights = np.where(is_bad, 0.5 / share, 0.5 / (1 - share))
    losses: np.ndarray = weights * np.logaddexp(0, np.where(is_bad, -logits, logits))
    return losses


def _strongest_as_good(tried: list[_Try]) -> _Try:
    """The strongest penalty (smallest C) within one standard error of the best: it errs less on what is new.

    Source: Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.
    """
    best = min(tried, key=lambda one: float(one[0].mean()))
    for one in sorted(tried, key=lambda one: one[1]):
        behind = one[0] - best[0]
        if behind.mean() <= behind.std(ddof=1) / np.sqrt(len(behind)):
            return one
    return best
