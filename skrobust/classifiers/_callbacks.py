"""What happens between batches and epochs: skorch callbacks of RobustClassifier."""

from copy import deepcopy
from math import cos, pi

import torch
from skorch.callbacks import Callback


def _constant(progress):
    return 1.0


def _cosine(progress):
    return (1 + cos(pi * progress)) / 2


def _one_cycle(progress):
    """Up for the first three tenths and down to zero (Smith & Topin 2019)."""
    return progress / 0.3 if progress < 0.3 else (1 - progress) / 0.7


SCHEDULES = {"constant": _constant, "cosine": _cosine, "one-cycle": _one_cycle}


class BatchSchedule(Callback):
    """Learning rate as a function of the progress of the training, set before every batch.

    Parameters
    ----------
    factor : callable
        From the progress in [0, 1) to a factor of the initial learning rate.

    n_batches : int
        Length of the training.
    """

    def __init__(self, factor, n_batches):
        self.factor, self.n_batches = factor, n_batches

    def on_train_begin(self, net, **kwargs):
        """Remember the initial rates."""
        self.step_ = 0
        self.initial_ = [group["lr"] for group in net.optimizer_.param_groups]

    def on_batch_begin(self, net, training=False, **kwargs):
        """Set the rates."""
        if training:
            factor = self.factor(self.step_ / self.n_batches)
            for group, lr in zip(net.optimizer_.param_groups, self.initial_, strict=True):
                group["lr"] = lr * factor
            self.step_ += 1

    def on_train_end(self, net, **kwargs):
        """Put the initial rates back, for a training that goes on."""
        for group, lr in zip(net.optimizer_.param_groups, self.initial_, strict=True):
            group["lr"] = lr


class WeightAveraging(Callback):
    """Exponential moving average of the weights, in the module between epochs.

    Validation, best weights and predictions hence are those of the average, and every epoch goes
    on from the weights of the optimizer. The first averages are over few batches.

    Parameters
    ----------
    decay : float
        Weight of the old average.
    """

    def __init__(self, decay):
        self.decay = decay

    def initialize(self):
        """Forget earlier averages."""
        self.average_ = self.raw_ = None
        self.n_averaged_ = 0
        return self

    def on_epoch_begin(self, net, **kwargs):
        """Go on from the weights of the optimizer."""
        if self.raw_ is not None:
            _load(net.module_, self.raw_)

    def on_batch_end(self, net, training=False, **kwargs):
        """Average the weights."""
        if not training:
            return
        weights = _floating_state(net.module_)
        if self.average_ is None:
            self.average_ = [weight.clone() for weight in weights]
        self.n_averaged_ += 1
        decay = min(self.decay, self.n_averaged_ / (self.n_averaged_ + 9))
        torch._foreach_lerp_(self.average_, weights, 1 - decay)

    def on_epoch_end(self, net, **kwargs):
        """Put the average into the module."""
        self.raw_ = [weight.clone() for weight in _floating_state(net.module_)]
        _load(net.module_, self.average_)


class RobustValidation(Callback):
    """Clean and robust accuracy on held-out data after every epoch, and early stopping by it.

    Parameters
    ----------
    patience : int
        Epochs without improvement after which to stop. The best weights are put back.
    """

    def __init__(self, patience):
        self.patience = patience

    def on_train_begin(self, net, **kwargs):
        """Start anew."""
        self.best_, self.best_state_, self.n_since_best_ = None, None, 0

    def on_epoch_end(self, net, **kwargs):
        """Record, compare, stop."""
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
            # This is how skorch's own callbacks end a training.
            raise KeyboardInterrupt

    def on_train_end(self, net, **kwargs):
        """Put the best weights back."""
        if self.best_state_ is not None:
            net.module_.load_state_dict(self.best_state_)
        self.best_state_ = None


def _floating_state(module):
    return [value for value in module.state_dict().values() if value.is_floating_point()]


def _load(module, weights):
    for value, weight in zip(_floating_state(module), weights, strict=True):
        value.copy_(weight)
