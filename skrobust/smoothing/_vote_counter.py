"""VoteCounter: count the predictions of a classifier for noisy points."""

from contextlib import contextmanager

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from tqdm.auto import tqdm

from ..adapters import find_access
from ..utils._batching import resolve_batch_size
from ..utils._random import RowNoise, make_generator

# Noisy points of an input are drawn in blocks of this size. Each block has a seed of its own, so
# that the noise does not depend on batches. A block of images fits into the cache of a CPU; an
# accelerator is faster with few large calls.
_BLOCK, _BLOCK_ON_ACCELERATOR = 128, 4096

# Number of values in a batch for classifiers without a view: `predict` of some of them takes
# milliseconds for any number of rows. An accelerator gets this many times the usual batch.
_VALUES_TO_PREDICT, _ACCELERATOR_FACTOR = 2**21, 64


class VoteCounter:
    """Counter of the votes of a classifier for noisy points.

    The noise of a row is a function of its values, the seed and the number of the noisy point. It
    depends neither on the batches nor on the other rows.

    Parameters
    ----------
    classifier : FittedClassifier
        The inner classifier.

    X : array or DataFrame
        Inputs, in the container that the classifier expects.

    array : ndarray
        The values of X.

    noise : Noise
        Fitted distribution.

    seed : int
        Seed of the noise.

    batch_size : int or "auto", default="auto"
        Number of noisy points in one pass.

    n_jobs : int or None, default=None
        Number of threads for classifiers without a view.

    verbose : int, default=0
        Verbosity. With 1, shows a progress bar.
    """

    def __init__(
        self, classifier, X, array, noise, seed, *, batch_size="auto", n_jobs=None, verbose=0
    ):
        self.access = find_access(classifier, X, array)
        self.x = torch.tensor(array)
        # Generators of torch use 32 bits of a seed.
        self.keys = RowNoise(self.x, seed).keys.numpy() & 0xFFFFFFFF
        self.x = self.x.to(**self.access.options)
        self.sample = noise.sampler(**self.access.options)
        self.seed, self.verbose, self.n_jobs = seed, verbose, n_jobs
        self.has_view = "gradients" in self.access.provides
        device = torch.device(self.access.options["device"])
        self.block = _BLOCK if device.type == "cpu" else _BLOCK_ON_ACCELERATOR
        self.batch_size = self._resolve_batch_size(batch_size, device)
        self.generator = make_generator(0, device)
        self._progress = self._parallel = None
        self.n_classes = len(classifier.classes)

    def _resolve_batch_size(self, batch_size, device):
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
    def prepared(self, n_votes=None):
        """Context in which votes can be counted.

        ``n_votes`` is the total number of votes, or None if it is not known in advance.
        """
        bar = tqdm(
            total=n_votes,
            desc="SmoothedClassifier",
            unit="sample",
            unit_scale=True,
            disable=not self.verbose,
        )
        n_jobs = 1 if self.has_view else effective_n_jobs(self.n_jobs)
        workers = Parallel(n_jobs=n_jobs, prefer="threads")
        with self.access.prepared(self.seed), workers as parallel, bar:
            self._progress = bar
            self._parallel = parallel if n_jobs > 1 else None
            yield self

    def count(self, rows, start, stop):
        """Count the votes of the noisy points ``start`` to ``stop - 1`` of some rows.

        Parameters
        ----------
        rows : int ndarray of shape (n_rows,)
            Indices of the rows.

        start, stop : int
            Numbers of the first noisy point, and of the one after the last.

        Returns
        -------
        counts : int64 ndarray of shape (n_rows, n_classes)
        """
        counts = torch.zeros(len(rows) * self.n_classes, dtype=torch.int64, device=self.x.device)
        capacity = max(self.batch_size, self.block)
        batch = self.x.new_empty((min(capacity, len(rows) * (stop - start)), *self.x.shape[1:]))
        # Position of the row, and number of noisy points, of each block in the batch.
        blocks: list = []
        n_filled = 0
        for i, row in enumerate(rows):
            x = self.x[row]
            for first in range(start, stop, self.block):
                n = min(self.block, stop - first)
                if n_filled + n > len(batch):
                    self._add_votes(batch[:n_filled], blocks, counts)
                    blocks, n_filled = [], 0
                self.generator.manual_seed((int(self.keys[row]) + first) & 0xFFFFFFFF)
                self.sample(batch[n_filled : n_filled + n], x, first, self.generator)
                blocks.append((i, n))
                n_filled += n
        if n_filled:
            self._add_votes(batch[:n_filled], blocks, counts)
        return counts.view(len(rows), self.n_classes).cpu().numpy()

    def _add_votes(self, batch, blocks, counts):
        """Add the votes of a batch to the flat array of counts."""
        row, n = torch.tensor(blocks, device=counts.device).T
        offset = torch.repeat_interleave(row * self.n_classes, n, output_size=len(batch))
        for z, cells in zip(
            batch.split(self.batch_size), offset.split(self.batch_size), strict=True
        ):
            cells = cells + self._predict(z)
            counts.index_add_(0, cells, torch.ones_like(cells))
        self._progress.update(len(batch))

    def _predict(self, z):
        """Return class indices, computed by several threads if there are some."""
        if self._parallel is None:
            return self.access.decide(z)
        parts = z.tensor_split(min(len(z), self._parallel.n_jobs))
        return torch.cat(self._parallel(delayed(self.access.decide)(part) for part in parts))

    def check_deterministic(self):
        """Raise a ValueError if two passes give different predictions for the same inputs."""
        with self.prepared():
            z = self.x[:64]
            predict = self.access.logits if self.has_view else self.access.decide
            first, second = predict(z), predict(z)
        if not torch.allclose(first.double(), second.double(), rtol=1e-3, atol=1e-6):
            raise ValueError(
                "the estimator of SmoothedClassifier gives different answers for the same inputs: "
                "its predictions are random, so that certificates are not repeatable. Set its "
                "random_state, or remove the random part of its predictions."
            )
