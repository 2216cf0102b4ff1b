"""Robust accuracy on held-out data during training."""

import numpy as np
import torch

from ..adapters import GradientAccess
from ..attacks.core._ascent import ascend, step_fractions
from ..attacks.core._batch import AttackBatch
from ..attacks.core._losses import CrossEntropy
from ..attacks.core._search import MarginSearch
from ..utils._batching import batch_slices, resolve_batch_size
from ..utils._random import RowNoise

# The default of AdversarialTraining. More steps would be slow, as this runs after every epoch.
_N_STEPS = 10


def evaluate_robustness(view, data, threat, seed):
    """Return clean accuracy, robust accuracy and the mean margin under attack.

    Parameters
    ----------
    view : torch.nn.Module
        Differentiable view of the classifier.

    data : TensorData
        Held-out samples; their weights are used.

    threat : ThreatModel
        Threat model of the classifier, at the full ``eps``.

    seed : int
        Seed of the random starts.

    Returns
    -------
    accuracy, robust_accuracy, margin : float
        The margin is the difference between the logit of the label and the largest other logit.
    """
    counts = np.zeros(3)
    n_rows = resolve_batch_size("auto", data.x.shape[1:])
    model = GradientAccess(view)
    with model.prepared(seed):
        for rows in batch_slices(len(data), n_rows):
            x = data.x[rows]
            batch = AttackBatch(model, threat.feasible_set(x), data.y[rows])
            search = MarginSearch(batch, CrossEntropy)
            search.try_points(x)
            correct = search.best.score <= 0
            start = search.feasible_set.random_start(RowNoise(x, seed))
            fractions = step_fractions(_N_STEPS, None, threat.eps)
            search.try_points(ascend(search, start, fractions))
            margin = search.best.score
            weight = data.sample_weight[rows].unsqueeze(1)
            figures = torch.stack([correct, margin <= 0, -margin])
            counts += (figures.to(weight) * weight).sum((1, 2)).double().cpu().numpy()
    return tuple((counts / float(data.sample_weight.double().sum())).tolist())
