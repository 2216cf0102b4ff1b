"""The skorch net inside a classifier: its parameters and its training step."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer, PassthroughScoring, PrintLog
from torch import nn

from ._data import IsolatedBatches, TensorBatches

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}

# Keyword arguments of a classifier that are passed on to skorch.
_SKORCH_NAMES = ("iterator_train",)
_SKORCH_PREFIXES = ("module__", "optimizer__", "callbacks__", "iterator_train__")


def is_skorch_param(name):
    """Return whether a parameter is passed on to skorch."""
    return name in _SKORCH_NAMES or name.startswith(_SKORCH_PREFIXES)


def check_skorch_params(classifier):
    """Raise a TypeError for keyword arguments that skorch does not take either."""
    unknown = [name for name in classifier._skorch_params if not is_skorch_param(name)]
    if unknown:
        raise TypeError(
            f"{type(classifier).__name__} got an unexpected keyword argument {unknown[0]!r}. It "
            f"takes its own parameters, {', '.join(_SKORCH_NAMES)}, and names that start with "
            f"{', '.join(_SKORCH_PREFIXES)}."
        )


def split_skorch_params(classifier):
    """Return the parameters of the module, without their prefix, and the parameters of the net."""
    of_module: dict = {}
    of_net: dict = {}
    for name, value in classifier._skorch_params.items():
        params = of_module if name.startswith("module__") else of_net
        params[name.removeprefix("module__")] = value
    return of_module, of_net


def make_net(classifier, module, callbacks, device):
    """Return an initialised net around ``module``, with the parameters of ``classifier``."""
    return DefendedNet(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=OPTIMIZERS.get(classifier.optimizer, classifier.optimizer),
        lr=classifier.lr,
        batch_size=classifier.batch_size,
        train_split=None,
        callbacks=callbacks,
        device=device,
        verbose=classifier.verbose,
        classes=np.arange(len(classifier.classes_)),
        **{"iterator_train": TensorBatches} | split_skorch_params(classifier)[1],
    ).initialize()


class DefendedNet(NeuralNetClassifier):
    """Skorch net whose training step minimises the loss of a defense.

    The objective is set inside :meth:`training_with` only, so that a trained net can be pickled.
    """

    objective = evaluate = generator = torch_random_state = None
    trains_partially = False

    @contextmanager
    def training_with(self, objective, evaluate, generator, random_state):
        """Set the objective inside the block.

        Parameters
        ----------
        objective : callable
            Maps a batch of inputs and class indices to the losses and logits of its samples.

        evaluate : callable
            Returns clean accuracy, robust accuracy and a tie-breaker on held-out data.

        generator : torch.Generator
            Source of randomness for the order of the samples.

        random_state : TorchRandomState
            Source of randomness for modules, such as dropout, and for iterators of the user.
        """
        self.objective, self.evaluate, self.generator = objective, evaluate, generator
        self.torch_random_state = random_state
        try:
            yield
        finally:
            del self.objective, self.evaluate, self.generator, self.torch_random_state

    @property
    def _default_callbacks(self):
        callbacks = [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
        ]
        # PrintLog formats its table even when nothing is printed; that can take longer than a
        # short epoch.
        return [*callbacks, ("print_log", PrintLog())] if self.verbose else callbacks

    def get_iterator(self, dataset, training=False):
        """Return an iterator over the batches of a data set."""
        if training and self.iterator_train is TensorBatches:
            return TensorBatches(dataset, self.batch_size, self.generator)
        iterator = super().get_iterator(dataset, training=training)
        return IsolatedBatches(iterator, self.torch_random_state)

    def train_step_single(self, batch, **fit_params):
        """Compute the weighted mean loss of a batch and its gradients."""
        inputs, y = batch
        self._set_training(True)
        with self.torch_random_state.active():
            losses, logits = self.objective(inputs["x"], y)
        loss = (losses * inputs["sample_weight"]).mean()
        loss.backward()
        return {"loss": loss, "y_pred": logits}


def growing_threats(threat, n_warmup):
    """Yield the threat model of each batch: ``eps`` grows linearly over ``n_warmup`` batches."""
    for step in range(n_warmup):
        yield replace(threat, eps=threat.eps * (step / n_warmup))
    while True:
        yield threat
