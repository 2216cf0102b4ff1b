"""SmoothedClassifier: the majority vote of a classifier under noise, with certificates."""

from math import prod
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..adapters import FittedClassifier
from ..threat import norm_factor
from ..utils._containers import FLOATS, column_names, is_dataframe
from ..utils._random import draw_seed
from ..utils._sklearn import HasMethods, Interval, StrOptions, fit_context
from ..utils._torch import is_fitted
from ..utils._weights import check_weights
from ._certificate import SmoothedCertificate
from ._certification import CERTIFIED, Settings, certify_votes, check_n_samples, check_radius
from ._noise import Noise
from ._noise_parameters import NOISES, describe_unit, fit_noise
from ._training import fit_under_noise
from ._view import SmoothedView
from ._vote_counter import VoteCounter


class SmoothedClassifier(ClassifierMixin, BaseEstimator):
    """Majority vote of a classifier under random noise, with certified radii.

    The inner classifier votes on noisy copies of an input. A small perturbation of the input
    changes the distribution of the noisy copies only slightly, and therefore also the shares of the
    votes. If one class has a clear majority, no perturbation up to a certain radius can change the
    vote. This is true for every inner classifier. The votes are sampled, and a certificate holds
    with probability ``1 - alpha``.

    Noise is added to X as it is passed in: if the inner classifier is a pipeline, before its first
    step.

    Parameters
    ----------
    estimator : classifier or torch.nn.Module, default=None
        Inner classifier, whose votes are counted. None means a
        :class:`~sklearn.linear_model.LogisticRegression`.

        A fitted classifier, or a module from inputs to logits, is used as it is. ``clone`` (and
        therefore ``GridSearchCV``) makes an unfitted copy of a classifier;
        :class:`sklearn.frozen.FrozenEstimator` prevents this.

        An unfitted classifier is cloned and fitted under noise; see Notes.

    sigma : float or array-like of shape (n_features,), default=0.25
        Standard deviation of the noise, in units of X. For ``noise="flips"`` the probability that
        a column is redrawn. With one value per feature, radii are norms of perturbations divided
        by ``sigma``.

    scale : {"std"}, default=None
        With ``"std"``, ``sigma`` and radii are in standard deviations of the features in the
        training data (1 for a constant feature). None means units of X.

    noise : str or Noise, default="gaussian"
        Distribution of the noise: ``"gaussian"`` (certifies in l2), ``"laplace"`` and ``"uniform"``
        (l1), ``"splitting"`` (l1, exact, for inputs on a grid), ``"flips"`` (l0, for categories),
        or an instance of a class of :mod:`skrobust.smoothing`, which can have parameters.

    norm : {"linf", "l2", "l1", "l0"}, default=None
        Norm of the radii. None means the norm of the noise. For another norm the radii are
        converted: an l2 radius times ``n_features ** -0.5`` is an linf radius.

    bound : {"two-class", "runner-up"}, default="two-class"
        Bound on the probability of the other classes. With ``"two-class"`` it is one minus the
        lower bound of the top class. With ``"runner-up"`` each class gets its own upper bound, at
        the cost of half of ``alpha``. Radii are then larger for many classes without a large
        majority.

    alpha : float, default=0.001
        Largest probability that a certificate is wrong, for each sample and each call of
        :meth:`certify`. Without a correction, expect up to a share ``alpha`` of the certificates of
        a data set to be wrong. For a statement about n samples at the same time, set ``alpha`` to
        the probability that any of their certificates is wrong, divided by n.

    n_samples : int, default=10000
        Number of votes for a certificate. If one radius is requested, the largest number.

    n_selection : int, default=100
        Number of votes that select the top class, also in :meth:`predict`. A certificate does not
        use them again, so that they cost no part of ``alpha``.

    n_augment : int, default=10
        Number of noisy copies of every training row.

    batch_size : int or "auto", default="auto"
        Number of noisy inputs in one pass. Results do not depend on it, apart from rounding.

    n_jobs : int, default=None
        Number of threads for a classifier without a view (:func:`~skrobust.to_torch`). None means
        1 unless in a ``joblib.parallel_config`` context.

    verbose : int, default=0
        Verbosity. With 1, shows a progress bar.

    random_state : int, RandomState instance or None, default=None
        Seed of the noise, drawn once by :meth:`fit`. The noise of an input is a function of this
        seed and of the values of the input, so that predictions of a fitted classifier are
        deterministic. The inner classifier has its own ``random_state``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.

    estimator_ : classifier or torch.nn.Module
        Fitted inner classifier.

    noise_ : Noise
        Fitted distribution.

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
    ``certify(X)`` is Algorithm 1 of [1]_. Some votes select the top class. Other votes give the
    lower bound of Clopper and Pearson on its probability, and the distribution of the noise turns
    this bound into a radius. ``certify(X, radius=...)`` tests this radius with as few votes as
    possible, by a sequential test [2]_: it stops as soon as the radius is certified, or unlikely to
    be certified by ``n_samples`` votes.

    A certificate is about the vote of infinitely many noisy points, in exact arithmetic.
    :meth:`predict` counts ``n_selection`` votes and never abstains. If the vote is close, an attack
    on :meth:`predict` can therefore seem to break a certificate. The probability ``alpha`` holds
    for inputs that were chosen without knowledge of the seed.

    For gradient-based attacks, the differentiable view (:func:`~skrobust.to_torch`) returns the
    mean probabilities under 16 fixed noise vectors. It exists if the inner classifier has a view
    and the noise is additive.

    **Training under noise.** An estimator that trains under noise by itself has a method
    ``__fit_under_noise__(self, noise)``. It is called on the unfitted clone, with the fitted
    :class:`~skrobust.smoothing.Noise`. It prepares the estimator and returns None. The clone is
    then fitted on the clean X. An estimator without this method is fitted on ``n_augment`` noisy
    copies of every row. A :class:`~skrobust.RobustClassifier` prepares its defense:
    ``defense=None`` becomes training under noise alone, and a defense with a parameter ``sigma``
    gets the standard deviation of Gaussian noise.

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
        "noise": [StrOptions(set(NOISES)), Noise],
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
        """Fit the noise, and the inner classifier under noise unless it is fitted.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Training inputs.

        y : array-like of shape (n_samples,), default=None
            Labels. Required if ``estimator`` is not fitted.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, if ``estimator`` takes them.

        Returns
        -------
        self : object
            The fitted object itself.
        """
        estimator = LogisticRegression() if self.estimator is None else self.estimator
        fitted = is_fitted(estimator)
        array, y, weight = self._check_training_data(X, y, sample_weight, needs_y=not fitted)
        self.seed_ = draw_seed(self.random_state)
        self.noise_ = fit_noise(
            self.noise,
            self.sigma,
            self.scale,
            array,
            weight,
            feature_names=column_names(X),
            seed=self.seed_,
        )
        self._check_norm()
        check_n_samples(self.noise_, self._settings(n_classes=2))
        if not fitted:
            options = {"n_augment": self.n_augment, "seed": self.seed_}
            inputs = X if is_dataframe(X) else array
            estimator = fit_under_noise(estimator, inputs, array, y, weight, self.noise_, **options)
        self.estimator_ = estimator
        self._check_estimator(X, array, y if fitted else None)
        return self

    def predict(self, X):
        """Predict the class with the most votes.

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
        """Return the shares of the votes.

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
            Radius to test, in the norm and the unit of the certificate. A test usually takes about
            1 % of the votes. None means the largest radius that ``n_samples`` votes can certify.

        Returns
        -------
        certificate : SmoothedCertificate
            For each input, with probability ``1 - alpha``: no perturbation with a norm below
            ``certificate.radius`` changes the prediction from ``certificate.label``.

        Raises
        ------
        ValueError
            ``n_samples`` votes cannot certify the radius at this ``alpha``. The message names the
            number that is needed.
        """
        check_is_fitted(self)
        self._validate_params()
        factor = self._check_norm()
        if radius is not None:
            radius = check_radius(radius) / factor
        settings = self._settings(len(self.classes_))
        check_n_samples(self.noise_, settings, radius, factor)
        array = self._check_inputs(X)
        n_votes = None
        if radius is None:
            n_votes = len(array) * (self.noise_.n_points_ or self.n_selection + self.n_samples)
        with self._make_vote_counter(X, array).prepared(n_votes) as vote_counter:
            outcome, test = certify_votes(vote_counter, self.noise_, radius, settings)
        return self._make_certificate(outcome, test, factor)

    def __to_torch__(self):
        """Return the differentiable view: mean probabilities under fixed noise vectors."""
        check_is_fitted(self)
        return SmoothedView(self.estimator_, self.noise_, self.sample_shape_, self.seed_)

    def _check_training_data(self, X, y, sample_weight, *, needs_y):
        if y is None and not needs_y:
            array = validate_data(self, X, dtype=FLOATS, allow_nd=True)
        else:
            array, y = validate_data(self, X, y, dtype=FLOATS, allow_nd=True)
            check_classification_targets(y)
        self.sample_shape_ = array.shape[1:]
        if sample_weight is not None:
            sample_weight = check_weights(sample_weight, array)
        return array, y, sample_weight

    def _settings(self, n_classes):
        runner_up = self.bound == "runner-up" and n_classes > 2
        return Settings(self.n_selection, self.n_samples, self.alpha, runner_up)

    def _check_norm(self):
        """Return the factor that converts radii of the noise to the requested norm."""
        own, wanted = self.noise_.norm, self.norm or self.noise_.norm
        factor = norm_factor(own, wanted, prod(self.sample_shape_))
        if factor is None:
            raise ValueError(
                f"{type(self.noise_).__name__} certifies in {own}, which says nothing about "
                f"norm={wanted!r} of SmoothedClassifier. Set norm=None, or use another noise: "
                "'flips' certifies in l0, 'gaussian' in l2, 'laplace' and 'uniform' in l1."
            )
        return factor

    def _check_estimator(self, X, array, y):
        """Read the labels of the inner classifier, and check its inputs and its predictions."""
        classifier = FittedClassifier(self.estimator_)
        classifier.check_inputs(X, array)
        self.classes_ = classifier.classes
        if y is not None:
            classifier.encode(y)
        self._make_vote_counter(X, array[:64], classifier).check_deterministic()

    def _check_inputs(self, X):
        array = validate_data(self, X, reset=False, dtype=FLOATS, allow_nd=True)
        if array.shape[1:] != self.sample_shape_:
            raise ValueError(
                f"X has samples of shape {array.shape[1:]}, but SmoothedClassifier was fitted on "
                f"samples of shape {self.sample_shape_}."
            )
        self.noise_.check(array)
        return array

    def _count(self, X):
        """Return the votes for each class: the first ones, or all if the noise is finite."""
        check_is_fitted(self)
        array, n = self._check_inputs(X), self.noise_.n_points_ or self.n_selection
        with self._make_vote_counter(X, array).prepared(len(array) * n) as vote_counter:
            return vote_counter.count(np.arange(len(array)), 0, n)

    def _make_vote_counter(self, X, array, classifier=None):
        if classifier is None:
            classifier = FittedClassifier(self.estimator_)
            classifier.classes = self.classes_
        # A classifier that was fitted on arrays gets arrays, also if X is a data frame.
        takes_frames = is_dataframe(X) and hasattr(self.estimator_, "feature_names_in_")
        return VoteCounter(
            classifier,
            X if takes_frames else array,
            array,
            self.noise_,
            self.seed_,
            batch_size=self.batch_size,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    def _make_certificate(self, outcome, test, factor):
        return SmoothedCertificate(
            label=self.classes_[outcome.top],
            radius=outcome.radius * factor,
            abstained=outcome.reason != CERTIFIED,
            reason=outcome.reason,
            norm=self.norm or self.noise_.norm,
            unit=describe_unit(self.noise_, self.sigma, self.scale),
            method=f"{type(self.noise_).__name__}, {test}, {self.bound}",
            p_lower=outcome.p_lower,
            n_samples=outcome.n_samples,
            alpha=self.alpha if self.noise_.n_points_ is None else 0.0,
        )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.estimator is None or not is_fitted(self.estimator)
        return tags
