"""The skorch net inside RobustClassifier: batches and the training step."""

from contextlib import contextmanager
from dataclasses import replace

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer, PassthroughScoring, PrintLog
from torch.utils.data import Dataset


class TensorData(Dataset):
    """Training data on the device: inputs, class indices and weights.

    Items and batches are ``({"x": x, "sample_weight": w}, y)``.
    """

    def __init__(self, x, y, sample_weight):
        self.x, self.y, self.sample_weight = x, y, sample_weight

    def __len__(self):
        return len(self.y)

    def __getitem__(self, rows):
        return {"x": self.x[rows], "sample_weight": self.sample_weight[rows]}, self.y[rows]


class TensorBatches:
    """Batches of tensors that are on the device already, in random order.

    A batch is one gather, where a DataLoader fetches and collates row by row. The batches of an
    epoch are of nearly equal size: a last one of a single row would upset batch normalisation.
    """

    def __init__(self, dataset, batch_size, generator):
        self.dataset, self.batch_size, self.generator = dataset, batch_size, generator

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        device = self.generator.device
        order = torch.randperm(len(self.dataset), generator=self.generator, device=device)
        for rows in torch.tensor_split(order, len(self)):
            yield self.dataset[rows]


class DefendedNet(NeuralNetClassifier):
    """Skorch net whose training step minimises the loss of a defense.

    What it needs for that is there inside :meth:`training_with` only, so that a trained net holds,
    and pickles, nothing but itself.
    """

    objective = evaluate = generator = None
    trains_partially = False

    @contextmanager
    def training_with(self, objective, evaluate, generator):
        """Provide what a training needs.

        Parameters
        ----------
        objective : callable
            From a batch of inputs and class indices to losses and logits of its samples.

        evaluate : callable
            Returns the clean and robust accuracy on held-out data, and a tie-breaker.

        generator : torch.Generator
            For the order of the samples.
        """
        self.objective, self.evaluate, self.generator = objective, evaluate, generator
        try:
            yield
        finally:
            del self.objective, self.evaluate, self.generator

    @property
    def _default_callbacks(self):
        callbacks = [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
        ]
        # Setting a table costs more than a short epoch, also where nobody sees it.
        return [*callbacks, ("print_log", PrintLog())] if self.verbose else callbacks

    def get_iterator(self, dataset, training=False):
        """Batches of a data set."""
        if training and self.iterator_train is TensorBatches:
            return TensorBatches(dataset, self.batch_size, self.generator)
        return super().get_iterator(dataset, training=training)

    def train_step_single(self, batch, **fit_params):
        """Losses of the batch, weighted and averaged, and their gradients."""
        inputs, y = batch
        self._set_training(True)
        losses, logits = self.objective(inputs["x"], y)
        loss = (losses * inputs["sample_weight"]).mean()
        loss.backward()
        return {"loss": loss, "y_pred": logits}


def growing_threats(threat, n_warmup):
    """Yield the threat model of each batch: over ``n_warmup`` of them its ``eps`` grows to full."""
    for step in range(n_warmup):
        yield replace(threat, eps=threat.eps * (step / n_warmup))
    while True:
        yield threat
