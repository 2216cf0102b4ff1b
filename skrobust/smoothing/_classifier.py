"""SmoothedClassifier: the majority vote of a classifier under noise, with certificates."""

from math import prod
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..attacks._target import Target
from ..utils._containers import FLOATS, column_names, is_dataframe
from ..utils._random import draw_seed
from ..utils._sklearn import HasMethods, Interval, StrOptions, fit_context
from ..utils._threat_parameters import per_feature
from ..utils._torch import is_fitted, outputs
from ..utils._weights import check_weights
from ._certificate import Certificate
from ._decide import CERTIFIED, bound_radius, decide_radius, enumerate_points, least_samples
from ._flips import FlipNoise
from ._gaussian import GaussianNoise
from ._laplace import LaplaceNoise
from ._noise import Noise
from ._splitting import SplittingNoise
from ._training import fit_on_noise
from ._uniform import UniformNoise
from ._view import SmoothedView
from ._votes import Votes

_NOISES = {
    "gaussian": GaussianNoise,
    "laplace": LaplaceNoise,
    "uniform": UniformNoise,
    "splitting": SplittingNoise,
    "flips": FlipNoise,
}

# 1 / p of the norms.
_INVERSE_ORDER = {"l1": 1.0, "l2": 0.5, "linf": 0.0}


class SmoothedClassifier(ClassifierMixin, BaseEstimator):
    """Majority vote of a classifier under noise, which can be certified.

    Whatever the classifier, a small perturbation of the input changes the distribution of the noisy
    inputs only a little, and with it the shares of the votes: where one class has a clear
    majority, no perturbation up to a radius changes the vote. The votes are sampled, and the
    certificates hold with probability ``1 - alpha``.

    Noise is added to the X handed in; with a pipeline inside that is before its first step.

    Parameters
    ----------
    estimator : classifier or torch.nn.Module, default=None
        The classifier whose votes are counted. A fitted one, or a module from inputs to logits, is
        used as it is; ``clone`` (and with it ``GridSearchCV``) would return an unfitted copy, which
        :class:`sklearn.frozen.FrozenEstimator` prevents. One that is not fitted is cloned and
        fitted under noise: a :class:`~skrobust.RobustClassifier` with fresh noise in every batch
        (``defense=None`` stands for noise alone, and a defense with a parameter ``sigma`` gets that
        of Gaussian noise), any other on ``n_augment`` noisy copies of every row. None means a
        :class:`~sklearn.linear_model.LogisticRegression`.

    sigma : float or array-like of shape (n_features,), default=0.25
        Standard deviation of the noise, in units of X; for ``noise="flips"`` the probability that a
        column is drawn anew. With one value for each feature, radii are lengths of perturbations
        divided by it.

    scale : {"std"}, default=None
        With ``"std"``, ``sigma`` and radii are in standard deviations of the features in the
        training data (1 where a feature is constant). None leaves the units of X.

    noise : str or Noise, default="gaussian"
        Distribution of the noise: ``"gaussian"`` (certifies in l2), ``"laplace"`` and ``"uniform"``
        (l1), ``"splitting"`` (l1, exact, for inputs on a grid), ``"flips"`` (l0, for categories),
        or an instance of a class of :mod:`skrobust.smoothing`, which may have parameters.

    norm : {"linf", "l2", "l1", "l0"}, default=None
        Norm of the radii. None means that of the noise. From another norm they are converted: a
        radius in l2 times ``n_features ** -0.5`` is one in linf.

    bound : {"two-class", "runner-up"}, default="two-class"
        What is known of the other classes: that they have what is left together, or a bound for
        each. The second costs half of ``alpha``, and gains where there are many classes and no
        large majority.

    alpha : float, default=0.001
        Probability that the certificate of a point is wrong, at most: for each point, and each call
        of :meth:`certify`. For a statement about all of n points at a time, set ``alpha`` to the
        probability that any of them is wrong, divided by n. Without, a share of up to ``alpha`` of
        the points is expected to be wrong.

    n_samples : int, default=10000
        Votes for a certificate; where one radius is asked for, the most of them.

    n_selection : int, default=100
        Votes that choose the class, also in :meth:`predict`. For a certificate they are not used
        again, and so cost nothing of ``alpha``.

    n_augment : int, default=10
        Noisy copies of every training row.

    batch_size : int or "auto", default="auto"
        Noisy inputs that go through the classifier at a time. Apart from rounding, nothing depends
        on it.

    n_jobs : int, default=None
        Threads for a classifier that has no view (:func:`~skrobust.to_torch`). None means 1 unless
        in a ``joblib.parallel_config`` context.

    verbose : int, default=0
        With 1, a progress bar.

    random_state : int, RandomState instance or None, default=None
        Seed of the noise, drawn once by :meth:`fit`. The noise of an input depends on it and on
        the values of the input alone, so that the fitted classifier is a function like any other.
        The classifier inside has a ``random_state`` of its own.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.

    estimator_ : classifier or torch.nn.Module
        The fitted classifier inside.

    noise_ : Noise
        The fitted distribution.

    seed_ : int
        Seed of the noise.

    sample_shape_ : tuple of int
        Shape of one sample of X.

    n_features_in_ : int
        Length of X along its second axis.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen during :meth:`fit`, where X has names that are all strings.

    See Also
    --------
    skrobust.defenses.GaussianAugmentation : Training under noise alone, the default.
    skrobust.defenses.Consistency : Training for larger certificates.

    Notes
    -----
    ``certify(X)`` is Algorithm 1 of [1]_: some votes choose a class, others give the bound of
    Clopper and Pearson for its probability, and the noise makes a radius of that.
    ``certify(X, radius=...)`` asks for no more votes than needed to decide that one radius, by
    betting on it [2]_: it stops, at any time, when certified, or when it is unlikely that up to
    ``n_samples`` votes would be enough.

    A certificate is about the vote of infinitely many noisy points, and in exact arithmetic.
    :meth:`predict` takes ``n_selection`` of them and always answers, also where the vote is close:
    there, an attack that is judged by it may seem to beat a certificate. That one is wrong with
    probability ``alpha`` at most holds for inputs that were chosen without knowledge of the seed.

    To attacks by gradients it shows the mean of the probabilities under 16 fixed noise vectors
    (:func:`~skrobust.to_torch`), where the classifier inside has a view and the noise is added.

    References
    ----------
    .. [1] J. Cohen, E. Rosenfeld and J. Z. Kolter, "Certified adversarial robustness via randomized
       smoothing", ICML 2019.
    .. [2] I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting",
       JRSS B 86, 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import HistGradientBoostingClassifier
    >>> from sklearn.model_selection import train_test_split
    >>> from skrobust import SmoothedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> clf = SmoothedClassifier(
    ...     HistGradientBoostingClassifier(max_iter=20), sigma=0.5, scale="std", random_state=0
    ... ).fit(X_train, y_train)
    >>> clf.score(X_test, y_test) > 0.9
    True
    >>> certificate = clf.certify(X_test, radius=0.25)
    >>> float((~certificate.abstained & (certificate.label == y_test)).mean()) > 0.8
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), HasMethods("forward"), None],
        "sigma": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "scale": [StrOptions({"std"}), None],
        "noise": [StrOptions(set(_NOISES)), Noise],
        "norm": [StrOptions({"linf", "l2", "l1", "l0"}), None],
        "bound": [StrOptions({"two-class", "runner-up"})],
        "alpha": [Interval(Real, 0, 0.5, closed="neither")],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_selection": [Interval(Integral, 1, None, closed="left")],
        "n_augment": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        sigma=0.25,
        scale=None,
        noise="gaussian",
        norm=None,
        bound="two-class",
        alpha=0.001,
        n_samples=10_000,
        n_selection=100,
        n_augment=10,
        batch_size="auto",
        n_jobs=None,
        verbose=0,
        random_state=None,
    ):
        self.estimator = estimator
        self.sigma = sigma
        self.scale = scale
        self.noise = noise
        self.norm = norm
        self.bound = bound
        self.alpha = alpha
        self.n_samples = n_samples
        self.n_selection = n_selection
        self.n_augment = n_augment
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the classifier inside under noise, unless it is fitted already.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Training inputs.

        y : array-like of shape (n_samples,), default=None
            Labels; needed where ``estimator`` is not fitted.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, for an ``estimator`` that takes them.

        Returns
        -------
        self : object
        """
        estimator = LogisticRegression() if self.estimator is None else self.estimator
        fitted = is_fitted(estimator)
        frame = X
        if fitted and y is None:
            X = validate_data(self, X, dtype=FLOATS, allow_nd=True)
        else:
            X, y = validate_data(self, X, y, dtype=FLOATS, allow_nd=True)
            check_classification_targets(y)
        self.sample_shape_ = X.shape[1:]
        self.seed_ = draw_seed(self.random_state)
        if sample_weight is not None:
            sample_weight = check_weights(sample_weight, X)
        self.noise_ = self._fit_noise(X, sample_weight, column_names(frame))
        self._factor()
        self._check_samples(None, self.alpha)
        if fitted:
            self.estimator_ = estimator
        else:
            self.estimator_ = fit_on_noise(
                estimator,
                frame if is_dataframe(frame) else X,
                X,
                y,
                sample_weight,
                self.noise_,
                n_augment=self.n_augment,
                seed=self.seed_,
            )
        target = Target(self.estimator_)
        target.check_X(frame, X)
        if target.is_module:
            target.classes = np.arange(outputs(target.view, X[:1]).shape[1])
        self.classes_ = target.classes
        if fitted and y is not None:
            target.encode(y, X)
        self._votes(frame, X[:64], target).check_repeatable()
        return self

    def predict(self, X):
        """Predict labels: the class with most votes.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            A label for every input, also where :meth:`certify` abstains.
        """
        top = self._count(X).argmax(axis=1)
        return self.classes_[top]

    def predict_proba(self, X):
        """Shares of the votes.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``; multiples of ``1 / n_selection``.
        """
        counts = self._count(X)
        return counts / counts.sum(axis=1, keepdims=True)

    def certify(self, X, radius=None):
        """Certify predictions.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        radius : float, default=None
            The one radius to decide about, which mostly takes a hundredth of the votes. None means
            the largest that ``n_samples`` votes can certify.

        Returns
        -------
        certificate : Certificate
            For each input: with probability ``1 - alpha`` no perturbation shorter than
            ``certificate.radius`` makes the smoothed classifier leave ``certificate.label``.

        Raises
        ------
        ValueError
            ``n_samples`` votes can never certify the radius at this ``alpha``; the message says how
            many could.
        """
        check_is_fitted(self)
        self._validate_params()
        factor = self._factor()
        if radius is not None:
            if not (isinstance(radius, Real) and np.isfinite(radius) and float(radius) >= 0):
                raise ValueError(
                    "radius must be None or a number that is not negative, in the norm of the "
                    f"certificate; got {radius!r}."
                )
            radius = float(radius) / factor
        runner_up = self.bound == "runner-up" and len(self.classes_) > 2
        self._check_samples(radius, self.alpha / 2 if runner_up else self.alpha)
        array = self._check_inputs(X)
        settings = {
            "n_selection": self.n_selection,
            "n_samples": self.n_samples,
            "alpha": self.alpha,
            "runner_up": runner_up,
        }
        total = None if radius is not None else len(array) * self._n_votes(certificate=True)
        with self._votes(X, array).prepared(total) as votes:
            if self.noise_.n_points_ is not None:
                found = enumerate_points(votes, self.noise_, radius)
                test = "exact"
            elif radius is None:
                found = bound_radius(votes, self.noise_, **settings)
                test = "Clopper-Pearson"
            else:
                found = decide_radius(votes, self.noise_, radius, **settings)
                test = "confidence sequence" if runner_up else "betting"
        top, reached, p_lower, n_used, reason = found
        return Certificate(
            label=self.classes_[top],
            radius=reached * factor,
            abstained=reason != CERTIFIED,
            p_lower=p_lower,
            n_samples=n_used,
            reason=reason,
            norm=self.norm or self.noise_.norm,
            alpha=0.0 if test == "exact" else self.alpha,
            method=f"{type(self.noise_).__name__}, {test}, {self.bound}",
            unit=self._unit(),
        )

    def __to_torch__(self):
        """Differentiable view: the mean probabilities under a few fixed noise vectors."""
        check_is_fitted(self)
        return SmoothedView(self.estimator_, self.noise_, self.sample_shape_, self.seed_)

    def _fit_noise(self, X, sample_weight, feature_names):
        """The distribution, fitted: level and factor of each feature."""
        noise = _NOISES[self.noise]() if isinstance(self.noise, str) else clone(self.noise)
        noise._validate_params()
        sigma, scale = self.sigma, None
        if np.ndim(sigma):
            scale = per_feature(np.asarray(sigma, dtype=np.float64), self.sample_shape_, "sigma")
            sigma = 1.0
            if not (np.isfinite(scale).all() and (scale > 0).all()):
                raise ValueError(
                    "sigma of SmoothedClassifier must be positive for all features; got "
                    f"{scale.min():g}. Noise that leaves a feature alone certifies nothing."
                )
        if self.scale == "std":
            std = _standard_deviations(X, sample_weight)
            scale = std if scale is None else scale * std
        seen = X if sample_weight is None else X[sample_weight > 0]
        return noise.fit(seen, sigma, scale, feature_names=feature_names, seed=self.seed_)

    def _factor(self):
        """What radii are multiplied by to be in the norm that was asked for."""
        own, wanted = self.noise_.norm, self.norm
        if wanted in (None, own):
            return 1.0
        if "l0" in (own, wanted):
            raise ValueError(
                f"{type(self.noise_).__name__} certifies in {own}, which says nothing about "
                f"norm={wanted!r}. Use norm=None, or another noise: flips for l0."
            )
        n_features = prod(self.sample_shape_)
        # The norm that is asked for may be smaller than that of the noise, by at most this.
        return n_features ** min(0.0, _INVERSE_ORDER[wanted] - _INVERSE_ORDER[own])

    def _check_samples(self, radius, alpha):
        """Raise a ValueError where no votes whatever would certify anything."""
        if self.noise_.n_points_ is not None:
            return
        least = least_samples(self.noise_, radius, alpha)
        if least is None:
            raise ValueError(
                f"radius={radius * self._factor():g} is more than {type(self.noise_).__name__} "
                f"with sigma={self.noise_.sigma_:g} can certify, however many votes there are. "
                "Take a larger sigma."
            )
        if self.n_samples < least:
            at = "anything" if radius is None else f"radius={radius * self._factor():g}"
            raise ValueError(
                f"n_samples={self.n_samples} of SmoothedClassifier cannot certify {at} at "
                f"alpha={self.alpha:g}, even if all votes agree. Set n_samples to {least} or more, "
                "or take a larger alpha."
            )

    def _n_votes(self, certificate=False):
        if self.noise_.n_points_ is not None:
            return self.noise_.n_points_
        return self.n_selection + (self.n_samples if certificate else 0)

    def _count(self, X):
        check_is_fitted(self)
        array, n = self._check_inputs(X), self._n_votes()
        with self._votes(X, array).prepared(len(array) * n) as votes:
            return votes.count(np.arange(len(array)), 0, n)

    def _votes(self, X, array, target=None):
        if target is None:
            target = Target(self.estimator_)
            target.classes = self.classes_
        # What was not fitted on a frame gets none.
        named = is_dataframe(X) and hasattr(self.estimator_, "feature_names_in_")
        return Votes(
            target,
            X if named else array,
            array,
            self.noise_,
            self.seed_,
            batch_size=self.batch_size,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    def _check_inputs(self, X):
        array = validate_data(self, X, reset=False, dtype=FLOATS, allow_nd=True)
        if array.shape[1:] != self.sample_shape_:
            raise ValueError(
                f"X has samples of shape {array.shape[1:]}, but SmoothedClassifier was fitted on "
                f"samples of shape {self.sample_shape_}."
            )
        self.noise_.check(array)
        return array

    def _unit(self):
        if self.noise_.norm == "l0":
            return "columns"
        if np.ndim(self.sigma):
            return "sigma of each feature" + (" times its std" if self.scale else "")
        return "standard deviations of the features" if self.scale else "units of X"

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.estimator is None or not is_fitted(self.estimator)
        return tags


def _standard_deviations(X, sample_weight):
    """Standard deviation of each feature; 1 for what is constant but for rounding."""
    mean = np.average(X, axis=0, weights=sample_weight)
    std = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=sample_weight))
    std[std <= 10 * np.finfo(X.dtype).eps * np.abs(mean)] = 1.0
    return std
