"""Parameter documentation that the attacks share: written once, and substituted in docstrings.

A line ``{name}`` in the docstring of an attack stands for the text of that name below. The base
class substitutes it when the attack is defined.
"""

_TEXTS = {
    "estimator": """\
estimator : estimator object or torch.nn.Module, default=None
    Classifier to attack when used as a transformer. A fitted one is used as it is; ``clone``
    (and with it ``GridSearchCV``) would return an unfitted copy, which
    :class:`sklearn.frozen.FrozenEstimator` prevents. One that is not fitted is cloned and
    fitted by :meth:`fit`. None means a :class:`~sklearn.linear_model.LogisticRegression`, as a
    substitute whose adversarial examples may transfer. :meth:`perturb` does not use it.
""",
    "eps": """\
eps : float or array-like of shape (n_features,), default=0.1
    Radius of the ball, or budget of each feature, in units of X.
    See :class:`~skrobust.threat.ThreatModel`.
""",
    "eps_or_none": """\
eps : None, float or array-like of shape (n_features,), default=None
    Radius up to which a point counts as a success, in units of X; None means any. With one
    value per feature, the norm of the perturbation divided by it is minimised, and 1 is the
    radius.
""",
    "bounds": """\
bounds : None or pair (low, high), default=None
    Box of valid inputs, in units of X; each side a number or an array of shape (n_features,).
""",
    "mask": """\
mask : None, str or array-like, default=None
    Features that the attack can change: booleans, indices or column names. None means all.
""",
    "batch_size": """\
batch_size : int or "auto", default="auto"
    Samples per batch; it bounds the memory. Apart from rounding, results do not depend on it.
""",
    "verbose": """\
verbose : int, default=0
    With 1, a progress bar over the batches.
""",
    "random_state": """\
random_state : int, RandomState instance or None, default=None
    Seed of all random draws. The draws of a sample depend on the seed and on its values only,
    not on the other samples.
""",
    "random_state_unused": """\
random_state : int, RandomState instance or None, default=None
    Seed for models that are random themselves; the attack is not.
""",
    "attributes": """\
estimator_ : estimator
    The fitted classifier under attack (after :meth:`fit`).

n_features_in_ : int
    Number of features seen during :meth:`fit`.

feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Names of features seen during :meth:`fit`, where X has names that are all strings.
""",
}


def substitute_shared_docs(doc):
    """Replace each line ``{name}`` of a docstring by the shared text of that name.

    Parameters
    ----------
    doc : None or str

    Returns
    -------
    doc : None or str
    """
    if doc is None:
        return None
    return "\n".join(_substitute(line) for line in doc.split("\n"))


def _substitute(line):
    name = line.strip().removeprefix("{").removesuffix("}")
    if name not in _TEXTS or line.strip() != f"{{{name}}}":
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return "\n".join(indent + text if text else "" for text in _TEXTS[name].rstrip().split("\n"))
