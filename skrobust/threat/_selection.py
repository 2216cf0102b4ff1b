"""Select the largest values of each row."""

import numpy as np
import torch

_NUMPY_DTYPES = {torch.float32, torch.float64}


def largest_values(size, count):
    """Mark the ``count`` largest values of each row; of equal ones, the first.

    Parameters
    ----------
    size : tensor of shape (n, d)
        Values that are not negative.

    count : int, float or tensor of shape (n, 1)

    Returns
    -------
    marks : tensor of shape (n, d)
        1 for the selected values, else 0, in the dtype of ``size``. Zeros are not selected.
    """
    threshold = largest_threshold(size, count)
    # Comparisons are written into floats: on a CPU, boolean masks take several times as long.
    marks = torch.ge(size, threshold, out=torch.empty_like(size))
    if bool((marks.sum(1, keepdim=True) > count).any()):
        above = torch.gt(size, threshold, out=torch.empty_like(size))
        equal = marks.sub_(above)
        marks = above + equal * (equal.cumsum(1) <= count - above.sum(1, keepdim=True))
    return marks


def largest_threshold(size, count):
    """Return a positive number that ``count`` values of each row reach; more only with ties.

    Parameters
    ----------
    size : tensor of shape (n, d)

    count : int, float or tensor of shape (n, 1)

    Returns
    -------
    threshold : tensor of shape (n, 1)
        Infinite where ``count`` is below 1.
    """
    n_features = size.shape[1]
    count = torch.as_tensor(count, device=size.device).long().clamp(max=n_features)
    if size.device.type == "cpu":
        # NumPy sorts rows in a fifth of the time of torch.
        values = size if size.dtype in _NUMPY_DTYPES else size.float()
        ordered = torch.from_numpy(np.sort(values.numpy(), axis=1)).to(size.dtype)
    else:
        ordered = size.sort(1).values
    index = n_features - count.clamp(min=1)
    threshold = ordered.gather(1, index.expand(len(size), 1))
    return threshold.clamp_min_(torch.finfo(size.dtype).tiny).masked_fill_(count < 1, torch.inf)
