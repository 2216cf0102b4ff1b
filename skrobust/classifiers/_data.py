"""Training data: deduplicated, weighted, split, as tensors and in batches."""

import numpy as np
import torch
from torch.utils.data import Dataset

from ..utils._random import hash_rows


class TensorData(Dataset):
    """Training data on the device: inputs, class indices and weights.

    Items and batches have the form ``({"x": x, "sample_weight": w}, y)``.
    """

    def __init__(self, x, y, sample_weight):
        self.x, self.y, self.sample_weight = x, y, sample_weight

    def __len__(self):
        return len(self.y)

    def __getitem__(self, rows):
        return {"x": self.x[rows], "sample_weight": self.sample_weight[rows]}, self.y[rows]


class TensorBatches:
    """Iterator over batches of tensors in random order.

    A batch is indexed in one operation, whereas a DataLoader fetches and collates row by row. The
    batches of an epoch have nearly equal sizes: batch normalisation fails on a last batch of one
    row.
    """

    def __init__(self, dataset, batch_size, generator):
        self.dataset, self.batch_size, self.generator = dataset, batch_size, generator

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        device = self.generator.device
        order = torch.randperm(len(self.dataset), generator=self.generator, device=device)
        for rows in torch.tensor_split(order, len(self)):
            yield self.dataset[rows]


class IsolatedBatches:
    """Batches of an iterator that draws from torch's global generators, without moving them.

    Parameters
    ----------
    batches : iterable
        For example a :class:`torch.utils.data.DataLoader`.

    random_state : TorchRandomState
    """

    def __init__(self, batches, random_state):
        self.batches, self.random_state = batches, random_state

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        with self.random_state.swapped():
            batches = iter(self.batches)
        while True:
            with self.random_state.swapped():
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            yield batch


def prepare_samples(classifier, X, y, sample_weight, *, options, seed, partial):
    """Deduplicate the samples, apply class weights, hold out validation data, make tensors.

    Parameters
    ----------
    classifier : BaseNetClassifier
        Source of ``classes_`` and of parameters.

    X : ndarray of shape (n_samples, ...)
        Inputs.

    y : ndarray of shape (n_samples,)
        Labels.

    sample_weight : ndarray of shape (n_samples,)
        Weights.

    options : dict
        Dtype and device of the inputs.

    seed : int
        Seed of the split.

    partial : bool
        Whether this is a call of ``partial_fit``, which holds out nothing.

    Returns
    -------
    samples : TensorData
        Training data.

    held_out : TensorData or None
        Validation data, with ``early_stopping``.
    """
    y = np.searchsorted(classifier.classes_, y)
    rows, weights = deduplicate_samples(X, y, sample_weight)
    y = y[rows]
    factors = class_factors(classifier.class_weight, classifier.classes_, y, weights)
    weights = weights * factors[y]

    def tensors(part):
        return TensorData(
            torch.as_tensor(X[rows[part]], **options),
            torch.as_tensor(y[part], device=options["device"]),
            torch.as_tensor(
                weights[part] / weights[part].mean(),
                dtype=torch.get_default_dtype(),
                device=options["device"],
            ),
        )

    if partial or not classifier.early_stopping:
        return tensors(slice(None)), None
    training, validation = hold_out_samples(y, classifier.validation_fraction, seed)
    return tensors(training), tensors(validation)


def deduplicate_samples(X, y, sample_weight):
    """Merge equal samples, drop samples with weight 0, and sort the rest by a hash.

    Training on the result does not depend on the order of the samples, nor on whether a sample
    occurs twice or once with weight 2.

    Parameters
    ----------
    X : ndarray of shape (n_samples, ...)
        Inputs.

    y : int ndarray of shape (n_samples,)
        Class indices.

    sample_weight : ndarray of shape (n_samples,)
        Weights.

    Returns
    -------
    rows : int ndarray of shape (n_distinct,)
        Index of one sample of each group of equal samples.

    weights : ndarray of shape (n_distinct,)
        Total weight of each group.
    """
    rows = np.flatnonzero(sample_weight > 0)
    keys = hash_rows(torch.from_numpy(np.ascontiguousarray(X[rows]))).numpy()
    order = np.lexsort((y[rows], keys))
    rows, keys = rows[order], keys[order]
    flat = X.reshape(len(X), -1)
    same = (keys[1:] == keys[:-1]) & (y[rows[1:]] == y[rows[:-1]])
    # Different samples can have equal hashes: compare the values, too.
    candidates = np.flatnonzero(same)
    same[candidates] = (flat[rows[candidates]] == flat[rows[candidates + 1]]).all(axis=1)
    starts = np.flatnonzero(np.r_[True, ~same])
    return rows[starts], np.add.reduceat(sample_weight[rows], starts)


def class_factors(class_weight, classes, y, sample_weight):
    """Return the factor of each class by which ``class_weight`` multiplies sample weights.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        Parameter of the classifier.

    classes : ndarray of shape (n_classes,)
        Labels.

    y : int ndarray of shape (n_samples,)
        Class indices.

    sample_weight : ndarray of shape (n_samples,)
        Weights, from which the frequencies of the classes are computed.

    Returns
    -------
    factors : ndarray of shape (n_classes,)
    """
    if class_weight is None:
        return np.ones(len(classes))
    if class_weight == "balanced":
        totals = np.bincount(y, sample_weight, minlength=len(classes))
        return totals.sum() / np.maximum(totals, np.finfo(float).tiny) / len(classes)
    unknown = [label for label in class_weight if label not in classes]
    if unknown:
        raise ValueError(
            f"class_weight contains labels that are not in y: {unknown}. The classes are "
            f"{classes[:20].tolist()}."
        )
    factors = np.array([class_weight.get(label, 1.0) for label in classes.tolist()])
    if not (np.isfinite(factors).all() and (factors >= 0).all() and factors.any()):
        raise ValueError(
            "class_weight must have finite, non-negative values, at least one of them positive; "
            f"got {class_weight}."
        )
    return factors


def hold_out_samples(y, fraction, seed):
    """Split samples into training and validation data, separately in each class.

    Every class contributes about ``fraction`` of its samples to the validation data: at least one
    if it has two or more, none if it has only one. A stratified split of scikit-learn would raise
    an error for such small classes.

    Parameters
    ----------
    y : int ndarray of shape (n_samples,)
        Class indices.

    fraction : float
        Share of the validation data.

    seed : int
        Seed of the split.

    Returns
    -------
    training, validation : int ndarrays
        Indices of the samples.
    """
    rng = np.random.RandomState(seed)
    held_out = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        wanted = max(1, round(fraction * len(members)))
        held_out[members[: min(wanted, len(members) - 1)]] = True
    if not held_out.any():
        raise ValueError(
            "early_stopping=True holds out samples for validation and needs a class with at least "
            "two different samples, but there is none. Set early_stopping=False."
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
