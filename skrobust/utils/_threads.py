"""How many threads torch gets."""

from contextlib import contextmanager
from itertools import chain

import torch

# Below this product of rows and parameters a pass takes well under a millisecond, and handing it
# to a second thread costs as much as it saves: measured with the digits MLP (64 rows: 1.0 x) and
# the MNIST CNN (256 rows: 1.7 x), see benchmarks/settings.py. On a machine that is busy with
# something else, such as other workers, waiting for the second thread costs a hundred times that.
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
