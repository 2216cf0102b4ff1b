"""Random flips of categories, for radii in l0."""

import numpy as np
import torch

from ._noise import Noise

# Largest radius that is computed. The number of regions grows with every column.
_MAX_COLUMNS = 10


class FlipNoise(Noise):
    """Random flips of categorical columns, which certify in l0.

    Each categorical column is redrawn with probability ``sigma``, uniformly from its categories.
    The radius is the number of columns that can change to any other category without a change of
    the top class. Columns that are not listed get no noise, and certificates do not cover changes
    to them.

    Parameters
    ----------
    columns : None or list, default=None
        Categorical columns of X, by index or name. A column holds numbers that encode its
        categories. A list of columns inside ``columns`` is one categorical column in one-hot
        encoding, and counts as one. None means that each column of X is categorical.

    Attributes
    ----------
    n_categories_ : ndarray of shape (n_columns,)
        Number of categories of each categorical column, as seen during :meth:`fit`.

    thresholds_ : ndarray of shape (n_radii,)
        Probability that the top class must exceed for a certificate of radius 0, 1, 2, ...

    Notes
    -----
    The likelihood ratio of a noisy point, under the noise of the input and under the noise of a
    changed input, is a product over the changed columns. Its factors depend on whether the noisy
    column equals the column of the input, of the changed input, or of neither. By the lemma of
    Neyman and Pearson, the worst classifier whose top class has probability p_A at the input votes
    for this class where the ratio is highest. Summing over the regions of equal ratio gives the
    exact lower bound on its probability at the changed input [1]_, [2]_.

    A change is easier to detect in a column with more categories, because K + 1 categories become
    K by merging one of them into another at random. The worst case is therefore a change in the
    columns with most categories. At most 10 columns are considered.

    References
    ----------
    .. [1] G.-H. Lee, Y. Yuan, S. Chang and T. Jaakkola, "Tight certificates of adversarial
       robustness for randomly smoothed classifiers", NeurIPS 2019.
    .. [2] A. Bojchevski, J. Gasteiger and S. Günnemann, "Efficient robustness certificates for
       discrete data: sparsity-aware randomized smoothing for graphs, images and more", ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skrobust.smoothing import FlipNoise
    >>> X = np.array([[0, 0], [1, 2], [0, 1]])
    >>> FlipNoise().fit(X, sigma=0.4).thresholds_.round(3)
    array([0.5  , 0.909, 0.977])
    """

    norm = "l0"
    unit = "columns"

    _parameter_constraints: dict = {"columns": [None, list]}

    def __init__(self, columns=None):
        self.columns = columns

    def fit(self, X, sigma, scale=None, *, feature_names=None, seed=0):
        """Find the categories and the certified radii; see :meth:`Noise.fit`."""
        if scale is not None or not 0 < sigma < 1:
            per_feature = "one sigma for each feature (an array, or scale='std')"
            given = f"sigma={sigma:g}" if scale is None else per_feature
            raise ValueError(
                "FlipNoise needs sigma between 0 and 1, the probability that a column is redrawn, "
                f"and scale=None of SmoothedClassifier; got {given}."
            )
        if X.ndim != 2:
            raise ValueError(f"FlipNoise needs X of shape (n_samples, n_features); got {X.shape}.")
        self.groups_ = self._find_groups(feature_names, X.shape[1])
        self.categories_ = [
            np.unique(X[:, g[0]]) if len(g) == 1 else np.arange(len(g)) for g in self.groups_
        ]
        super().fit(X, sigma)
        self.check(X)
        self.n_categories_ = np.array([len(c) for c in self.categories_])
        self.thresholds_, self._regions = self._find_thresholds()
        return self

    def check(self, X):
        """Raise a ValueError for categories that were not seen during :meth:`fit`."""
        for group, categories in zip(self.groups_, self.categories_, strict=True):
            values = X[:, group]
            if len(group) == 1:
                known = np.isin(values[:, 0], categories)
                problem = "a category that was not there at fit"
            else:
                known = np.isin(values, (0, 1)).all(axis=1) & (values.sum(axis=1) == 1)
                problem = "no one-hot code of 0 and a single 1"
            if not known.all():
                wrong = values[np.argmin(known)].tolist()
                raise ValueError(
                    f"X has {problem} in column {group.tolist()}: {wrong}. Certificates of "
                    "FlipNoise hold for the categories seen at fit only. Remove the column from "
                    "columns of FlipNoise, or change X."
                )

    def sampler(self, dtype, device):
        """Return a function that draws noisy points of one input; see :meth:`Noise.sampler`."""
        sizes = torch.as_tensor(self.n_categories_, device=device)
        single = [i for i, group in enumerate(self.groups_) if len(group) == 1]
        one_hot = [(i, torch.as_tensor(g)) for i, g in enumerate(self.groups_) if len(g) > 1]
        columns = torch.as_tensor([self.groups_[i][0] for i in single], device=device)
        # Row i holds the categories of the i-th column that is not one-hot encoded.
        table = np.zeros((len(single), max((len(self.categories_[i]) for i in single), default=0)))
        for row, i in zip(table, single, strict=True):
            row[: len(self.categories_[i])] = self.categories_[i]
        table = torch.as_tensor(table, dtype=dtype, device=device)
        rows = torch.arange(len(single), device=device)
        options = {"device": device, "dtype": torch.float64}

        def sample(out, x, start, generator):
            uniform = torch.rand((2, len(out), len(sizes)), generator=generator, **options)
            flipped = uniform[0] < self.sigma_
            drawn = (uniform[1] * sizes).long()
            out.copy_(x.expand_as(out))
            values = table[rows, drawn[:, single]]
            out[:, columns] = torch.where(flipped[:, single], values, out[:, columns])
            for i, group in one_hot:
                code = torch.nn.functional.one_hot(drawn[:, i], len(group)).to(dtype)
                out[:, group] = torch.where(flipped[:, i : i + 1], code, out[:, group])

        return sample

    def threshold(self, radius):
        """Return the probability that a radius needs; see :meth:`Noise.threshold`."""
        n_columns = int(np.floor(radius))
        return self.thresholds_[n_columns] if n_columns < len(self.thresholds_) else 1.0

    def radius(self, p_lower, runner_up_upper=None):
        """Return the number of columns that can change; see :meth:`Noise.radius`."""
        p = np.asarray(p_lower, dtype=np.float64)
        if runner_up_upper is None:
            certified = p[..., np.newaxis] > self.thresholds_
        else:
            q = np.asarray(runner_up_upper, dtype=np.float64)
            lower = [_lower_bound(regions, p) for regions in self._regions]
            upper = [1 - _lower_bound(regions, 1 - q) for regions in self._regions]
            certified = np.stack(lower, axis=-1) > np.stack(upper, axis=-1)
        # The largest radius up to which all smaller ones are certified, too.
        return np.cumprod(certified, axis=-1).sum(axis=-1) - 1.0

    def _find_groups(self, feature_names, n_features):
        """Return the indices of each categorical column: several for one-hot encoding."""
        columns = range(n_features) if self.columns is None else self.columns
        groups = [
            _column_indices(c if isinstance(c, list | tuple) else [c], feature_names, n_features)
            for c in columns
        ]
        listed = np.concatenate(groups) if groups else np.empty(0, dtype=int)
        if len(listed) == 0 or len(np.unique(listed)) != len(listed):
            raise ValueError(
                "columns of FlipNoise must list at least one column, and none of them twice; got "
                f"{self.columns!r}."
            )
        return groups

    def _find_thresholds(self):
        """Return the probabilities that radii 0, 1, 2, ... need, and the regions of each radius.

        Regions are a pair of arrays: the probabilities of the regions of equal likelihood ratio,
        under the noise of the input and under the noise of the changed input.
        """
        clean, changed = np.ones(1), np.ones(1)
        thresholds, regions = [0.5], [(clean, changed)]
        for k in np.sort(self.n_categories_[self.n_categories_ > 1])[::-1][:_MAX_COLUMNS]:
            other = self.sigma_ / k
            same = 1 - self.sigma_ + other
            # The noisy column equals the column of the input, of the changed input, or of neither.
            clean = np.outer(clean, [same, other, (k - 2) * other]).ravel()
            changed = np.outer(changed, [other, same, (k - 2) * other]).ravel()
            clean, changed = _merge(clean, changed)
            needed = float(np.interp(0.5, _cumulate(changed), _cumulate(clean)))
            if needed > 1 - 1e-9:
                break
            # Raise the threshold by more than the rounding error of the sums.
            thresholds.append(max(needed + 1e-12, thresholds[-1]))
            regions.append((clean, changed))
        return np.array(thresholds), regions


def _merge(clean, changed):
    """Merge regions of equal likelihood ratio, and sort them by falling ratio."""
    possible = clean > 0
    clean, changed = clean[possible], changed[possible]
    ratio = np.round(np.log(clean) - np.log(changed), 9)
    values, which = np.unique(-ratio, return_inverse=True)
    return tuple(np.bincount(which, part, minlength=len(values)) for part in (clean, changed))


def _lower_bound(regions, p):
    """Return the least probability at the changed input of a class with probability ``p``."""
    return np.interp(p, *(_cumulate(part) for part in regions))


def _cumulate(probabilities):
    return np.concatenate([[0.0], np.cumsum(probabilities)])


def _column_indices(columns, feature_names, n_features):
    """Return the indices of columns that are given by index or name."""
    names = {} if feature_names is None else {name: i for i, name in enumerate(feature_names)}
    indices = [names.get(c, c) if isinstance(c, str) else c for c in columns]
    wrong = [c for c in indices if isinstance(c, str) or not -n_features <= c < n_features]
    if wrong:
        known = "without names" if feature_names is None else f"named {list(names)[:20]}"
        raise ValueError(
            f"columns of FlipNoise contains {wrong[0]!r}, and X has no such column: it has "
            f"{n_features} columns, {known}."
        )
    return np.asarray(indices, dtype=int) % n_features
