"""The table of all attacks, and the classifiers that they are tried on."""

import copy
from functools import cache

import joblib
import numpy as np
import skorch
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skrobust.attacks import (
    APGD,
    DDN,
    FAB,
    FGSM,
    FMN,
    PGD,
    AutoAttack,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    MinimumNormAttack,
    SigmaZero,
    Square,
)

# Attacks whose result depends on the seed.
RANDOM_ATTACKS = {
    "pgd linf": PGD(eps=0.4, n_steps=6),
    "pgd l2": PGD(eps=0.9, norm="l2", n_steps=6),
    "pgd l1": PGD(eps=1.5, norm="l1", n_steps=6),
    "pgd restarts": PGD(eps=0.4, n_steps=4, n_restarts=3),
    "pgd restarts l1": PGD(eps=1.5, norm="l1", n_steps=4, n_restarts=2),
    "pgd stop": PGD(eps=0.4, n_steps=6, n_restarts=2, stop_on_success=True),
    "pgd step size": PGD(eps=0.4, n_steps=6, step_size=0.1),
    "pgd momentum": PGD(eps=0.4, n_steps=6, momentum=1.0),
    "pgd dlr": PGD(eps=0.9, norm="l2", n_steps=6, loss="dlr"),
    "pgd targets": PGD(eps=0.4, n_steps=4, n_target_classes=2, n_restarts=2),
    "pgd eot": PGD(eps=0.4, n_steps=4, eot_samples=2),
    "apgd linf": APGD(eps=0.4, n_steps=8),
    "apgd l2": APGD(eps=0.9, norm="l2", n_steps=8, loss="margin"),
    "apgd l1": APGD(eps=1.5, norm="l1", n_steps=10),
    "apgd targets": APGD(eps=0.9, norm="l2", n_steps=6, loss="dlr", n_target_classes=9),
    "apgd targets l1": APGD(eps=1.5, norm="l1", n_steps=10, loss="dlr", n_target_classes=2),
    "apgd stop": APGD(eps=0.4, n_steps=8, n_restarts=2, stop_on_success=True),
    "auto": AutoAttack(eps=0.4, version="fast"),
    "auto rand": AutoAttack(eps=0.9, norm="l2", version="rand"),
    "square linf": Square(eps=0.4, n_queries=60),
    "square l2": Square(eps=0.9, norm="l2", n_queries=100),
    "square l1": Square(eps=2.5, norm="l1", n_queries=300),
    "fab l1": FAB(eps=1.5, norm="l1", n_steps=8, n_restarts=2),
    "fmn linf": FMN(eps=0.4, n_steps=8, n_restarts=2),
    "fmn l2": FMN(eps=0.9, norm="l2", n_steps=8, n_restarts=2),
    "fmn l1": FMN(eps=1.5, norm="l1", n_steps=8, n_restarts=2),
    "fmn l0": FMN(eps=2, norm="l0", n_steps=8, n_restarts=2),
    "ddn": DDN(eps=0.9, n_steps=8, n_restarts=2),
    "sigma zero": SigmaZero(eps=2, n_steps=8, n_restarts=2),
    "carlini wagner": CarliniWagner(eps=0.9, n_steps=20, n_restarts=2),
    "hop linf": HopSkipJump(eps=0.4, max_queries=150, n_directions=20),
    "hop l2": HopSkipJump(eps=0.9, norm="l2", max_queries=150, n_directions=20, n_restarts=2),
}

# Attacks whose result does not.
DETERMINISTIC_ATTACKS = {
    "fgsm linf": FGSM(eps=0.4),
    "fgsm l2": FGSM(eps=0.9, norm="l2"),
    "fgsm l1": FGSM(eps=1.5, norm="l1"),
    "fgsm margin": FGSM(eps=0.4, loss="margin"),
    "pgd margin": PGD(eps=0.9, norm="l2", n_steps=6, loss="margin"),
    "pgd from the input": PGD(eps=0.4, n_steps=6, random_start=False),
    "pgd from the input l2": PGD(eps=0.9, norm="l2", n_steps=6, random_start=False),
    "pgd stop l2": PGD(eps=0.9, norm="l2", n_steps=6, stop_on_success=True, loss="margin"),
    "fab linf": FAB(eps=0.4, n_steps=8),
    "fab l2": FAB(eps=0.9, norm="l2", n_steps=8, n_target_classes=None),
    "deepfool l2": DeepFool(eps=0.9),
    "deepfool linf": DeepFool(eps=0.4, norm="linf"),
}

ATTACKS = RANDOM_ATTACKS | DETERMINISTIC_ATTACKS


def goes_to_the_edge(attack):
    """Whether an attack follows gradients as far as the threat model lets it."""
    nearest = isinstance(attack, MinimumNormAttack)
    return attack._access == "gradients" and not nearest


def make_attack(name, **parameters):
    """A fresh attack of the table with a fixed seed."""
    return clone(ATTACKS[name]).set_params(**{"random_state": 0, **parameters})


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))

    def forward(self, x):
        return self.head(self.features(x))


class SingleLogit(nn.Module):
    def __init__(self, n_features=6):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)[:, 0]


def build_mlp():
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)
    )


def _train(module, X, y, loss):
    """A few steps, so that gradients and running statistics mean something."""
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    X = torch.from_numpy(X).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(40):
            optimizer.zero_grad()
            loss(module(X), y).backward()
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return module.train()  # as it comes from a training loop


def _seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def make_data(n_classes, n_samples=60, n_features=6):
    return make_classification(
        n_samples=n_samples,
        n_features=n_features,
        n_informative=4,
        n_redundant=0,
        n_classes=n_classes,
        n_clusters_per_class=1,
        class_sep=0.8,
        flip_y=0.1,
        random_state=1,
    )


def _sklearn(estimator, n_classes, labels=None):
    X, y = make_data(n_classes)
    y = y if labels is None else np.array(labels)[y]
    return estimator.fit(X, y), X, y


def _logistic():
    return make_pipeline(StandardScaler(), LogisticRegression())


def _mlp_classifier():
    return MLPClassifier((8,), activation="tanh", solver="lbfgs", max_iter=100, random_state=0)


def _module():
    X, y = make_data(3)
    return _train(_seeded(build_mlp), X, torch.from_numpy(y), nn.CrossEntropyLoss()), X, y


def _single_logit():
    X, y = make_data(2)
    loss = nn.BCEWithLogitsLoss()
    return _train(_seeded(SingleLogit), X, torch.from_numpy(y).float(), loss), X, y


def _images():
    X, y = make_data(3, n_samples=40, n_features=36)
    X = X.reshape(-1, 1, 6, 6)
    return _train(_seeded(ConvNet), X, torch.from_numpy(y), nn.CrossEntropyLoss()), X, y


def _skorch(n_classes=3):
    X, y = make_data(n_classes)
    X = X.astype(np.float32)
    net = _seeded(
        lambda: skorch.NeuralNetClassifier(
            build_mlp, criterion=nn.CrossEntropyLoss, max_epochs=8, lr=0.1, verbose=0
        ).fit(X, y)
    )
    return net, X, y


BUILDERS = {
    "logistic, 2 classes": lambda: _sklearn(_logistic(), 2),
    "logistic, 2 strings": lambda: _sklearn(_logistic(), 2, labels=["yes", "no"]),
    "logistic, 3 classes": lambda: _sklearn(_logistic(), 3, labels=[7, -2, 3]),
    "MLPClassifier, 2 bools": lambda: _sklearn(_mlp_classifier(), 2, labels=[True, False]),
    "MLPClassifier, 3 strings": lambda: _sklearn(
        _mlp_classifier(), 3, labels=["green", "blue", "red"]
    ),
    "GridSearchCV": lambda: _sklearn(
        GridSearchCV(_logistic(), {"logisticregression__C": [0.1, 1.0]}, cv=2), 3
    ),
    "FrozenEstimator": lambda: _sklearn(FrozenEstimator(_sklearn(_logistic(), 3)[0]), 3),
    "skorch": _skorch,
    "module": _module,
    "module, one logit": _single_logit,
    "module, images": _images,
}


@cache
def _built(name):
    return BUILDERS[name]()


def make_victim(name):
    """A fitted classifier with the data it was fitted on; all are the caller's own."""
    return copy.deepcopy(_built(name))


def predict(estimator, X):
    """Predictions of a classifier, without any code of skrobust."""
    if isinstance(estimator, nn.Module):
        parameter = next(estimator.parameters())
        module = copy.deepcopy(estimator).eval()
        with torch.no_grad():
            logits = module(torch.tensor(np.asarray(X), dtype=parameter.dtype))
        logits = logits.reshape(len(X), -1)
        labels = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
        return labels.numpy()
    if isinstance(estimator, skorch.NeuralNet):
        return copy.deepcopy(estimator).predict(np.asarray(X, dtype=np.float32))
    return estimator.predict(X)


def module_of(estimator):
    """The torch module inside, or None."""
    if isinstance(estimator, skorch.NeuralNet):
        return estimator.module_
    return estimator if isinstance(estimator, nn.Module) else None


def snapshot(estimator):
    """Everything of a classifier that an attack must leave as it was, as plain data."""
    module = module_of(estimator)
    if module is None:  # joblib cannot hash the masked arrays of a search
        kept = {k: v for k, v in vars(estimator).items() if k != "cv_results_"}
        return {"hash": joblib.hash(kept)}
    return {
        "state": {k: (v.dtype, v.numpy().tobytes()) for k, v in module.state_dict().items()},
        "grad": {
            k: None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes())
            for k, p in module.named_parameters()
        },
        "requires_grad": {k: p.requires_grad for k, p in module.named_parameters()},
        "identity": {k: id(p) for k, p in module.named_parameters()},
        "training": {k: m.training for k, m in module.named_modules()},
        "hooks": {
            k: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for k, m in module.named_modules()
        },
    }
