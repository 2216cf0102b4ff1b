"""Scorers for model selection."""

from numbers import Real

from sklearn.utils.metadata_routing import MetadataRequest

from ..attacks import resolve_attack
from ._scores import robust_accuracy_curve, robust_accuracy_score


class Scorer:
    """Scorer ``scorer(estimator, X, y, sample_weight=None)``; it supports metadata routing.

    Parameters
    ----------
    maker : str
        Name of the function that makes the scorer.

    score : callable
        Score of a fitted classifier: ``score(estimator, X, y, sample_weight=..., **parameters)``.

    names : list of str or None
        Keys of the scores, if ``score`` returns several.

    **parameters : dict
        Parameters of ``score``, which are also those of ``maker``.
    """

    def __init__(self, maker, score, names, **parameters):
        self.maker, self.score, self.names, self.parameters = maker, score, names, parameters

    def __call__(self, estimator, X, y, sample_weight=None):
        """Score a fitted classifier.

        Parameters
        ----------
        estimator : fitted classifier
            Classifier to score.

        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        Returns
        -------
        score : float or dict of float
        """
        score = self.score(estimator, X, y, sample_weight=sample_weight, **self.parameters)
        return score if self.names is None else dict(zip(self.names, score.tolist(), strict=True))

    def __repr__(self):
        given = ((k, v) for k, v in self.parameters.items() if v is not None)
        return f"{self.maker}({', '.join(f'{k}={v!r}' for k, v in given)})"

    def set_score_request(self, *, sample_weight=None):
        """Request ``sample_weight`` from metadata routing, which must be enabled.

        Parameters
        ----------
        sample_weight : bool, str or None, default=None
            As in scikit-learn; see its user guide on metadata routing.

        Returns
        -------
        self : object
        """
        self._metadata_request = MetadataRequest(owner=self)
        self._metadata_request.score.add_request(param="sample_weight", alias=sample_weight)
        return self

    def get_metadata_routing(self):
        """Return the requested metadata.

        Returns
        -------
        request : MetadataRequest
        """
        if not hasattr(self, "_metadata_request"):
            self.set_score_request()
        return self._metadata_request


def make_robust_scorer(attack=None, *, eps=None, norm=None, bounds=None, mask=None, random_state=0):
    """Make a scorer that measures accuracy under attack.

    The scorer attacks at its own ``eps``, so that classifiers which were trained for different eps
    are compared at the same eps.

    Parameters
    ----------
    attack : BaseAttack, default=None
        None means the strongest attack that the estimator allows; see
        :func:`robust_accuracy_score`.

    eps : float, list of float or array of shape (n_features,), default=None
        Radius, in units of X. A list makes the scorer return a dict with a key
        ``robust_accuracy_<eps>`` for each radius (0 gives the accuracy). An ndarray has one budget
        per feature. None means the ``eps`` of ``attack``.

    norm, bounds, mask : default=None
        Threat model. A value that is not None replaces the parameter of ``attack``.

    random_state : int, RandomState instance or None, default=0
        Seed of the attack, if its own ``random_state`` is None.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, sample_weight=None)``; higher is better. It can be pickled, and
        used as ``scoring``, also inside a dict of scorers. A scorer that returns a dict needs
        ``refit="robust_accuracy_..."`` in :class:`~sklearn.model_selection.GridSearchCV`.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.metrics import make_robust_scorer
    >>> X, y = load_wine(return_X_y=True)
    >>> pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    >>> search = GridSearchCV(
    ...     pipeline,
    ...     {"logisticregression__C": [0.001, 0.1, 10]},
    ...     scoring={"clean": "accuracy", "robust": make_robust_scorer(eps=0.5 * X.std(axis=0))},
    ...     refit="robust",
    ... )
    >>> search.fit(X, y).best_params_
    {'logisticregression__C': 0.1}
    """
    if isinstance(eps, list | tuple):
        eps = list(eps)
        if not eps or not all(isinstance(value, Real) for value in eps):
            raise ValueError(
                "eps must be a number, a list of numbers (for a dict of scores), or an ndarray "
                f"with one budget per feature; got {eps!r}."
            )
    score, names = robust_accuracy_score, None
    if isinstance(eps, list):
        score, names = robust_accuracy_curve, [f"robust_accuracy_{float(e):.15g}" for e in eps]
    resolve_attack(attack, eps=eps if names is None else 0)
    threat = {"eps": eps, "norm": norm, "bounds": bounds, "mask": mask}
    return Scorer(
        "make_robust_scorer", score, names, attack=attack, **threat, random_state=random_state
    )
