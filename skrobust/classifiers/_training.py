"""Training of a classifier: build or resume the net, plan, run, check the result."""

from dataclasses import dataclass

import numpy as np
import torch

from ..differentiable.runtime import deterministic_convolutions, training_memory_format
from ..threat import ThreatModel
from ..utils._random import TorchRandomState, draw_seed, make_generator
from ..utils._torch import input_options, resolve_device
from ._build import build_module, check_output, fit_preprocessor, module_input_shape
from ._callbacks import make_callbacks
from ._data import prepare_samples
from ._net import check_skorch_params, growing_threats, make_net, split_skorch_params
from ._validation import evaluate_robustness

# With max_epochs="auto", train for about this number of batches, within limits on the epochs.
_AUTO_BATCHES, _AUTO_EPOCHS = 2000, (10, 200)


@dataclass(frozen=True)
class Plan:
    """Length of a training run.

    Attributes
    ----------
    n_epochs : int
        Epochs.

    n_batches : int
        Batches of all epochs together.

    n_warmup : int
        Batches over which ``eps`` grows.

    partial : bool
        Whether this is a call of ``partial_fit``.
    """

    n_epochs: int
    n_batches: int
    n_warmup: int
    partial: bool


def train(classifier, X, y, sample_weight, *, resume, partial=False):
    """Train the net of a classifier under its defense.

    Parameters
    ----------
    classifier : BaseNetClassifier
        Estimator with ``classes_``. Gets ``net_`` and ``preprocessor_``.

    X : ndarray of shape (n_samples, ...)
        Checked inputs.

    y : ndarray of shape (n_samples,)
        Checked labels.

    sample_weight : ndarray of shape (n_samples,)
        Checked weights. Samples with weight 0 are left out of the training.

    resume : bool
        Whether to continue from the present weights. Otherwise a new preprocessor and a new net
        are made.

    partial : bool, default=False
        Whether this is a call of ``partial_fit``: one epoch at the full ``eps`` and a constant
        learning rate, without validation.
    """
    threat = _check_threat(classifier, X)
    defense = classifier._get_defense()
    defense._validate_params()
    device = resolve_device(classifier.device)
    seed = draw_seed(classifier.random_state)
    if resume:
        # Otherwise an integer random_state would give every call the same random numbers.
        seed += len(classifier.history_)
    random_state = TorchRandomState(seed, device)
    if resume:
        module = classifier.module_
    else:
        module = _build(classifier, X, y, sample_weight, device, random_state)
    view = classifier._make_view(module)
    samples, held_out = prepare_samples(
        classifier, X, y, sample_weight, options=input_options(view), seed=seed, partial=partial
    )
    plan = _make_plan(classifier, len(samples), partial)
    net = classifier.net_ = _start_or_resume(classifier, module, plan, device, resume)
    generator = make_generator(seed, device)
    threats = growing_threats(threat, plan.n_warmup)
    with net.training_with(
        objective=lambda x, y: defense.loss(view, x, y, next(threats), generator),
        evaluate=lambda: evaluate_robustness(view, held_out, threat, seed),
        generator=generator,
        random_state=random_state,
    ):
        _run(net, view, samples, plan)
    _check_weights(classifier)


def _check_threat(classifier, X):
    """Return the threat model, after a check of the classes and of the inputs."""
    if len(classifier.classes_) < 2:
        raise ValueError(
            f"{type(classifier).__name__} needs samples of at least two classes in y (with a "
            "positive sample_weight); the data contain one class only: "
            f"{classifier.classes_.tolist()}."
        )
    threat = ThreatModel(
        classifier.eps,
        classifier.norm,
        classifier.bounds,
        classifier.mask,
        feature_names=getattr(classifier, "feature_names_in_", None),
    )
    threat.check_inputs(X)
    return threat


def _build(classifier, X, y, sample_weight, device, random_state):
    """Fit the preprocessor, build the module, and check that they take the data."""
    check_skorch_params(classifier)
    classifier.preprocessor_ = fit_preprocessor(classifier.preprocessor, X, y, sample_weight)
    input_shape, n_classes = module_input_shape(classifier, X), len(classifier.classes_)
    with random_state.active():
        module = build_module(
            classifier.module,
            split_skorch_params(classifier)[0],
            input_shape=input_shape,
            n_classes=n_classes,
        ).to(device)
        check_output(module, classifier._make_view(module), X[:2], n_classes)
    return module


def _make_plan(classifier, n_samples, partial):
    n_batches = -(-n_samples // classifier.batch_size)
    if partial:
        return Plan(1, n_batches, n_warmup=0, partial=True)
    n_epochs = classifier.max_epochs
    if n_epochs == "auto":
        n_epochs = int(np.clip(-(-_AUTO_BATCHES // n_batches), *_AUTO_EPOCHS))
    n_warmup = round(classifier.eps_warmup * n_epochs * n_batches)
    return Plan(n_epochs, n_epochs * n_batches, n_warmup, partial=False)


def _start_or_resume(classifier, module, plan, device, resume):
    """Return the net with the callbacks of this run."""
    if not resume:
        net = make_net(classifier, module, make_callbacks(classifier, plan), device)
    else:
        net = classifier.net_
        # Callbacks keep their state over consecutive calls of partial_fit: weights are averaged
        # over all of these epochs.
        if not (plan.partial and net.trains_partially):
            net.callbacks = make_callbacks(classifier, plan)
            net.initialize_callbacks()
    net.trains_partially = plan.partial
    return net


def _run(net, view, samples, plan):
    """Train for the planned epochs, and leave the module in evaluation mode."""
    net.max_epochs = plan.n_epochs
    with deterministic_convolutions(), training_memory_format(view), torch.enable_grad():
        net.partial_fit(samples, None)
    net.module_.eval()


def _check_weights(classifier):
    """Raise a ValueError if training diverged."""
    if not all(torch.isfinite(weight).all() for weight in classifier.module_.parameters()):
        raise ValueError(
            f"Training of {type(classifier).__name__} diverged: some weights of the module are NaN "
            f"or infinite. Use a smaller lr (it was {classifier.lr:g}), or scale X by a "
            "preprocessor."
        )
