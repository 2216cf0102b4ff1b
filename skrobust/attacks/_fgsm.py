"""The fast gradient sign method, in every norm."""

from ..utils._sklearn import StrOptions
from .core._base import BaseAttack
from .core._losses import LOSSES
from .core._search import MarginSearch


class FGSM(BaseAttack):
    """Fast gradient sign method: one steepest step to the edge of the admissible set.

    The gradient is computed once, at the input, and the attack goes to the admissible point that
    would be best if the loss were linear. For linf that is ``x + eps sign(g)`` clipped to the box
    [1]_. For l2 and l1, too, box and mask are part of the optimisation rather than clipped to
    afterwards. On a linear binary model no attack is stronger.

    Parameters
    ----------
    {estimator}

    {eps}

    {norm}

    {bounds}

    {mask}

    loss : {"ce", "margin", "dlr"}, default="ce"
        Loss to climb; see :class:`PGD`.

    {batch_size}

    {verbose}

    random_state : int, RandomState instance or None, default=None
        Seed for models that are random themselves; the attack is not.

    Attributes
    ----------
    {estimator_}

    {n_features_in_}

    {feature_names_in_}

    See Also
    --------
    PGD : Many small steps: stronger on every model that is not linear.

    Notes
    -----
    Where the step does not help, the input itself is returned. FGSM is a quick check: a model that
    withstands it may fall to :class:`PGD`.

    References
    ----------
    .. [1] I. J. Goodfellow, J. Shlens and C. Szegedy, "Explaining and harnessing adversarial
       examples", ICLR 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.attacks import FGSM
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> X_adv = FGSM(eps=0.3 * X.std(axis=0)).perturb(clf, X, y)
    >>> print(f"{clf.score(X, y):.3f} {clf.score(X_adv, y):.3f}")
    1.000 0.764
    """

    _parameter_constraints: dict = {
        **BaseAttack._parameter_constraints,
        "loss": [StrOptions(set(LOSSES))],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=0.1,
        norm="linf",
        bounds=None,
        mask=None,
        loss="ce",
        batch_size="auto",
        verbose=0,
        random_state=None,
    ):
        super().__init__(estimator, eps, norm, bounds, mask, batch_size, verbose, random_state)
        self.loss = loss

    def _attack_batch(self, batch):
        search = MarginSearch(batch, LOSSES[self.loss])
        _, grad, _ = search.gradient(batch.feasible_set.x.clone())
        search.try_points(batch.feasible_set.maximize_linear(grad))
        return search.result()
