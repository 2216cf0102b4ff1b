"""The warnings that an attack may be weaker than it looks."""

import warnings

import numpy as np
import pytest
import torch
from _table import make_data, make_victim
from sklearn.linear_model import LogisticRegression
from torch import nn

from skrobust.attacks import APGD, FAB, FGSM, PGD, AutoAttack
from skrobust.exceptions import (
    AttackWarning,
    MaskedGradientsWarning,
    ProbabilitiesWarning,
    RandomizedModelWarning,
    UnboundedRobustnessWarning,
    ZeroGradientsWarning,
)

X, Y = make_data(3)
CLF = LogisticRegression().fit(X, Y)


class Probabilities(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x).softmax(1)


class Steps(nn.Module):
    """Piecewise constant: as it is classified, but without gradients."""

    def __init__(self, module, width=0.05):
        super().__init__()
        self.module = module
        self.width = width

    def forward(self, x):
        return self.module(torch.round(x / self.width) * self.width)


class Noise(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x + 0.1 * torch.randn_like(x))


def quietly(attack, *arguments):
    """The result, with all of these warnings ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)
        return attack.run(*arguments)


def test_every_category_is_an_attack_warning():
    assert issubclass(AttackWarning, UserWarning)
    for category in (
        MaskedGradientsWarning,
        ProbabilitiesWarning,
        RandomizedModelWarning,
        UnboundedRobustnessWarning,
        ZeroGradientsWarning,
    ):
        assert issubclass(category, AttackWarning)


@pytest.mark.parametrize("attack", [FGSM(eps=0.1), PGD(eps=0.1, n_steps=2)], ids=["fgsm", "pgd"])
def test_probabilities(attack):
    module, X, y = make_victim("module")
    attack.run(module, X, y)  # logits: no warning, which would be an error
    with pytest.warns(ProbabilitiesWarning, match=r"(FGSM|PGD) expects logits.*without its soft"):
        attack.run(Probabilities(module), X, y)
    # Where the softmax is in sight, the view takes it off by itself.
    attack.run(nn.Sequential(module, nn.Softmax(1)), X, y)


def test_zero_gradients():
    module, X, y = make_victim("module")
    with pytest.warns(ZeroGradientsWarning, match=r"exactly zero at 100% of 16 inputs.*Square"):
        PGD(eps=0.1, n_steps=2).run(Steps(module), X, y)


def test_a_few_zero_gradients_are_no_reason():
    """A ReLU network is flat at some of the points."""
    torch.manual_seed(0)
    X = torch.randn(64, 2).numpy()
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        module[0].bias -= 0.5
    leaf = torch.from_numpy(X).requires_grad_()
    (grad,) = torch.autograd.grad(module(leaf)[:, 0].sum(), leaf)
    assert 0 < (grad == 0).all(1).sum() < 32
    PGD(eps=0.1, n_steps=2).run(module, X)


def test_random_models():
    module, X, y = make_victim("module")
    attack = PGD(eps=0.1, n_steps=2)
    with pytest.warns(RandomizedModelWarning, match=r"Set eot_samples .*version='rand'"):
        attack.run(Noise(module), X, y)
    PGD(eps=0.1, n_steps=2, eot_samples=4).run(Noise(module), X, y)
    APGD(eps=0.1, n_steps=2, eot_samples=4).run(Noise(module), X, y)
    AutoAttack(eps=0.1, version="rand").run(Noise(module), X, y)


def test_masked_gradients():
    module, X, y = make_victim("module")
    attack = AutoAttack(eps=0.5, random_state=0)
    with pytest.warns(AttackWarning) as caught:
        attack.run(Steps(module), X, y)
    messages = {w.category: str(w.message) for w in caught}
    assert set(messages) == {ZeroGradientsWarning, MaskedGradientsWarning}
    assert (
        "Square, which sees scores only, found adversarial examples for"
        in (messages[MaskedGradientsWarning])
    )
    attack.run(module, X, y)


@pytest.mark.parametrize(
    ("norm", "eps"), [("linf", 2.0), ("l2", 2.0 * np.sqrt(6)), ("l1", 12.0)], ids=str
)
def test_unbounded_eps(norm, eps):
    class Flat(nn.Module):
        def forward(self, x):
            return x @ torch.zeros(6, 3).to(x) + torch.tensor([3.0, 1, 2]).to(x)

    X = np.random.default_rng(0).uniform(-1, 1, (20, 6))
    y = np.zeros(20, dtype=int)
    warnings.simplefilter("ignore", ZeroGradientsWarning)
    attack = PGD(eps=eps, norm=norm, bounds=(-1, 1), n_steps=2)
    with pytest.warns(UnboundedRobustnessWarning, match="found nothing for 20 of 20 points"):
        attack.run(Flat(), X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnboundedRobustnessWarning)
        PGD(eps=0.999 * eps, norm=norm, bounds=(-1, 1), n_steps=2).run(Flat(), X, y)
        PGD(eps=eps, norm=norm, n_steps=2).run(Flat(), X, y)
        PGD(eps=eps, norm=norm, bounds=(-1, 1), mask=[0, 1], n_steps=2).run(Flat(), X, y)
    with pytest.warns(UnboundedRobustnessWarning, match="FAB found nothing for 20 of 20"):
        FAB(norm=norm, n_steps=2).run(Flat(), X, y)


def test_what_falls_in_an_unbounded_model_is_in_order():
    bounds = (X.min() - 20, X.max() + 20)
    attack = PGD(eps=bounds[1] - bounds[0], bounds=bounds, random_state=0)
    assert attack.run(CLF, X, Y).success.all()


def test_warnings_change_no_result():
    module, X, y = make_victim("module")
    attack = PGD(eps=0.3, n_steps=4, random_state=0)
    expected = quietly(attack, module, X, y).X_adv
    # The model is looked at by an extra pass, which must not disturb random models either.
    with torch.random.fork_rng():
        torch.manual_seed(3)
        np.testing.assert_array_equal(quietly(attack, module, X, y).X_adv, expected)
        first = quietly(attack, Noise(module), X, y).X_adv
        np.testing.assert_array_equal(quietly(attack, Noise(module), X, y).X_adv, first)
