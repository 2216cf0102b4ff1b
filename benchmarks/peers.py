"""Attacks of other libraries, run and judged alike.

foolbox, torchattacks and ART (adversarial-robustness-toolbox) come with the extra `bench`. adv-lib
needs `pip install --no-deps adv-lib`: it depends on torchvision and visdom, which none of these
attacks uses. A library that is not installed is left out of `available()`; `absent()` names it.
"""

import random
import sys
import time
import warnings
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from math import ceil, sqrt
from types import ModuleType

import numpy as np
import torch
from torch import nn

LIBRARIES = {
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "art": "adversarial-robustness-toolbox",
    "adv-lib": "adv-lib",
}
MINIMUM_NORM = {
    "CarliniWagner",
    "DeepFool",
    "DDN",
    "FMN",
    "FAB",
    "FAB-t",
    "SigmaZero",
    "HopSkipJump",
}
NUMBERS = {"l0": 0, "l1": 1, "l2": 2, "linf": float("inf")}

# (attack, norm): name in the library, its parameter for the number of steps, other parameters
_FOOLBOX = {
    ("FGSM", "linf"): ("LinfFastGradientAttack", None, {}),
    ("FGSM", "l2"): ("L2FastGradientAttack", None, {}),
    ("FGSM", "l1"): ("L1FastGradientAttack", None, {}),
    ("PGD", "linf"): ("LinfProjectedGradientDescentAttack", "steps", {}),
    ("PGD", "l2"): ("L2ProjectedGradientDescentAttack", "steps", {}),
    ("PGD", "l1"): ("L1ProjectedGradientDescentAttack", "steps", {}),
    ("CarliniWagner", "l2"): ("L2CarliniWagnerAttack", "steps", {}),
    ("DeepFool", "l2"): ("L2DeepFoolAttack", "steps", {}),
    ("DeepFool", "linf"): ("LinfDeepFoolAttack", "steps", {}),
    ("DDN", "l2"): ("DDNAttack", "steps", {}),
    ("FMN", "l0"): ("L0FMNAttack", "steps", {}),
    ("FMN", "l1"): ("L1FMNAttack", "steps", {}),
    ("FMN", "l2"): ("L2FMNAttack", "steps", {}),
    ("FMN", "linf"): ("LInfFMNAttack", "steps", {}),
    ("HopSkipJump", "l2"): ("HopSkipJumpAttack", "steps", {"constraint": "l2"}),
    ("HopSkipJump", "linf"): ("HopSkipJumpAttack", "steps", {"constraint": "linf"}),
}
_TORCHATTACKS = {
    ("FGSM", "linf"): ("FGSM", None, {}),
    ("PGD", "linf"): ("PGD", "steps", {}),
    ("PGD", "l2"): ("PGDL2", "steps", {}),
    ("APGD-ce", "linf"): ("APGD", "steps", {"norm": "Linf", "loss": "ce"}),
    ("APGD-ce", "l2"): ("APGD", "steps", {"norm": "L2", "loss": "ce"}),
    ("APGD-dlr", "linf"): ("APGD", "steps", {"norm": "Linf", "loss": "dlr"}),
    ("APGD-dlr", "l2"): ("APGD", "steps", {"norm": "L2", "loss": "dlr"}),
    ("APGD-t", "linf"): ("APGDT", "steps", {"norm": "Linf"}),
    ("APGD-t", "l2"): ("APGDT", "steps", {"norm": "L2"}),
    ("Square", "linf"): ("Square", "n_queries", {"norm": "Linf"}),
    ("Square", "l2"): ("Square", "n_queries", {"norm": "L2"}),
    ("AutoAttack", "linf"): ("AutoAttack", None, {"norm": "Linf"}),
    ("AutoAttack", "l2"): ("AutoAttack", None, {"norm": "L2"}),
    ("CarliniWagner", "l2"): ("CW", "steps", {}),
    ("DeepFool", "l2"): ("DeepFool", "steps", {}),
    # FAB returns no point beyond eps: the bound is out of the way.
    ("FAB", "linf"): ("FAB", "steps", {"norm": "Linf", "eps": 1e10}),
    ("FAB", "l2"): ("FAB", "steps", {"norm": "L2", "eps": 1e10}),
    ("FAB", "l1"): ("FAB", "steps", {"norm": "L1", "eps": 1e10}),
    ("FAB-t", "linf"): ("FAB", "steps", {"norm": "Linf", "multi_targeted": True}),
    ("FAB-t", "l2"): ("FAB", "steps", {"norm": "L2", "multi_targeted": True}),
}
_ADV_LIB = {
    ("PGD", "linf"): ("pgd_linf", "steps", {}),
    **{
        key: entry
        for norm in ("linf", "l2", "l1")
        for key, entry in {
            ("APGD-ce", norm): ("apgd", "n_iter", {"loss_function": "ce"}),
            ("APGD-dlr", norm): ("apgd", "n_iter", {"loss_function": "dlr"}),
            ("APGD-t", norm): ("apgd_targeted", "n_iter", {}),
            ("FAB", norm): ("fab", "n_iter", {}),
            ("FAB-t", norm): ("fab", "n_iter", {"targeted_restarts": True}),
        }.items()
    },
    ("CarliniWagner", "l2"): ("carlini_wagner_l2", "max_iterations", {}),
    ("DeepFool", "l2"): ("df", "steps", {"norm": 2}),
    ("DeepFool", "linf"): ("df", "steps", {"norm": float("inf")}),
    # The default rounds what it returns to 256 levels.
    ("DDN", "l2"): ("ddn", "steps", {"levels": None}),
    **{("FMN", norm): ("fmn", "steps", {"norm": number}) for norm, number in NUMBERS.items()},
    ("SigmaZero", "l0"): ("sigma_zero", "num_steps", {}),
}
# The default is five, each of as many steps.
_ONE_START = {"nb_random_init": 1, "verbose": False}
_ART = {
    **{
        key: entry
        for norm in ("linf", "l2", "l1")
        for key, entry in {
            ("FGSM", norm): ("FastGradientMethod", None, {}),
            ("PGD", norm): ("ProjectedGradientDescent", "max_iter", {"verbose": False}),
            ("APGD-ce", norm): (
                "AutoProjectedGradientDescent",
                "max_iter",
                {"loss_type": "cross_entropy", **_ONE_START},
            ),
            ("APGD-dlr", norm): (
                "AutoProjectedGradientDescent",
                "max_iter",
                {"loss_type": "difference_logits_ratio", **_ONE_START},
            ),
        }.items()
    },
    ("Square", "linf"): ("SquareAttack", "max_iter", {"verbose": False}),
    ("Square", "l2"): ("SquareAttack", "max_iter", {"verbose": False}),
    ("CarliniWagner", "l2"): ("CarliniL2Method", "max_iter", {"verbose": False}),
    ("DeepFool", "l2"): ("DeepFool", "max_iter", {"verbose": False}),
    ("HopSkipJump", "l2"): ("HopSkipJump", "max_iter", {"norm": 2, "verbose": False}),
    ("HopSkipJump", "linf"): ("HopSkipJump", "max_iter", {"norm": np.inf, "verbose": False}),
}
_TABLES = {"foolbox": _FOOLBOX, "torchattacks": _TORCHATTACKS, "art": _ART, "adv-lib": _ADV_LIB}

# (attack, norm) -> the libraries that have it
PEERS = {
    key: [library for library in LIBRARIES if key in _TABLES[library]]
    for key in dict.fromkeys(key for table in _TABLES.values() for key in table)
}

# Minimum-norm attacks that need a radius all the same: this one is done with a point at the first
# class within eps.
_NEED_RADIUS = {("torchattacks", "FAB-t")}

# The step of PGD relative to eps, where the library's own default is an absolute number: that
# number over the default eps.
_RELATIVE_STEPS = {
    ("torchattacks", "linf"): 1 / 4,
    ("torchattacks", "l2"): 1 / 5,
    ("art", "linf"): 1 / 3,
    ("art", "l2"): 1 / 3,
    ("art", "l1"): 1 / 3,
}


def available():
    """Version of every peer that is installed."""
    versions = {}
    for library, distribution in LIBRARIES.items():
        try:
            versions[library] = version(distribution)
        except PackageNotFoundError:
            continue
    return versions


def absent():
    """One sentence for every peer that is not installed."""
    return [f"{library} is absent." for library in LIBRARIES if library not in available()]


def run_peer(
    library,
    attack,
    norm,
    module,
    X,
    y,
    *,
    eps=None,
    n_steps=None,
    step_size=None,
    batch_size=256,
    random_state=0,
    **options,
):
    """Attack `module` in the box [0, 1] by a peer's own attack, with the peer's own defaults.

    Parameters
    ----------
    library, attack, norm : str
        An entry of `PEERS`.

    module : torch.nn.Module
        Gives logits; is left as it was.

    X : float32 array of shape (n_samples, ...)
    y : int64 array of shape (n_samples,)

    eps : float, default=None
        Radius of the attacks that need one; the minimum-norm attacks need none.

    n_steps : int, default=None
        Steps, iterations or queries as the library counts them; None is its default.

    step_size : float, default=None
        Step of PGD; None is what the library recommends.

    batch_size : int, default=256
        Samples that are handed to the library, or that it takes, at once.

    random_state : int, default=0
        Seeds torch, numpy and random, whose states are put back.

    **options
        Further parameters of the library's attack.

    Returns
    -------
    X_adv : array like X
    """
    name, steps, fixed = _TABLES[library][attack, norm]
    options = {**fixed, **options}
    if steps and n_steps is not None:
        options[steps] = n_steps
    if attack == "PGD":
        relative = _RELATIVE_STEPS.get((library, norm))
        if step_size is None and relative:
            step_size = relative * eps
        if step_size is not None:
            options[_STEP_NAMES[library]] = step_size
    module, restore = deepcopy(module).eval(), lambda X_adv: X_adv
    moves_squares = attack in ("Square", "AutoAttack")
    if library == "torchattacks" or moves_squares:
        module, X, restore = _as_images(module, X, square=moves_squares)
    minimal = attack in MINIMUM_NORM and (library, attack) not in _NEED_RADIUS
    radius = None if minimal else eps
    # ART makes its own batches.
    size = len(X) if library == "art" else batch_size
    with _quiet(random_state):
        parts = [
            _RUNNERS[library](name, norm, module, x, labels, radius, options, batch_size)
            for x, labels in zip(
                torch.from_numpy(X).split(size), torch.from_numpy(y).split(size), strict=True
            )
        ]
    return restore(np.concatenate([np.asarray(part, dtype=np.float32) for part in parts]))


_STEP_NAMES = {
    "foolbox": "abs_stepsize",
    "torchattacks": "alpha",
    "art": "eps_step",
    "adv-lib": "absolute_step_size",
}


def _run_foolbox(name, norm, module, x, y, eps, options, batch_size):
    import foolbox

    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    attack = getattr(foolbox.attacks, name)(**options)
    raw, clipped, _ = attack(model, x, foolbox.criteria.Misclassification(y), epsilons=eps)
    return (raw if eps is None else clipped).detach().numpy()


def _run_torchattacks(name, norm, module, x, y, eps, options, batch_size):
    import torchattacks

    if name in ("APGDT", "FAB", "AutoAttack"):
        options = {"n_classes": module(x[:1]).shape[1], **options}
    if name in ("APGD", "APGDT", "FAB", "Square", "AutoAttack"):  # they seed torch themselves
        options = {"seed": torch.initial_seed(), **options}
    if eps is not None:
        options = {"eps": eps, **options}
    return getattr(torchattacks, name)(module, **options)(x, y).detach().numpy()


def _run_adv_lib(name, norm, module, x, y, eps, options, batch_size):
    if name in ("apgd", "apgd_targeted", "fab"):
        options = {"norm": NUMBERS[norm], **options}
    if eps is not None:
        options = {"ε" if name == "pgd_linf" else "eps": eps, **options}
    return getattr(_adv_lib(), name)(module, x, y, **options).detach().numpy()


@cache
def _adv_lib():
    """adv_lib.attacks, without what adv-lib imports for its perceptual distances and plots."""
    stubs = {
        name: ModuleType(name) for name in ("torchvision", "visdom") if name not in sys.modules
    }
    for stub in stubs.values():
        stub.models = None
    sys.modules.update(stubs)
    try:
        return import_module("adv_lib.attacks")
    finally:
        for name in stubs:
            del sys.modules[name]


def _run_art(name, norm, module, x, y, eps, options, batch_size):
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        # With numpy 2 some attacks ask for float64.
        _Single(module),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=module(x[:1]).shape[1],
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    options = {"batch_size": batch_size, **options}
    if eps is not None:
        options = {"norm": np.inf if norm == "linf" else NUMBERS[norm], "eps": eps, **options}
    if name == "AutoProjectedGradientDescent":
        options = {"eps_step": eps / 3, **options}
    return getattr(evasion, name)(classifier, **options).generate(x.numpy(), y.numpy())


_RUNNERS = {
    "foolbox": _run_foolbox,
    "torchattacks": _run_torchattacks,
    "adv-lib": _run_adv_lib,
    "art": _run_art,
}


class _Single(nn.Module):
    """A module that takes inputs of any precision as float32."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x.float())


class _FromImages(nn.Module):
    """A module of flat inputs as one of images of one channel, of which it may not read the end."""

    def __init__(self, module, n_features):
        super().__init__()
        self.module = module
        self.n_features = n_features

    def forward(self, x):
        return self.module(x.flatten(1)[:, : self.n_features])


def _as_images(module, X, *, square):
    """Flat inputs as images of height one, or as square ones filled up with idle pixels.

    Attacks that move squares find no room for them in an image of height one.
    """
    if X.ndim == 4:
        return module, X, lambda X_adv: X_adv
    n_samples, n_features = X.shape
    height, width = (ceil(sqrt(n_features)),) * 2 if square else (1, n_features)
    images = np.zeros((n_samples, height * width), X.dtype)
    images[:, :n_features] = X
    return (
        _FromImages(module, n_features),
        images.reshape(n_samples, 1, height, width),
        lambda X_adv: X_adv.reshape(n_samples, -1)[:, :n_features],
    )


@contextmanager
def _quiet(seed):
    """Seed the generators that peers draw from, put them back, and mute warnings."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def judge(module, X, y, X_adv, norm, eps=None, *, minimal=False):
    """Judge adversarial points by the module's own argmax, the box [0, 1] and their norms.

    A point fails, and counts as infinitely far, if it is not misclassified, leaves the box by more
    than 1e-6, or, unless `minimal`, lies more than 1e-4 * eps outside the ball. A sample that is
    misclassified as it is has norm 0, whatever was returned for it.

    Returns
    -------
    dict with
        robust_accuracy : share of samples whose norm is above eps; without eps, infinite
        median_norm : over all samples
        success_rate : share of finite norms among the samples that were classified correctly
    """
    X_adv = np.asarray(X_adv, dtype=np.float32).reshape(X.shape)
    correct = _predict(module, X) == y
    norms = _norms(X_adv.astype(np.float64) - X, norm)
    inside = (np.nan_to_num(X_adv, nan=np.inf) >= -1e-6) & (X_adv <= 1 + 1e-6)
    fails = (_predict(module, X_adv) == y) | ~inside.reshape(len(X), -1).all(axis=1)
    radius = np.inf if eps is None else eps * (1 + 1e-4)
    if not minimal:
        fails |= norms > radius
    norms[fails] = np.inf
    norms[~correct] = 0
    return {
        "robust_accuracy": float(np.mean(np.isinf(norms) | (norms > radius))),
        "median_norm": float(np.median(norms)),
        "success_rate": float(np.isfinite(norms[correct]).mean()) if correct.any() else 1.0,
    }


def _norms(delta, norm):
    delta = np.abs(delta.reshape(len(delta), -1))
    if norm == "linf":
        return delta.max(axis=1)
    if norm == "l0":
        return np.count_nonzero(delta, axis=1).astype(float)
    return delta.sum(axis=1) if norm == "l1" else np.sqrt((delta**2).sum(axis=1))


@torch.no_grad()
def _predict(module, X, batch_size=256):
    parts = torch.from_numpy(np.ascontiguousarray(X)).split(batch_size)
    return torch.cat([module(part).argmax(1) for part in parts]).numpy()


class _Counter(nn.Module):
    """Counts the rows that pass forward through a module."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.count = [0]  # shared by copies

    def __deepcopy__(self, memo):
        copy = _Counter(deepcopy(self.module, memo))
        copy.count = self.count
        return copy

    def forward(self, x):
        self.count[0] += len(x)
        return self.module(x)


def measure(library, attack, norm, module, X, y, *, eps=None, n_steps=None, **options):
    """Run a peer once; a dict with judge's figures, or the error, and what the run has cost.

    `cpu_seconds` is of the process, `seconds` of the clock; `queries` are the rows that passed
    forward through the module, a sample.
    """
    counter = _Counter(module)
    record = {
        "library": library,
        "attack": attack,
        "norm": norm,
        "eps": eps,
        "n_points": len(X),
        "steps": n_steps,
        **({"options": options} if options else {}),
    }
    clock, cpu = time.perf_counter(), time.process_time()
    X_adv, failure = None, {}
    try:
        X_adv = run_peer(library, attack, norm, counter, X, y, eps=eps, n_steps=n_steps, **options)
    except Exception as error:  # a peer's failure is a result, too
        failure = {"error": f"{type(error).__name__}: {error}"[:300]}
    cost = {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - cpu,
        "queries": counter.count[0] / len(X),
    }
    if failure:
        return {**record, **failure, **cost}
    minimal = attack in MINIMUM_NORM
    return {**record, **judge(module, X, y, X_adv, norm, eps, minimal=minimal), **cost}


def hop_skip_jump(predict, n_classes, norm, n_steps, x, labels, starts, *, random_state=0):
    """Foolbox's HopSkipJump in [0, 1] on what only predicts.

    Parameters
    ----------
    predict : callable
        From a tensor of points to positions of classes, an array.

    n_classes : int

    norm : {"linf", "l2"}

    n_steps : int

    x : float32 tensor of shape (n_samples, n_features)
    labels : int64 array of shape (n_samples,)
        What `predict` gives for `x`.

    starts : tensor like x
        Points of another class.

    random_state : int, default=0
        As for `run_peer`.

    Returns
    -------
    X_adv : tensor like x
        Points at which it raised an error are those of x.

    cost : dict
        The number of these points, seconds, and queries a sample.
    """
    model = _Decisions(predict, n_classes).eval()
    clock, cpu = time.perf_counter(), time.process_time()
    with _quiet(random_state):
        X_adv, n_errors = _hop_skip_jump(model, norm, n_steps, x, torch.from_numpy(labels), starts)
    return X_adv, {
        "n_errors": n_errors,
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - cpu,
        "queries": model.n_rows / len(x),
    }


class _Decisions(nn.Module):
    """Classes as the logits that peers ask for, and the number of rows that were predicted."""

    def __init__(self, predict, n_classes):
        super().__init__()
        self.predict, self.n_classes = predict, n_classes
        self.n_rows = 0

    def forward(self, x):
        self.n_rows += len(x)
        return nn.functional.one_hot(torch.from_numpy(self.predict(x)), self.n_classes).float()


def _hop_skip_jump(model, norm, n_steps, x, y, starts):
    import foolbox

    class HopSkipJump(foolbox.attacks.HopSkipJumpAttack):
        """Foolbox divides the directions by the norm of the whole batch: steps would be short."""

        def approximate_gradients(self, *args):
            directions = super().approximate_gradients(*args)
            return directions / directions.norms.l2(axis=1, keepdims=True).maximum(1e-12)

    attack = HopSkipJump(steps=n_steps, constraint=norm)
    network = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    goal = foolbox.criteria.Misclassification(y)
    try:
        return attack(network, x, goal, epsilons=None, starting_points=starts)[0], 0
    except (AssertionError, ValueError):  # one point is enough
        if len(x) == 1:
            return x, 1
    halves = zip(*(part.tensor_split(2) for part in (x, y, starts)), strict=True)
    parts = [_hop_skip_jump(model, norm, n_steps, *half) for half in halves]
    return torch.cat([found for found, _ in parts]), sum(n_errors for _, n_errors in parts)
