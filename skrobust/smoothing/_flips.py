"""Sparse flips of categories: radii in l0."""

import numpy as np
import torch

from ._noise import Noise

# Radii beyond are not looked for: the number of regions grows with every column.
_MOST_COLUMNS = 10


class FlipNoise(Noise):
    """Sparse flips for categorical columns: certifies in l0.

    Each categorical column is replaced, with probability ``sigma``, by one of its categories, all
    of them alike. The radius is the number of columns that can be changed, to whatever other
    category, without changing the majority. Columns that are not named stay as they are, and
    nothing is said about changes of theirs.

    Parameters
    ----------
    columns : None or list, default=None
        The categorical columns of X, by index or name. A column holds numbers that stand for its
        categories; a list of columns in the place of one is a category in one-hot code, and counts
        as one. None means all columns, each of its own.

    Attributes
    ----------
    n_categories_ : ndarray of shape (n_columns,)
        Number of categories of each, as seen during :meth:`fit`.

    thresholds_ : ndarray
        Probability that a class must have to be certified when 0, 1, 2, ... columns change.

    Notes
    -----
    Whether an input or a changed one was there before the flips shows in a noisy point by the
    columns in which it equals one or the other: the likelihood ratio is a product over the changed
    columns. The worst classifier that gives the input a probability p_A is that of Neyman and
    Pearson: it votes for the class where the ratio is highest. Summing over the regions of
    equal ratio gives the exact lower bound for the changed input [1]_, [2]_. The more categories
    two columns have, the easier the change shows (merging a category into a random other one leads
    from K + 1 to K), so that the columns with most categories are the worst to be changed. At most
    10 are considered.

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

    _parameter_constraints: dict = {"columns": [None, list]}

    def __init__(self, columns=None):
        self.columns = columns

    def fit(self, X, sigma, scale=None, *, feature_names=None, seed=0):
        """Find the categories; see :meth:`Noise.fit`."""
        if scale is not None or not 0 < sigma < 1:
            given = f"sigma={sigma:g}" if scale is None else "one sigma for each feature"
            raise ValueError(
                "FlipNoise needs sigma between 0 and 1, the probability that a column is drawn "
                f"anew, and scale=None; got {given}."
            )
        if X.ndim != 2:
            raise ValueError(f"FlipNoise needs X of two dimensions; got shape {X.shape}.")
        columns = range(X.shape[1]) if self.columns is None else self.columns
        groups = [
            _positions(c if isinstance(c, list | tuple) else [c], feature_names, X.shape[1])
            for c in columns
        ]
        named = np.concatenate(groups) if groups else np.empty(0, dtype=int)
        if len(named) == 0 or len(np.unique(named)) != len(named):
            raise ValueError(
                f"columns of FlipNoise must name columns, and none of them twice; got "
                f"{self.columns!r}."
            )
        self.groups_ = groups
        self.categories_ = [
            np.unique(X[:, g[0]]) if len(g) == 1 else np.arange(len(g)) for g in groups
        ]
        super().fit(X, sigma)
        self.check(X)
        self.n_categories_ = np.array([len(c) for c in self.categories_])
        self.thresholds_, self._regions = self._worst_cases()
        return self

    def check(self, X):
        """Raise a ValueError for categories that were not seen during :meth:`fit`."""
        for group, categories in zip(self.groups_, self.categories_, strict=True):
            values = X[:, group]
            if len(group) == 1:
                known = np.isin(values[:, 0], categories)
                what = "a category that was not there at fit"
            else:
                known = np.isin(values, (0, 1)).all(axis=1) & (values.sum(axis=1) == 1)
                what = "no one-hot code of 0 and a single 1"
            if not known.all():
                wrong = values[np.argmin(known)].tolist()
                raise ValueError(
                    f"X has {what} in column {group.tolist()}: {wrong}. Certificates of FlipNoise "
                    "hold for known categories. Leave the column out of `columns`, or encode X so."
                )

    def sampler(self, dtype, device):
        """Function that makes noisy points of one input; see :meth:`Noise.sampler`."""
        sizes = torch.as_tensor(self.n_categories_, device=device)
        single = [i for i, group in enumerate(self.groups_) if len(group) == 1]
        at = torch.as_tensor([self.groups_[i][0] for i in single], device=device)
        table = np.zeros((len(single), max((len(self.categories_[i]) for i in single), default=0)))
        for row, i in zip(table, single, strict=True):
            row[: len(self.categories_[i])] = self.categories_[i]
        table = torch.as_tensor(table, dtype=dtype, device=device)
        rows = torch.arange(len(single), device=device)
        several = [(i, torch.as_tensor(g)) for i, g in enumerate(self.groups_) if len(g) > 1]
        options = {"device": device, "dtype": torch.float64}

        def sample(out, x, start, generator):
            uniform = torch.rand((2, len(out), len(sizes)), generator=generator, **options)
            flipped = uniform[0] < self.sigma_
            drawn = (uniform[1] * sizes).long()
            out.copy_(x.expand_as(out))
            out[:, at] = torch.where(flipped[:, single], table[rows, drawn[:, single]], out[:, at])
            for i, group in several:
                hot = torch.nn.functional.one_hot(drawn[:, i], len(group)).to(dtype)
                out[:, group] = torch.where(flipped[:, i : i + 1], hot, out[:, group])

        return sample

    def threshold(self, radius):
        """Probability that a radius needs; see :meth:`Noise.threshold`."""
        n_columns = int(np.floor(radius))
        return self.thresholds_[n_columns] if n_columns < len(self.thresholds_) else 1.0

    def radius(self, p_lower, runner_up_upper=None):
        """Number of columns that can change; see :meth:`Noise.radius`."""
        p = np.asarray(p_lower, dtype=np.float64)
        if runner_up_upper is None:
            withstood = p[..., np.newaxis] > self.thresholds_
        else:
            q = np.asarray(runner_up_upper, dtype=np.float64)
            withstood = np.stack(
                [_lowest(regions, p) > 1 - _lowest(regions, 1 - q) for regions in self._regions], -1
            )
        # Cumulative: what falls when r columns change falls when more do.
        return np.cumprod(withstood, axis=-1).sum(axis=-1) - 1.0

    def _worst_cases(self):
        """Probabilities needed when 0, 1, 2, ... columns change, and the regions behind them."""
        here, there = np.ones(1), np.ones(1)
        thresholds, regions = [0.5], [(here, there)]
        for k in np.sort(self.n_categories_[self.n_categories_ > 1])[::-1][:_MOST_COLUMNS]:
            other = self.sigma_ / k
            same = 1 - self.sigma_ + other
            # The noisy column equals that of the input, that of the changed input, or neither.
            mine, theirs = [same, other, (k - 2) * other], [other, same, (k - 2) * other]
            here, there = np.outer(here, mine).ravel(), np.outer(there, theirs).ravel()
            here, there = _merge(here, there)
            needed = float(np.interp(0.5, *(_summed(part) for part in (there, here))))
            if needed > 1 - 1e-9:
                break
            # Outward, beyond the rounding of the sums.
            thresholds.append(max(needed + 1e-12, thresholds[-1]))
            regions.append((here, there))
        return np.array(thresholds), regions


def _merge(here, there):
    """Put together regions of equal likelihood ratio; those with the highest first."""
    kept = here > 0
    here, there = here[kept], there[kept]
    ratio = np.round(np.log(here) - np.log(there), 9)
    values, which = np.unique(-ratio, return_inverse=True)
    return tuple(np.bincount(which, part, minlength=len(values)) for part in (here, there))


def _lowest(regions, p):
    """Least probability at the changed input of a class that has ``p`` at the input."""
    return np.interp(p, *(_summed(part) for part in regions))


def _summed(part):
    return np.concatenate([[0.0], np.cumsum(part)])


def _positions(columns, feature_names, n_features):
    """Indices of columns that are given by index or name."""
    names = {} if feature_names is None else {name: i for i, name in enumerate(feature_names)}
    positions = [names.get(c, c) if isinstance(c, str) else c for c in columns]
    wrong = [c for c in positions if isinstance(c, str) or not -n_features <= c < n_features]
    if wrong:
        raise ValueError(
            f"columns of FlipNoise contains {wrong[0]!r}, and X has no such column: it has "
            f"{n_features}, {'without names' if feature_names is None else 'named otherwise'}."
        )
    return np.asarray(positions, dtype=int) % n_features
