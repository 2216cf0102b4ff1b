"""Batches: how many rows go through a model at a time, chosen in this one place."""

from math import prod

from tqdm.auto import tqdm

# Measured on two CPU cores (benchmarks/settings.py): from about 2**18 input values on, the
# overhead of Python is lost in the noise and the activations begin to leave the cache.
_VALUES_A_BATCH = 2**18


def resolve_batch_size(batch_size, input_shape):
    """Rows a batch; ``"auto"`` bounds the values of the input batch, and with them the memory."""
    if batch_size != "auto":
        return batch_size
    return min(4096, max(16, _VALUES_A_BATCH // max(1, prod(input_shape))))


def batch_slices(n_samples, batch_size, *, verbose=0, description=None):
    """Slices that cover ``range(n_samples)``, under a progress bar when ``verbose`` is set."""
    slices = [slice(i, min(i + batch_size, n_samples)) for i in range(0, n_samples, batch_size)]
    return tqdm(slices, desc=description, unit="batch") if verbose else slices
