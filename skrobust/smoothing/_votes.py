"""Votes: what a classifier answers for the noisy points of inputs."""

from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from tqdm.auto import tqdm

from ..attacks._access import find_access
from ..utils._batching import resolve_batch_size
from ..utils._random import RowNoise, isolated_rng, make_generator

# Noisy points of an input are made in blocks of this many, each by a generator of its own seed, so
# that they do not depend on batches. A block of images fits into the cache; an accelerator wants
# few large calls.
_BLOCK, _BLOCK_ON_ACCELERATOR = 128, 4096

# Values in a batch for classifiers that are asked by predict, some of which take milliseconds for
# any number of rows; and how many times the usual batch an accelerator gets.
_VALUES_TO_PREDICT, _ACCELERATOR_FACTOR = 2**21, 64


class Votes:
    """Counts the votes of a classifier for noisy points of inputs.

    The noise of an input is a function of its values, the seed and the number of the draw: neither
    batches nor neighbours change it.

    Parameters
    ----------
    target : Target
        The classifier.

    X : array or DataFrame
        Inputs, in what the classifier wants to get them.

    array : ndarray
        Their values.

    noise : Noise
        Fitted.

    seed : int
        For the noise.

    batch_size : int or "auto"
        Noisy points a pass.

    n_jobs : int or None
        Threads for classifiers that are asked by ``predict``.

    verbose : int
        Whether to show a progress bar.
    """

    def __init__(self, target, X, array, noise, seed, *, batch_size="auto", n_jobs=None, verbose=0):
        self.access = find_access(target, X, array)
        self.x = torch.tensor(array)
        # Of which the generators of torch keep 32 bits.
        self.keys = RowNoise(self.x, seed).keys.numpy() & 0xFFFFFFFF
        self.x = self.x.to(**self.access.options)
        self.sample = noise.sampler(**self.access.options)
        self.seed, self.verbose, self.n_jobs = seed, verbose, n_jobs
        self.has_view = "gradients" in self.access.gives
        device = torch.device(self.access.options["device"])
        self.block = _BLOCK if device.type == "cpu" else _BLOCK_ON_ACCELERATOR
        self.batch_size = self._resolve(batch_size, device)
        self.generator = make_generator(0, device)
        self._progress = self._parallel = None
        self.n_classes = len(target.classes)

    def _resolve(self, batch_size, device):
        if batch_size != "auto":
            return batch_size
        shape = self.x.shape[1:]
        if not self.has_view:
            return int(np.clip(_VALUES_TO_PREDICT // max(1, shape.numel()), 1024, 2**16))
        size = resolve_batch_size("auto", shape)
        if device.type != "cpu":
            size *= _ACCELERATOR_FACTOR
        return -(-size // self.block) * self.block

    @contextmanager
    def prepared(self, total=None):
        """Context in which votes are counted; ``total`` is their number, if it is known."""
        device = self.access.options["device"]
        bar = tqdm(
            total=total,
            desc="SmoothedClassifier",
            unit="sample",
            unit_scale=True,
            disable=not self.verbose,
        )
        n_rows = self.batch_size if total is None else min(total, self.batch_size)
        n_jobs = 1 if self.has_view else effective_n_jobs(self.n_jobs)
        workers = Parallel(n_jobs=n_jobs, prefer="threads")
        # The generators belong to one thread at a time: others would wait for this one for ever.
        generators = isolated_rng(self.seed, device) if n_jobs == 1 else nullcontext()
        with (
            generators,
            self.access.prepared(n_rows),
            workers as parallel,
            bar,
        ):
            self._progress = bar
            self._parallel = parallel if n_jobs > 1 else None
            yield self

    def count(self, rows, start, stop):
        """Votes of the noisy points ``start`` to ``stop`` of some of the inputs.

        Returns
        -------
        counts : int64 ndarray of shape (len(rows), n_classes)
        """
        device = self.x.device
        counts = torch.zeros(len(rows) * self.n_classes, dtype=torch.int64, device=device)
        capacity = max(self.batch_size, self.block)
        batch = self.x.new_empty((min(capacity, len(rows) * (stop - start)), *self.x.shape[1:]))
        of_row: list = []
        filled = 0
        for i, row in enumerate(rows):
            x = self.x[row]
            for first in range(start, stop, self.block):
                n = min(self.block, stop - first)
                if filled + n > len(batch):
                    self._vote(batch[:filled], of_row, counts)
                    of_row, filled = [], 0
                self.generator.manual_seed((int(self.keys[row]) + first) & 0xFFFFFFFF)
                self.sample(batch[filled : filled + n], x, first, self.generator)
                of_row.append((i, n))
                filled += n
        if filled:
            self._vote(batch[:filled], of_row, counts)
        return counts.view(len(rows), self.n_classes).cpu().numpy()

    def _vote(self, batch, of_row, counts):
        """Add the votes for a batch to the counts."""
        position, n = torch.tensor(of_row, device=counts.device).T
        cell = torch.repeat_interleave(position * self.n_classes, n, output_size=len(batch))
        for part, cells in zip(
            batch.split(self.batch_size), cell.split(self.batch_size), strict=True
        ):
            cells = cells + self._decide(part)
            counts.index_add_(0, cells, torch.ones_like(cells))
        self._progress.update(len(batch))

    def _decide(self, z):
        if self._parallel is None:
            return self.access.decide(z)
        parts = z.tensor_split(min(len(z), self._parallel.n_jobs))
        return torch.cat(self._parallel(delayed(self.access.decide)(part) for part in parts))

    def check_repeatable(self):
        """Raise a ValueError where the classifier answers the same question in two ways."""
        with self.prepared():
            z = self.x[:64]
            ask = self.access.logits if self.has_view else self.access.decide
            first, second = ask(z), ask(z)
        if not torch.allclose(first.double(), second.double(), rtol=1e-3, atol=1e-6):
            raise ValueError(
                "the estimator of SmoothedClassifier gives different answers for the same inputs: "
                "it is random itself, and its certificates could not be repeated. Set its "
                "random_state, or take what is random out of its prediction."
            )
