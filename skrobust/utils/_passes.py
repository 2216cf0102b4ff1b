"""What makes torch run many passes fast, and alike: threads, memory that stays, order of sums."""

from contextlib import contextmanager
from functools import cache
from itertools import chain

import torch

# Below this product of rows and parameters a second thread gains little: 1.1 x with 64 rows through
# the digits MLP, against 1.8 x with 256 rows through the MNIST CNN (benchmarks/settings.py). On a
# machine that is busy with something else, other workers perhaps, waiting for it costs many times
# what it gains.
_WORTH_THREADS = 10_000_000

# Largest block that glibc learns from when it is freed (32 MiB with what it adds).
_LARGEST_BLOCK = 2**25 - 2**16


@contextmanager
def fast_passes(module, n_rows):
    """Context for many passes of so many rows.

    There is one thread inside where the passes are too small to share; else as many as before. And
    cuDNN sums in one order: the gradients of convolutions would have other bits each time. On an
    H100 attacks took as long with it as without, 0.8 to 1.2 of the time.
    """
    _keep_freed_memory()
    cudnn = torch.backends.cudnn
    n_threads, deterministic = torch.get_num_threads(), cudnn.deterministic
    work = n_rows * sum(t.numel() for t in chain(module.parameters(), module.buffers()))
    alone = n_threads > 1 and work < _WORTH_THREADS
    cudnn.deterministic = True
    if alone:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        cudnn.deterministic = deterministic
        if alone:
            torch.set_num_threads(n_threads)


@cache
def _keep_freed_memory():
    """Let what is freed stay with the process, up to twice the size of the largest block.

    To begin with, glibc gives the memory of every tensor above a small size back to the system, and
    gets it anew for the next, page by page. Without that, passes through a network for MNIST took
    0.5 to 0.75 of the time; through LeNet, in smaller pieces, it made no difference. It stops where
    it has seen the program free a block of the size; one that nobody has touched costs nothing, and
    will do.
    """
    torch.empty(_LARGEST_BLOCK, dtype=torch.uint8)
