"""RobustClassifier: a torch module trained under a defense."""

from copy import deepcopy
from math import prod
from numbers import Integral, Real

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
    validate_data,
)
from torch import nn

from ..defenses import (
    AdversarialTraining,
    BaseDefense,
    GaussianAugmentation,
    NoiseAugmentation,
)
from ..differentiable._modules import Chain, Reshape
from ..differentiable._nets import Net
from ..differentiable._registry import transform_to_torch
from ..differentiable._training_format import training_format
from ..threat import LP_NORMS, ThreatModel
from ..utils._containers import FLOATS
from ..utils._passes import fast_passes
from ..utils._random import draw_seed, isolated_rng, make_generator
from ..utils._sklearn import HasMethods, Interval, StrOptions, fit_context
from ..utils._torch import input_options, outputs, resolve_device
from ..utils._weights import check_weights
from ._build import NAMED, build_module, check_output
from ._callbacks import SCHEDULES, BatchSchedule, RobustValidation, WeightAveraging
from ._data import hold_out_samples, merge_samples
from ._net import DefendedNet, TensorBatches, TensorData, growing_threats
from ._precision import precise
from ._validation import evaluate_robustness

# With max_epochs="auto", training is at least this many steps of the optimizer, within limits.
_AUTO_STEPS, _AUTO_EPOCHS = 2000, (10, 200)

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}

# What goes through to skorch besides the parameters that are written out.
_SKORCH_NAMES = ("iterator_train",)
_SKORCH_PREFIXES = ("module__", "optimizer__", "callbacks__", "iterator_train__")


def _is_skorch_param(name):
    return name in _SKORCH_NAMES or name.startswith(_SKORCH_PREFIXES)


class RobustClassifier(ClassifierMixin, BaseEstimator):
    """Classifier that trains a torch module to withstand perturbed inputs.

    A scikit-learn estimator around a PyTorch module: it scales inputs where told to, trains under a
    defense against the threat model given by ``eps``, ``norm``, ``bounds`` and ``mask``, and
    predicts. Everything about the threat model is in the units of the X that is handed in.

    Parameters
    ----------
    module : {"mlp", "cnn"}, callable or torch.nn.Module, default="mlp"
        Network from inputs to logits, one for each class (or a single one for two classes):

        - ``"mlp"`` is :class:`~skrobust.nn.MLP`, ``"cnn"`` is :class:`~skrobust.nn.CNN`;
        - a module class, or a function that returns a module. Those of its parameters that are
          called ``n_features``, ``input_shape`` and ``n_classes`` are filled in from the data, and
          ``module__<name>`` sets any;
        - a module, of which a copy is trained.

    defense : BaseDefense, default=None
        Training objective; see :mod:`skrobust.defenses`. None means
        :class:`~skrobust.defenses.AdversarialTraining` with its defaults.

    eps : float or array-like of shape (n_features,), default=0.1
        Radius of the perturbations to withstand, or budget of each feature, in units of X.

    norm : {"linf", "l2", "l1"}, default="linf"
        Norm in which perturbations are measured.

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X; each side a number or an array of shape (n_features,).

    mask : None, str or array-like, default=None
        Features that an attacker can change: booleans, indices or column names. None means all.

    preprocessor : transformer, default=None
        A transformer with a differentiable view (:func:`~skrobust.to_torch`), for example
        ``StandardScaler()``. A copy is fitted on the training data and becomes the first layer, so
        that ``eps`` and ``bounds`` stay in raw units while the module trains on scaled inputs.

    input_shape : tuple of int, default=None
        Shape in which the module gets a sample, for example ``(1, 28, 28)`` for images that come
        as flat rows. None leaves samples as they are.

    optimizer : {"adam", "adamw", "sgd"} or torch.optim.Optimizer class, default="adam"
        Optimizer; ``optimizer__<name>`` sets its parameters.

    lr : float, default=0.003
        Learning rate, the largest of the schedule.

    lr_schedule : {"one-cycle", "cosine", "constant"}, default="one-cycle"
        Learning rate over the training, changed with every batch: up for three tenths and down to
        zero [1]_; from ``lr`` down to zero along half a cosine; or ``lr`` throughout.

    eps_warmup : float, default=0.2
        Share of the training over which ``eps`` grows linearly from zero. A large ``eps`` from the
        first batch on can leave a network with nothing to learn from: it then predicts one class
        for ever. :meth:`partial_fit` trains at the full ``eps``.

    max_epochs : int or "auto", default="auto"
        Passes over the training data. ``"auto"`` makes them enough for 2,000 batches, but no less
        than 10 and no more than 200.

    batch_size : int, default=64
        Largest number of samples in a training batch.

    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, by label; ``"balanced"`` makes them inversely proportional to the
        frequencies.

    weight_averaging : float, default=None
        Decay of an exponential moving average of the weights over batches, for example 0.99, which
        then replaces them after each epoch. It smooths what a constant learning rate leaves noisy;
        under the other schedules there is little left to gain. None means no averaging.

    early_stopping : bool, default=False
        Whether to hold out part of the training data, measure clean and robust accuracy on it
        (10 steps of PGD) after each epoch, stop when the robust accuracy no longer improves, and
        keep the best weights. Adversarial training can overfit long before standard training.

    validation_fraction : float, default=0.1
        Share of the training data that ``early_stopping`` holds out, stratified.

    n_iter_no_change : int, default=10
        Epochs without improvement after which ``early_stopping`` stops.

    warm_start : bool, default=False
        Whether ``fit`` goes on from the present weights.

    callbacks : list, default=None
        Callbacks of skorch, or pairs of a name and a callback; copies are used. What they can
        monitor is in ``history_``: there is no ``valid_loss``.

    device : str or torch.device, default="auto"
        Where to train and predict; ``"auto"`` is the GPU if there is one.

    verbose : int, default=0
        With 1, a line for each epoch.

    random_state : int, RandomState instance or None, default=None
        Seed of initialisation, order, and attacks. The same integer gives the same bits on one
        machine; global random state is neither used nor changed.

    **skorch_params : dict
        ``module__...``, ``optimizer__...``, ``callbacks__...``, ``iterator_train`` and
        ``iterator_train__...``, as in skorch. They are parameters like all others for
        ``set_params`` and in grids.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.

    net_ : skorch.NeuralNetClassifier
        The net that was trained.

    module_ : torch.nn.Module
        Its module, which takes what comes after ``preprocessor_`` and ``input_shape``.

    history_ : skorch.history.History
        A row for each epoch: ``train_loss``, ``dur``; with ``early_stopping`` also ``valid_acc``
        and ``valid_robust_acc``.

    preprocessor_ : transformer or None
        Fitted copy of ``preprocessor``.

    sample_shape_ : tuple of int
        Shape of one sample of X.

    n_features_in_ : int
        Length of X along its second axis: the number of features, or of channels for images.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen during :meth:`fit`, where X has names that are all strings.

    See Also
    --------
    skrobust.metrics.robust_accuracy_score : Accuracy under attack.
    skrobust.defenses : Training objectives.

    Notes
    -----
    Training is empirical: it makes attacks harder and proves nothing. Measure it with
    :func:`~skrobust.metrics.robust_accuracy_score`.

    Equal samples are merged, and the data ordered by a hash, before training. A sample of weight
    two hence is the same as the sample twice, and the order in which samples come does not matter.

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
        "optimizer": [StrOptions(set(_OPTIMIZERS)), callable],
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

    def get_params(self, deep=True):
        """Get the parameters, those of the module and the optimizer among them.

        Parameters
        ----------
        deep : bool, default=True
            Whether to return the parameters of ``defense`` and ``preprocessor``, too.

        Returns
        -------
        params : dict
        """
        return super().get_params(deep) | self._through()

    def set_params(self, **params):
        """Set parameters, those of the module and the optimizer among them.

        Parameters
        ----------
        **params : dict
            For example ``eps=0.2``, ``defense__beta=3``, ``module__hidden=(64,)``.

        Returns
        -------
        self : object
        """
        if self.defense is None and any(name.startswith("defense__") for name in params):
            self.defense = AdversarialTraining()  # which is what None means
        through = {k: v for k, v in params.items() if _is_skorch_param(k) or k in self._through()}
        super().set_params(**{k: v for k, v in params.items() if k not in through})
        if through:
            self._skorch_params = self._through() | through
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None):
        """Train the module under the defense.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Training inputs, in the units of ``eps`` and ``bounds``.

        y : array-like of shape (n_samples,)
            Labels of two classes or more.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights. A sample of weight k counts as k equal samples, to the last bit of the result.

        Returns
        -------
        self : object
        """
        goes_on = self.warm_start and hasattr(self, "net_")
        X, y, weight = self._check_training_data(X, y, sample_weight, reset=not goes_on)
        classes = np.unique(y[weight > 0])
        if goes_on:
            self._check_labels(classes)
        else:
            self.classes_ = classes
        return self._train(X, y, weight, initialize=not goes_on)

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch on the data given, at the constant learning rate ``lr``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Training inputs. The first call fits the ``preprocessor``.

        y : array-like of shape (n_samples,)
            Labels.

        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; used at the first call. None means those in ``y``.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        Returns
        -------
        self : object
        """
        goes_on = hasattr(self, "net_")
        X, y, weight = self._check_training_data(X, y, sample_weight, reset=not goes_on)
        if not goes_on:
            self.classes_ = np.unique(y if classes is None else column_or_1d(classes))
        self._check_labels(np.unique(y))
        return self._train(X, y, weight, initialize=not goes_on, partial=True)

    def decision_function(self, X):
        """Logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        scores : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Logits in the order of ``classes_``; for two classes the second less the first.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
        """
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]

    def predict_proba(self, X):
        """Predict probabilities: the softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        return softmax(self._logits(X), axis=1)

    def predict_log_proba(self, X):
        """Predict the logarithm of probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        return log_softmax(self._logits(X), axis=1)

    @property
    def module_(self):
        """The trained module: what comes after ``preprocessor_`` and ``input_shape``."""
        return self.net_.module_

    @property
    def history_(self):
        """History of the training, as skorch records it."""
        return self.net_.history

    def __to_torch__(self):
        """Differentiable view from raw inputs to logits, which shares the module."""
        check_is_fitted(self)
        return self._view(self.module_)

    def __fit_under_noise__(self, noise):
        """Set the defense for training under noise; see Notes of SmoothedClassifier."""
        std = noise.normal_std
        if self.defense is None:
            alone = NoiseAugmentation(noise) if std is None else GaussianAugmentation()
            self.set_params(defense=alone)
        if std is not None and "sigma" in self.defense.get_params():
            self.set_params(defense__sigma=std)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def _through(self):
        """Parameters that go through to skorch; an attribute only where there are some."""
        return getattr(self, "_skorch_params", {})

    def _view(self, module):
        steps = [] if self.preprocessor_ is None else [transform_to_torch(self.preprocessor_)]
        if self.input_shape is not None:
            steps.append(Reshape(self.input_shape))
        return Chain(*steps, Net(module))

    def _check_training_data(self, X, y, sample_weight, reset):
        X, y = validate_data(self, X, y, dtype=FLOATS, allow_nd=True, reset=reset)
        check_classification_targets(y)
        if reset:
            self.sample_shape_ = X.shape[1:]
        self._check_sample_shape(X)
        return X, y, check_weights(sample_weight, X)

    def _check_sample_shape(self, X):
        if X.shape[1:] != self.sample_shape_:
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but RobustClassifier was fitted on samples "
                f"of shape {self.sample_shape_}."
            )

    def _check_labels(self, labels):
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y contains labels that were unknown at the first fit: {unknown[:5].tolist()}. "
                f"The classes are {self.classes_[:20].tolist()}; name all of them in the first "
                "call, by classes= in partial_fit."
            )

    def _train(self, X, y, weight, *, initialize, partial=False):
        if len(self.classes_) < 2:
            raise ValueError(
                "RobustClassifier needs samples of at least two classes in y (with a positive "
                f"sample_weight); the data contain one class only: {self.classes_.tolist()}."
            )
        threat = ThreatModel(
            self.eps,
            self.norm,
            self.bounds,
            self.mask,
            feature_names=getattr(self, "feature_names_in_", None),
        )
        threat.check_inputs(X)
        defense = AdversarialTraining() if self.defense is None else self.defense
        defense._validate_params()
        device = resolve_device(self.device)
        seed = draw_seed(self.random_state)
        if not initialize:  # with one seed, too, an epoch is never the one before again
            seed += len(self.history_)
        with isolated_rng(seed, device):
            module = self._initialize(X, y, weight, device) if initialize else self.module_
            view = self._view(module)
            train, valid = self._make_data(view, X, y, weight, seed, hold_out=not partial)
            if initialize:
                check_output(module, view, train.x[:2], len(self.classes_))
            n_batches = -(-len(train) // self.batch_size)
            n_epochs = 1 if partial else self._n_epochs(n_batches)
            callbacks = self._make_callbacks(n_epochs * n_batches, partial)
            if initialize:
                self.net_ = self._make_net(module, callbacks, device)
            elif not (partial and self.net_.trains_partially):
                self.net_.callbacks = callbacks
                self.net_.initialize_callbacks()
            net = self.net_
            net.trains_partially = partial
            net.max_epochs = n_epochs
            generator = make_generator(seed, device)
            warmup = 0 if partial else round(self.eps_warmup * n_epochs * n_batches)
            threats = growing_threats(threat, warmup)
            training = net.training_with(
                lambda x, y: defense.loss(view, x, y, next(threats), generator),
                lambda: evaluate_robustness(view, valid, threat, seed),
                generator,
            )
            fast = fast_passes(view, self.batch_size)
            with training, fast, training_format(view), torch.enable_grad():
                net.partial_fit(train, None)
            net.module_.eval()
        if not all(torch.isfinite(parameter).all() for parameter in module.parameters()):
            raise ValueError(
                "training diverged: the weights of the module are no longer finite. Take a smaller "
                f"lr (it was {self.lr:g}), or scale X by a preprocessor."
            )
        return self

    def _initialize(self, X, y, weight, device):
        """Fit the preprocessor and build the module."""
        shape, place = X.shape[1:], ""
        self.preprocessor_ = None
        if self.preprocessor is not None:
            self.preprocessor_ = clone(self.preprocessor)
            weighted = has_fit_parameter(self.preprocessor_, "sample_weight")
            kept = weight > 0
            self.preprocessor_.fit(
                X[kept], y[kept], **({"sample_weight": weight[kept]} if weighted else {})
            )
            shape, place = self.preprocessor_.transform(X[:1]).shape[1:], " after the preprocessor"
        if self.input_shape is not None:
            if prod(self.input_shape) != prod(shape):
                raise ValueError(
                    "input_shape must hold as many values as a sample has: "
                    f"{tuple(self.input_shape)} holds {prod(self.input_shape)}, and a sample has "
                    f"{prod(shape)}{place}."
                )
            shape = tuple(self.input_shape)
        unknown = [name for name in self._through() if not _is_skorch_param(name)]
        if unknown:
            raise TypeError(
                f"RobustClassifier got an unexpected keyword argument {unknown[0]!r}. Besides its "
                f"own parameters it takes {', '.join(_SKORCH_NAMES)} and names that start with "
                f"{', '.join(_SKORCH_PREFIXES)}."
            )
        module = build_module(
            self.module,
            {
                name.removeprefix("module__"): value
                for name, value in self._through().items()
                if name.startswith("module__")
            },
            input_shape=shape,
            n_classes=len(self.classes_),
        )
        return module.to(device)

    def _make_data(self, view, X, y, weight, seed, hold_out):
        """Training data on the device, and validation data where they are held out."""
        kept = weight > 0
        y_index = np.zeros(len(y), dtype=np.int64)
        y_index[kept] = np.searchsorted(self.classes_, y[kept])
        rows, weight = merge_samples(X, y_index, weight)
        weight = weight * self._class_factors(y_index[rows], weight)
        options = input_options(view)

        def data(part):
            return TensorData(
                torch.as_tensor(X[rows[part]], **options),
                torch.as_tensor(y_index[rows[part]], device=options["device"]),
                torch.as_tensor(
                    weight[part] / weight[part].mean(),
                    dtype=torch.get_default_dtype(),
                    device=options["device"],
                ),
            )

        if not (self.early_stopping and hold_out):
            return data(slice(None)), None
        parts = hold_out_samples(y_index[rows], self.validation_fraction, seed)
        return tuple(data(part) for part in parts)

    def _class_factors(self, y_index, weight):
        """Factor of ``class_weight`` for each sample."""
        factors = np.ones(len(self.classes_))
        if self.class_weight == "balanced":
            totals = np.bincount(y_index, weight, minlength=len(factors))
            factors = totals.sum() / np.maximum(totals, np.finfo(float).tiny) / len(factors)
        elif self.class_weight is not None:
            unknown = [label for label in self.class_weight if label not in self.classes_]
            if unknown:
                raise ValueError(
                    f"class_weight contains labels that are not in y: {unknown}. The classes are "
                    f"{self.classes_[:20].tolist()}."
                )
            factors = np.array([self.class_weight.get(c, 1.0) for c in self.classes_.tolist()])
            if not (np.isfinite(factors).all() and (factors >= 0).all() and factors.any()):
                raise ValueError(
                    "class_weight must have finite weights that are not negative and not all zero; "
                    f"got {self.class_weight}."
                )
        return factors[y_index]

    def _n_epochs(self, n_batches):
        if self.max_epochs != "auto":
            return self.max_epochs
        return int(np.clip(-(-_AUTO_STEPS // n_batches), *_AUTO_EPOCHS))

    def _make_callbacks(self, n_steps, partial):
        callbacks = []
        if not partial:
            schedule = BatchSchedule(SCHEDULES[self.lr_schedule], n_steps)
            callbacks.append(("lr_schedule", schedule))
        if self.weight_averaging is not None:
            callbacks.append(("weight_averaging", WeightAveraging(self.weight_averaging)))
        if self.early_stopping and not partial:
            callbacks.append(("validation", RobustValidation(self.n_iter_no_change)))
        return callbacks + deepcopy(self.callbacks or [])

    def _make_net(self, module, callbacks, device):
        through = {
            name: value
            for name, value in self._through().items()
            if not name.startswith("module__")
        }
        net = DefendedNet(
            module,
            criterion=nn.CrossEntropyLoss,
            optimizer=_OPTIMIZERS.get(self.optimizer, self.optimizer),
            lr=self.lr,
            batch_size=self.batch_size,
            train_split=None,
            callbacks=callbacks,
            device=device,
            verbose=self.verbose,
            classes=np.arange(len(self.classes_)),
            **{"iterator_train": TensorBatches} | through,
        )
        return net.initialize()

    def _logits(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS, allow_nd=True)
        self._check_sample_shape(X)
        module = precise(self.module_)
        logits = outputs(self._view(module), X)
        if module is not self.module_:
            logits = logits.astype(np.float32)
        return logits.astype(np.float64)
