"""Robust accuracy on held-out data during training."""

import numpy as np
import torch

from ..attacks._access import Gradients
from ..attacks._losses import CrossEntropy
from ..attacks._pgd import climb, step_fractions
from ..attacks._search import Search
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
    model = Gradients(view)
    with model.prepared(n_rows):
        for rows in batch_slices(len(data), n_rows):
            x = data.x[rows]
            search = Search(model, threat.around(x), CrossEntropy(data.y[rows]))
            search.look(x)
            clean = search.margin_best <= 0
            start = search.region.random(RowNoise(x, seed))
            climb(search, start, step_fractions(_N_STEPS, None, threat.eps))
            weight = data.sample_weight[rows].unsqueeze(1)
            left = torch.stack([clean, search.margin_best <= 0, -search.margin_best])
            counts += (left.to(weight) * weight).sum((1, 2)).double().cpu().numpy()
    return tuple((counts / float(data.sample_weight.double().sum())).tolist())
