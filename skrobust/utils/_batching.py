"""Batch sizes and batches."""

from math import prod

from tqdm.auto import tqdm

# Measured on two CPU cores (benchmarks/settings.py): with about 2**18 input values per batch, the
# overhead of Python is negligible. With more, activations no longer fit into the cache.
_VALUES_PER_BATCH = 2**18


def resolve_batch_size(batch_size, input_shape):
    """Return the number of rows per batch.

    ``"auto"`` limits the number of values in an input batch, and so the memory of a pass.
    """
    if batch_size != "auto":
        return batch_size
    return min(4096, max(16, _VALUES_PER_BATCH // max(1, prod(input_shape))))


def batch_slices(n_samples, batch_size, *, verbose=0, description=None):
    """Return slices that cover ``range(n_samples)``, with a progress bar if ``verbose``."""
    slices = [slice(i, min(i + batch_size, n_samples)) for i in range(0, n_samples, batch_size)]
    return tqdm(slices, desc=description, unit="batch") if verbose else slices
