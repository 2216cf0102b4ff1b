"""RobustClassifier: a torch module trained under a defense."""

from numbers import Integral, Real

import torch

from ..defenses import BaseDefense, GaussianAugmentation, NoiseAugmentation
from ..threat import LP_NORMS
from ..utils._sklearn import HasMethods, Interval, StrOptions
from ._base import BaseNetClassifier
from ._build import NAMED
from ._callbacks import SCHEDULES
from ._net import OPTIMIZERS


class RobustClassifier(BaseNetClassifier):
    """Neural network classifier that is trained to be robust to perturbed inputs.

    A scikit-learn estimator around a PyTorch module. Training minimises the loss of a defense under
    the threat model given by ``eps``, ``norm``, ``bounds`` and ``mask``. All four are in the units
    of X, even if a ``preprocessor`` scales the inputs of the module.

    Parameters
    ----------
    module : {"mlp", "cnn"}, callable or torch.nn.Module, default="mlp"
        Network from inputs to logits, one for each class (or a single one for two classes):

        - ``"mlp"`` is :class:`~skrobust.nn.MLP`, ``"cnn"`` is :class:`~skrobust.nn.CNN`;
        - a module class, or a function that returns a module. Its parameters ``n_features``,
          ``input_shape`` and ``n_classes``, if it has them, are set from the data;
          ``module__<name>`` sets any parameter and takes precedence;
        - a module instance. A copy of it is trained.

    defense : BaseDefense, default=None
        Training objective; see :mod:`skrobust.defenses`. None means
        :class:`~skrobust.defenses.AdversarialTraining` with its defaults.

    eps : float or array-like of shape (n_features,), default=0.1
        Largest perturbation, or a budget for each feature, in units of X.

    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the perturbation.

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X. Each side is a number or an array of shape
        (n_features,). None means no box.

    mask : None, str or array-like, default=None
        Features that an attacker can change: booleans, indices or column names. None means all.

    preprocessor : transformer, default=None
        Transformer with a differentiable view (:func:`~skrobust.to_torch`), for example
        ``StandardScaler()``. A copy is fitted on the training data and becomes the first layer: the
        module trains on scaled inputs, while ``eps`` and ``bounds`` stay in units of X.

    input_shape : tuple of int, default=None
        Shape to which each sample is reshaped for the module, for example ``(1, 28, 28)`` for
        images that are stored as flat rows. None means no reshaping.

    optimizer : {"adam", "adamw", "sgd"} or torch.optim.Optimizer class, default="adam"
        Optimizer; ``optimizer__<name>`` sets its parameters.

    lr : float, default=0.003
        Largest learning rate of the schedule.

    lr_schedule : {"one-cycle", "cosine", "constant"}, default="one-cycle"
        Schedule of the learning rate, which is set before every batch. ``"one-cycle"``: linear
        increase to ``lr`` over the first 30 % of the training, then linear decrease to zero [1]_.
        ``"cosine"``: cosine decay from ``lr`` to zero. ``"constant"``: always ``lr``.

    eps_warmup : float, default=0.2
        Share of the training over which ``eps`` grows linearly from zero. Without a warm-up, a
        large ``eps`` can make the network predict one class for all inputs from the first epoch to
        the last. :meth:`partial_fit` always trains with the full ``eps``.

    max_epochs : int or "auto", default="auto"
        Passes over the training data. ``"auto"`` means the number that gives at least 2,000
        batches, limited to between 10 and 200.

    batch_size : int, default=64
        Largest number of samples in a training batch.

    class_weight : dict, "balanced" or None, default=None
        Weights of the classes by label; labels that are missing have weight 1. ``"balanced"``
        means weights inversely proportional to the class frequencies.

    weight_averaging : float, default=None
        Decay of an exponential moving average of the weights over batches, for example 0.99. The
        average replaces the weights after each epoch. It reduces the noise that a constant learning
        rate leaves; with the other schedules it makes little difference. None means no averaging.

    early_stopping : bool, default=False
        Whether to hold out part of the training data, measure clean and robust accuracy on it after
        each epoch (by 10 steps of PGD), stop when the robust accuracy no longer improves, and
        restore the best weights. Adversarial training often overfits much earlier than standard
        training.

    validation_fraction : float, default=0.1
        Share of the training data that ``early_stopping`` holds out, in each class.

    n_iter_no_change : int, default=10
        Epochs without improvement after which ``early_stopping`` stops.

    warm_start : bool, default=False
        Whether a second call of ``fit`` continues from the present weights.

    callbacks : list, default=None
        Callbacks of skorch, or pairs of a name and a callback. Copies are used. They can monitor
        the columns of ``history_``; there is no column ``valid_loss``.

    device : str or torch.device, default="auto"
        Device for training and prediction. ``"auto"`` means the GPU if there is one.

    verbose : int, default=0
        If positive, print one line per epoch.

    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the samples, the attacks and all other random
        numbers. The same integer gives bitwise equal results on one machine. The global random
        state is neither used nor changed.

    **skorch_params : dict
        Parameters that are passed on to skorch: ``module__...``, ``optimizer__...``,
        ``callbacks__...``, ``iterator_train`` and ``iterator_train__...``. They can be used in
        ``set_params`` and in parameter grids.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.

    net_ : skorch.NeuralNetClassifier
        Trained net.

    module_ : torch.nn.Module
        Trained module; its input is X after ``preprocessor_`` and ``input_shape``.

    history_ : skorch.history.History
        One row per epoch, with columns ``train_loss`` and ``dur``; with ``early_stopping`` also
        ``valid_acc`` and ``valid_robust_acc``.

    preprocessor_ : transformer or None
        Fitted copy of ``preprocessor``.

    sample_shape_ : tuple of int
        Shape of one sample of X.

    n_features_in_ : int
        Length of the second axis of X: the number of features, or of channels for images.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen during :meth:`fit`. Defined only if X has feature names that are all
        strings.

    See Also
    --------
    skrobust.metrics.robust_accuracy_score : Accuracy under attack.
    skrobust.defenses : Training objectives.

    Notes
    -----
    Training gives no guarantee: measure the robustness that it achieves by
    :func:`~skrobust.metrics.robust_accuracy_score`.

    Before training, equal samples are merged and all samples are sorted by a hash. The result
    therefore does not depend on the order of the samples, and a sample with weight 2 is equivalent
    to two copies of the sample.

    References
    ----------
    .. [1] L. N. Smith and N. Topin, "Super-convergence: very fast training of neural networks using
       large learning rates", 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust import RobustClassifier
    >>> from skrobust.metrics import robust_accuracy_score
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> eps = 0.2 * X_train.std(axis=0)
    >>> clf = RobustClassifier(
    ...     eps=eps, preprocessor=StandardScaler(), max_epochs=20, random_state=0
    ... ).fit(X_train, y_train)
    >>> clf.score(X_test, y_test) > 0.9
    True
    >>> robust_accuracy_score(clf, X_test, y_test, eps=eps) > 0.85
    True
    """

    _parameter_constraints: dict = {
        "module": [StrOptions(set(NAMED)), callable, HasMethods("forward")],
        "defense": [BaseDefense, None],
        "eps": [Interval(Real, 0, None, closed="left"), "array-like"],
        "norm": [StrOptions(set(LP_NORMS))],
        "bounds": [None, tuple, "array-like"],
        "mask": [None, "array-like", str],
        "preprocessor": [HasMethods(["fit", "transform"]), None],
        "input_shape": [None, tuple, list],
        "optimizer": [StrOptions(set(OPTIMIZERS)), callable],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions(set(SCHEDULES))],
        "eps_warmup": [Interval(Real, 0, 1, closed="both")],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "weight_averaging": [Interval(Real, 0, 1, closed="neither"), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "callbacks": [list, None],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        module="mlp",
        *,
        defense=None,
        eps=0.1,
        norm="linf",
        bounds=None,
        mask=None,
        preprocessor=None,
        input_shape=None,
        optimizer="adam",
        lr=3e-3,
        lr_schedule="one-cycle",
        eps_warmup=0.2,
        max_epochs="auto",
        batch_size=64,
        class_weight=None,
        weight_averaging=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        callbacks=None,
        device="auto",
        verbose=0,
        random_state=None,
        **skorch_params,
    ):
        self.module = module
        self.defense = defense
        self.eps = eps
        self.norm = norm
        self.bounds = bounds
        self.mask = mask
        self.preprocessor = preprocessor
        self.input_shape = input_shape
        self.optimizer = optimizer
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.eps_warmup = eps_warmup
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.weight_averaging = weight_averaging
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.device = device
        self.verbose = verbose
        self.random_state = random_state
        if skorch_params:
            self._skorch_params = skorch_params

    def __fit_under_noise__(self, noise):
        """Prepare this estimator, before ``fit``, for randomised smoothing with ``noise``.

        Without a ``defense``, it gets one that trains on noisy inputs. The parameter ``sigma`` of a
        defense is set to the standard deviation of normal noise.

        Parameters
        ----------
        noise : Noise
            Fitted noise distribution. Its ``normal_std`` is the standard deviation of the noise, a
            float or an array of shape (n_features,), or None if the noise is not normal.
        """
        is_normal = noise.normal_std is not None
        if self.defense is None:
            self.defense = GaussianAugmentation() if is_normal else NoiseAugmentation(noise)
        if is_normal and "sigma" in self.defense.get_params():
            self.set_params(defense__sigma=noise.normal_std)
