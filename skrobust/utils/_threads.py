"""How many threads torch gets."""

from contextlib import contextmanager
from itertools import chain

import torch

# Below this product of rows and parameters a second thread gains little: 1.1 x with 64 rows through
# the digits MLP, against 1.8 x with 256 rows through the MNIST CNN (benchmarks/settings.py). On a
# machine that is busy with something else, other workers perhaps, waiting for it costs many times
# what it gains.
_WORTH_THREADS = 10_000_000


@contextmanager
def suitable_threads(module, n_rows):
    """One thread inside the block where the passes are too small to share; else as it was."""
    n_threads = torch.get_num_threads()
    work = n_rows * sum(t.numel() for t in chain(module.parameters(), module.buffers()))
    if n_threads == 1 or work >= _WORTH_THREADS:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
