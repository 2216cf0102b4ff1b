"""Skorch callbacks: learning rate, weight averaging, validation with early stopping."""

from copy import deepcopy
from math import cos, pi

import torch
from skorch.callbacks import Callback


def _constant(progress):
    return 1.0


def _cosine(progress):
    return (1 + cos(pi * progress)) / 2


def _one_cycle(progress):
    """Rise linearly over the first 30 %, then fall linearly to zero (Smith & Topin 2019)."""
    return progress / 0.3 if progress < 0.3 else (1 - progress) / 0.7


SCHEDULES = {"constant": _constant, "cosine": _cosine, "one-cycle": _one_cycle}


def make_callbacks(classifier, plan):
    """Return the callbacks that the parameters of a classifier call for.

    Parameters
    ----------
    classifier : BaseNetClassifier
        Source of the parameters.

    plan : Plan
        Length of the training.

    Returns
    -------
    callbacks : list
        Ours as pairs of name and callback, then copies of the user's.
    """
    callbacks = []
    if not plan.partial:
        schedule = BatchSchedule(SCHEDULES[classifier.lr_schedule], plan.n_batches)
        callbacks.append(("lr_schedule", schedule))
    if classifier.weight_averaging is not None:
        callbacks.append(("weight_averaging", WeightAveraging(classifier.weight_averaging)))
    if classifier.early_stopping and not plan.partial:
        callbacks.append(("validation", RobustValidation(classifier.n_iter_no_change)))
    return callbacks + deepcopy(classifier.callbacks or [])


class BatchSchedule(Callback):
    """Set the learning rate before every batch, as a function of the progress of the training.

    Parameters
    ----------
    factor : callable
        Maps the progress in [0, 1) to a factor of the initial learning rate.

    n_batches : int
        Batches of the whole training.
    """

    def __init__(self, factor, n_batches):
        self.factor, self.n_batches = factor, n_batches

    def on_train_begin(self, net, **kwargs):
        """Store the initial learning rates."""
        self.step_ = 0
        self.initial_ = [group["lr"] for group in net.optimizer_.param_groups]

    def on_batch_begin(self, net, training=False, **kwargs):
        """Set the learning rates for the batch."""
        if training:
            factor = self.factor(self.step_ / self.n_batches)
            for group, lr in zip(net.optimizer_.param_groups, self.initial_, strict=True):
                group["lr"] = lr * factor
            self.step_ += 1

    def on_train_end(self, net, **kwargs):
        """Restore the initial learning rates for later calls of fit."""
        for group, lr in zip(net.optimizer_.param_groups, self.initial_, strict=True):
            group["lr"] = lr


class WeightAveraging(Callback):
    """Exponential moving average of the weights over batches.

    Between epochs the module holds the average, which is used for validation, for the best weights
    and for predictions. During an epoch it holds the weights of the optimizer. The decay starts
    small, so that the initial weights are soon forgotten.

    Parameters
    ----------
    decay : float
        Factor of the old average in each update.
    """

    def __init__(self, decay):
        self.decay = decay

    def initialize(self):
        """Discard earlier averages."""
        self.average_ = self.raw_ = None
        self.n_averaged_ = 0
        return self

    def on_epoch_begin(self, net, **kwargs):
        """Put the weights of the optimizer back into the module."""
        if self.raw_ is not None:
            _load(net.module_, self.raw_)

    def on_batch_end(self, net, training=False, **kwargs):
        """Update the average."""
        if not training:
            return
        weights = _floating_state(net.module_)
        if self.average_ is None:
            self.average_ = [weight.clone() for weight in weights]
        self.n_averaged_ += 1
        decay = min(self.decay, self.n_averaged_ / (self.n_averaged_ + 9))
        torch._foreach_lerp_(self.average_, weights, 1 - decay)

    def on_epoch_end(self, net, **kwargs):
        """Store the weights of the optimizer, and put the average into the module."""
        self.raw_ = [weight.clone() for weight in _floating_state(net.module_)]
        _load(net.module_, self.average_)


class RobustValidation(Callback):
    """Clean and robust accuracy on held-out data after every epoch, with early stopping.

    Parameters
    ----------
    patience : int
        Epochs without improvement after which training stops. The best weights are restored.
    """

    def __init__(self, patience):
        self.patience = patience

    def on_train_begin(self, net, **kwargs):
        """Reset the best result."""
        self.best_, self.best_state_, self.n_since_best_ = None, None, 0

    def on_epoch_end(self, net, **kwargs):
        """Record the accuracies; keep the weights if they are the best, stop after too long."""
        accuracy, robust_accuracy, margin = net.evaluate()
        net.history.record("valid_acc", accuracy)
        net.history.record("valid_robust_acc", robust_accuracy)
        is_best = self.best_ is None or (robust_accuracy, margin) > self.best_
        net.history.record("valid_robust_acc_best", is_best)
        if is_best:
            self.best_, self.n_since_best_ = (robust_accuracy, margin), 0
            self.best_state_ = deepcopy(net.module_.state_dict())
            return
        self.n_since_best_ += 1
        if self.n_since_best_ >= self.patience:
            # skorch's own EarlyStopping ends a training in the same way.
            raise KeyboardInterrupt

    def on_train_end(self, net, **kwargs):
        """Restore the best weights."""
        if self.best_state_ is not None:
            net.module_.load_state_dict(self.best_state_)
        self.best_state_ = None


def _floating_state(module):
    return [value for value in module.state_dict().values() if value.is_floating_point()]


def _load(module, weights):
    for value, weight in zip(_floating_state(module), weights, strict=True):
        value.copy_(weight)
