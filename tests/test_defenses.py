"""Defenses: one registry for the contract that all of them keep, and tests of each loss."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from scipy.stats import norm as normal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.nn.functional import cross_entropy

from skrobust import RobustClassifier, defenses
from skrobust.defenses import (
    MACER,
    TRADES,
    AdversarialTraining,
    BaseDefense,
    Consistency,
    GaussianAugmentation,
    InputGradientRegularization,
    NoiseAugmentation,
    SmoothAdv,
    Stability,
    StandardTraining,
)
from skrobust.defenses._smooth_adv import SmoothedCrossEntropy
from skrobust.smoothing import GaussianNoise, LaplaceNoise, UniformNoise
from skrobust.threat import ThreatModel
from skrobust.utils._random import make_generator


@dataclass
class Row:
    """A defense of the registry: all that the common tests need.

    Attributes
    ----------
    defense : BaseDefense
        For inputs with 5 features.

    is_random : bool
        Whether the loss depends on the generator.

    for_images : BaseDefense or None
        For images of shape (3, 2, 2); None means the same as ``defense``.

    invalid : sequence of dict
        Parameter values that must be refused.
    """

    defense: BaseDefense
    is_random: bool = True
    for_images: BaseDefense | None = None
    invalid: Sequence[dict] = ()


# A new defense gets a row here, and all common tests run on it.
DEFENSES = {
    "standard": Row(StandardTraining(), is_random=False),
    "noise": Row(GaussianAugmentation(0.3), invalid=[{"sigma": -0.1}]),
    "noise per feature": Row(
        GaussianAugmentation([0.1, 0.2, 0.3, 0.4, 0.5]),
        for_images=GaussianAugmentation(np.linspace(0, 1, 12).reshape(3, 2, 2)),
    ),
    "uniform noise": Row(
        NoiseAugmentation(UniformNoise().fit(np.zeros((1, 5)), sigma=0.3)),
        invalid=[{"noise": "uniform"}, {"noise": None}],
    ),
    "adversarial": Row(
        AdversarialTraining(n_steps=4),
        invalid=[{"n_steps": 0}, {"step_size": 0}, {"random_start": 2}],
    ),
    "adversarial from the input": Row(
        AdversarialTraining(n_steps=3, random_start=False), is_random=False
    ),
    "adversarial step size": Row(AdversarialTraining(n_steps=3, step_size=0.05)),
    "TRADES": Row(TRADES(n_steps=4), invalid=[{"beta": -1}, {"n_steps": 0}, {"step_size": 0}]),
    "gradient": Row(InputGradientRegularization(2.0), is_random=False, invalid=[{"weight": "1"}]),
    "SmoothAdv": Row(
        SmoothAdv(0.3),
        invalid=[{"sigma": -0.1}, {"n_noise": 0}, {"n_steps": 0}, {"step_size": 0}],
    ),
    "SmoothAdv step size": Row(SmoothAdv(0.3, n_noise=3, n_steps=2, step_size=0.05)),
    "MACER": Row(
        MACER(0.3),
        invalid=[
            {"sigma": -0.1},
            {"n_noise": 0},
            {"weight": -1},
            {"gamma": -1},
            {"inverse_temperature": 0},
        ],
    ),
    "consistency": Row(
        Consistency(0.3),
        invalid=[{"sigma": -0.1}, {"weight": -1}, {"entropy_weight": -1}, {"n_noise": 1}],
    ),
    "stability": Row(Stability(0.3), invalid=[{"sigma": -0.1}, {"weight": -1}]),
}
every_defense = pytest.mark.parametrize("name", DEFENSES)
WITH_SIGMA = [name for name, row in DEFENSES.items() if "sigma" in row.defense.get_params()]
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
DUALS = {"linf": 1, "l2": 2, "l1": np.inf}
every_norm = pytest.mark.parametrize("norm", ORDERS)


def make_model(n_classes=3):
    """Dropout and batch normalisation: what depends on the mode, and changes in it."""
    with torch.random.fork_rng():
        torch.manual_seed(n_classes)
        return nn.Sequential(
            nn.Linear(5, 16),
            nn.BatchNorm1d(16),
            nn.Tanh(),
            nn.Dropout(0.2),
            nn.Linear(16, n_classes),
        )


def make_smooth_model(n_classes=3):
    model = make_model(n_classes)
    return nn.Sequential(model[0], model[2], model[4])


def make_batch(n_classes=3, n_samples=32, dtype=torch.float32):
    generator = make_generator(n_classes)
    x = torch.rand(n_samples, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(n_classes, (n_samples,), generator=generator)
    return x.to(dtype), y


def loss_of(defense, model, x, y, threat=None, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout
        return defense.loss(model, x, y, threat or ThreatModel(0.1), make_generator(seed))


def test_every_public_defense_is_in_the_registry():
    public = {getattr(defenses, name) for name in defenses.__all__} - {BaseDefense}
    assert {type(row.defense) for row in DEFENSES.values()} == public


@every_norm
@pytest.mark.parametrize("n_classes", [2, 3])
@every_defense
def test_contract(name, n_classes, norm):
    model, (x, y) = make_model(n_classes), make_batch(n_classes)
    model[2].eval()  # the mode of each submodule is its own
    modes = [m.training for m in model.modules()]
    x_before, y_before = x.clone(), y.clone()
    threat = ThreatModel(0.2, norm, (0, 1), [True, True, False, True, True])
    losses, logits = loss_of(DEFENSES[name].defense, model, x, y, threat)
    assert losses.shape == (32,)
    assert logits.shape == (32, n_classes)
    assert losses.isfinite().all()
    assert (losses >= 0).all()
    assert losses.dtype == x.dtype
    assert all(p.grad is None for p in model.parameters())
    losses.mean().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert model[0].weight.grad.abs().max() > 0
    assert all(p.requires_grad for p in model.parameters())
    assert [m.training for m in model.modules()] == modes
    assert not x.requires_grad
    assert x.grad is None
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)


@every_defense
def test_the_generator_decides(name):
    model, (x, y) = make_smooth_model(), make_batch()
    with torch.no_grad():
        model[0].weight.mul_(10)  # so curved that not all starts end in one corner
    first, second, other = (
        loss_of(DEFENSES[name].defense, model, x, y, seed=s)[0] for s in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert torch.equal(first, other) == (not DEFENSES[name].is_random)


@every_defense
def test_global_random_state_is_left_alone(name):
    model, (x, y) = make_smooth_model(), make_batch()
    before = torch.get_rng_state()
    DEFENSES[name].defense.loss(model, x, y, ThreatModel(0.1), make_generator(0))
    assert torch.equal(torch.get_rng_state(), before)


@every_defense
def test_images(name):
    defense = DEFENSES[name].for_images or DEFENSES[name].defense
    x = torch.rand(7, 3, 2, 2, generator=make_generator(0))
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(4, 3))
    threat = ThreatModel(np.full((3, 2, 2), 0.1), "l2", (0, 1))
    losses, logits = loss_of(defense, model, x, torch.arange(7) % 3, threat)
    assert losses.shape == (7,)
    assert logits.shape == (7, 3)


@every_defense
def test_one_pass_in_training_mode(name):
    """What happens to the statistics of a batch happens once."""
    model, (x, y) = make_model(), make_batch()
    loss_of(DEFENSES[name].defense, model, x, y)
    assert model[1].num_batches_tracked == 1


@every_defense
def test_parameters_are_checked(name):
    defense = DEFENSES[name].defense
    clone(defense)._validate_params()
    for parameters in DEFENSES[name].invalid:
        wrong = clone(defense).set_params(**parameters)
        with pytest.raises(ValueError, match=f"parameter of {type(wrong).__name__} must be"):
            wrong._validate_params()


@pytest.mark.parametrize("name", WITH_SIGMA)
def test_a_wrong_number_of_sigmas(name):
    defense = clone(DEFENSES[name].defense).set_params(sigma=[0.1, 0.2])
    with pytest.raises(ValueError, match="sigma has 2 values, but X has 5 features"):
        loss_of(defense, make_smooth_model(), *make_batch())


@every_defense
def test_clone_pickle_repr(name):
    defense, model, (x, y) = DEFENSES[name].defense, make_smooth_model(), make_batch()
    losses = loss_of(defense, model, x, y)[0]
    for copied in (clone(defense), pickle.loads(pickle.dumps(defense))):
        assert copied is not defense
        assert repr(copied) == repr(defense)
        assert torch.equal(loss_of(copied, model, x, y)[0], losses)


@every_defense
def test_training(name):
    x, y = make_batch()
    classifier = RobustClassifier(
        defense=DEFENSES[name].defense, module__hidden=(4,), max_epochs=2, random_state=0
    ).fit(x.numpy(), y.numpy())
    assert np.isfinite(classifier.history_[:, "train_loss"]).all()
    again = clone(classifier).fit(x.numpy(), y.numpy())
    assert_array_equal(again.decision_function(x), classifier.decision_function(x))


def test_base_defense_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        BaseDefense()


# ------------------------------------------------------------------------------------------------
# What each of them computes


def test_standard_is_cross_entropy():
    model, (x, y) = make_smooth_model(), make_batch()
    losses, logits = loss_of(StandardTraining(), model, x, y)
    assert torch.equal(logits, model(x))
    by_hand = -log_softmax(logits.detach().numpy(), axis=1)[np.arange(32), y]
    assert_allclose(losses.detach(), by_hand, rtol=1e-5)


@every_norm
@pytest.mark.parametrize("n_classes", [2, 3])
def test_attacks_are_no_weaker_than_nothing(n_classes, norm):
    model, (x, y) = make_smooth_model(n_classes), make_batch(n_classes)
    threat = ThreatModel(0.2, norm, (0, 1))
    clean = loss_of(StandardTraining(), model, x, y)[0]
    for defense in (AdversarialTraining(), AdversarialTraining(random_start=False)):
        assert (loss_of(defense, model, x, y, threat)[0] > clean).all()
    assert (loss_of(TRADES(), model, x, y, threat)[0] > clean).all()
    nowhere = ThreatModel(0.0, norm)
    for defense in (AdversarialTraining(), TRADES()):
        assert_allclose(
            loss_of(defense, model, x, y, nowhere)[0].detach(), clean.detach(), rtol=1e-5
        )


@every_norm
def test_adversarial_training_is_exact_on_linear_models(norm):
    """For two classes the worst loss in the ball is known."""
    model, (x, y) = nn.Linear(5, 2).double(), make_batch(2, dtype=torch.float64)
    eps = np.array([0.1, 0.2, 0.0, 0.3, 0.1])
    direction = (model.weight[1] - model.weight[0]).detach().numpy()
    logits = model(x).detach().numpy()
    margin = np.where(y == 1, 1, -1) * (logits[:, 1] - logits[:, 0])
    margin -= np.linalg.norm(eps * direction, DUALS[norm])
    worst = np.logaddexp(0, -margin)
    threat = ThreatModel(eps, norm)
    steps = {"linf": 2, "l2": 50, "l1": 50}[norm]
    losses = loss_of(AdversarialTraining(n_steps=steps), model, x, y, threat)[0].detach().numpy()
    assert (losses <= worst + 1e-12).all()
    assert_allclose(losses, worst, rtol={"linf": 1e-12, "l2": 1e-3, "l1": 1e-2}[norm])


def test_more_steps_are_stronger():
    model, (x, y) = make_smooth_model(), make_batch(n_samples=256)
    with torch.no_grad():
        model[0].weight.mul_(8)
    weak, strong = (
        loss_of(AdversarialTraining(n_steps=n), model, x, y, ThreatModel(0.3))[0].mean()
        for n in (1, 20)
    )
    assert strong > 1.05 * weak


@pytest.mark.parametrize("name", ["adversarial", "adversarial step size", "TRADES"])
@every_norm
def test_attacks_stay_in_the_threat_model(name, norm):
    model, (x, y) = make_smooth_model(), make_batch()
    mask = [True, False, True, True, False]
    threat = ThreatModel(0.3, norm, (0.0, 1.0), mask)
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    loss_of(DEFENSES[name].defense, model, x, y, threat)
    for z in torch.cat(seen).split(32):
        assert z.min() >= -1e-6
        assert z.max() <= 1 + 1e-6
        assert torch.equal(z[:, [1, 4]], x[:, [1, 4]])
        distance = np.linalg.norm((z - x).numpy(), ORDERS[norm], axis=1)
        assert distance.max() <= 0.3 + 1e-6
    assert distance.max() > 0.15  # the last ones are adversarial


def test_trades_without_divergence_is_standard():
    model, (x, y) = make_smooth_model(), make_batch()
    clean, logits = loss_of(StandardTraining(), model, x, y)
    losses, logits_trades = loss_of(TRADES(beta=0.0), model, x, y)
    assert_allclose(losses.detach(), clean.detach(), rtol=1e-6)
    assert_allclose(logits_trades.detach(), logits.detach(), rtol=1e-5)


def test_trades_is_cross_entropy_plus_divergence():
    model, (x, y) = make_smooth_model(), make_batch(dtype=torch.float64)
    model.double()
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    losses = loss_of(TRADES(beta=2.5), model, x, y)[0].detach().numpy()
    z = seen[-1][32:]
    assert torch.equal(seen[-1][:32], x)
    logits, logits_adv = model(x).detach().numpy(), model(z).detach().numpy()
    p = softmax(logits, axis=1)
    clean = -log_softmax(logits, axis=1)[np.arange(32), y]
    divergence = (p * (log_softmax(logits, axis=1) - log_softmax(logits_adv, axis=1))).sum(1)
    assert (divergence > 0).all()
    assert_allclose(losses, clean + 2.5 * divergence, rtol=1e-10)
    # beta goes in linearly.
    more = loss_of(TRADES(beta=5.0), model, x, y)[0].detach().numpy()
    assert_allclose(more - losses, losses - clean, rtol=1e-8)


def test_trades_climbs_the_divergence():
    model, (x, y) = make_smooth_model(), make_batch(dtype=torch.float64)
    model.double()
    threat = ThreatModel(0.3)
    drawn = threat.random_start(x, make_generator(0))
    with torch.no_grad():
        log_p, log_q = model(x).log_softmax(1), model(drawn).log_softmax(1)
        at_random = (log_p.exp() * (log_p - log_q)).sum(1)
    climbed = loss_of(TRADES(beta=1.0), model, x, y, threat)[0] - cross_entropy(
        model(x), y, reduction="none"
    )
    assert (climbed > at_random).all()
    assert climbed.mean() > 2 * at_random.mean()


@every_norm
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "eps", [0.3, np.array([0.1, 0.2, 0.0, 0.3, 0.5])], ids=["eps", "per feature"]
)
def test_gradient_penalty_on_a_linear_model(eps, masked, norm):
    model, (x, y) = nn.Linear(5, 3).double(), make_batch(dtype=torch.float64)
    mask = np.array([True, False, True, True, False]) if masked else np.ones(5, dtype=bool)
    threat = ThreatModel(eps, norm, bounds=(0, 1), mask=mask if masked else None)
    clean = cross_entropy(model(x), y, reduction="none").detach().numpy()
    weight = model.weight.detach().numpy()
    grad = (softmax(model(x).detach().numpy(), axis=1) - np.eye(3)[y]) @ weight
    penalty = np.linalg.norm(mask * eps * grad, DUALS[norm], axis=1)
    assert (penalty > 0).all()
    for factor in (0.0, 1.0, 2.5):
        defense = InputGradientRegularization(factor)
        losses = loss_of(defense, model, x, y, threat)[0].detach().numpy()
        assert_allclose(losses, clean + factor * penalty, rtol=1e-10)
    assert_allclose(threat.dual_norm(torch.from_numpy(grad)), penalty, rtol=1e-12)


def test_gradient_penalty_has_gradients():
    """Those of the penalty, and not of the loss alone: compared with finite differences."""
    model, (x, y) = make_smooth_model().double(), make_batch(dtype=torch.float64)

    def penalised():
        return loss_of(InputGradientRegularization(3.0), model, x, y)[0].sum()

    penalised().backward()
    weight = model[0].weight
    step = 1e-6
    with torch.no_grad():
        weight[2, 3] += step
    above = penalised().item()
    with torch.no_grad():
        weight[2, 3] -= 2 * step
    below = penalised().item()
    assert_allclose(weight.grad[2, 3], (above - below) / (2 * step), rtol=1e-5)
    clean = cross_entropy(model(x), y, reduction="sum")
    (alone,) = torch.autograd.grad(clean, weight)
    assert abs(alone[2, 3] - weight.grad[2, 3]) > 1e-2 * abs(alone[2, 3])


def test_gradient_penalty_where_the_gradient_vanishes():
    """A norm has no gradient at zero, which must not become NaN."""
    model = nn.Linear(5, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    x, y = make_batch(2)
    for norm in ORDERS:
        model.zero_grad()
        losses, _ = loss_of(InputGradientRegularization(), model, x, y, ThreatModel(0.1, norm))
        losses.mean().backward()
        assert model.weight.grad.isfinite().all()


def test_gaussian_augmentation():
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            seen.append(x.detach().clone())
            return super().forward(x)

    sigma = np.array([0.0, 0.1, 0.5, 1.0, 2.0])
    x, y = make_batch(2, 20_000)
    # Neither ball nor box nor mask are heeded.
    threat = ThreatModel(1e-3, bounds=(0, 1), mask=[True, True, True, True, False])
    losses, logits = loss_of(GaussianAugmentation(sigma), Spy(5, 2), x, y, threat)
    noise = (seen[0] - x).double().numpy()
    assert (noise[:, 0] == 0).all()
    assert_allclose(noise.std(axis=0), sigma, rtol=0.02, atol=1e-7)
    assert (np.abs(noise.mean(axis=0)) <= 4 * sigma / np.sqrt(20_000)).all()
    scaled = noise[:, 1:] / sigma[1:]
    assert_allclose((scaled**4).mean(axis=0), 3, rtol=0.1)
    assert_allclose(np.corrcoef(scaled.T), np.eye(4), atol=0.03)
    assert_allclose(losses.detach(), cross_entropy(logits, y, reduction="none").detach())
    loss_of(GaussianAugmentation(0.25), Spy(5, 2), x, y)
    assert_allclose((seen[1] - x).std(dim=0), 0.25, rtol=0.02)


def test_gaussian_augmentation_without_noise_is_standard():
    model, (x, y) = make_smooth_model(), make_batch()
    losses = loss_of(GaussianAugmentation(0.0), model, x, y)[0]
    assert torch.equal(losses, loss_of(StandardTraining(), model, x, y)[0])


def test_noise_augmentation_is_cross_entropy_at_noisy_inputs():
    model, (x, y) = make_smooth_model(), make_batch(n_samples=5000)
    seen = inputs_of_model(model)
    noise = UniformNoise().fit(np.zeros((1, 5)), sigma=0.3, scale=np.arange(5.0))
    losses, logits = loss_of(NoiseAugmentation(noise), model, x, y)
    assert_allclose(losses.detach(), cross_entropy(logits, y, reduction="none").detach())
    added = (seen[0] - x).numpy()
    half_width = 0.3 * np.sqrt(3) * np.arange(5)
    assert (np.abs(added) <= half_width + 1e-6).all()
    assert_allclose(np.abs(added).max(axis=0), half_width, rtol=0.01)


def test_noise_augmentation():
    x, y = make_batch(2, 20_000, dtype=torch.float64)
    scale = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    defense = NoiseAugmentation(GaussianNoise().fit(np.zeros((1, 5)), 0.3, scale))
    model = make_smooth_model().double()
    seen = inputs_of_model(model)
    losses, logits = loss_of(defense, model, x, y)
    noise = (seen[0] - x).numpy()
    assert_allclose(noise.std(axis=0), 0.3 * scale, rtol=0.02)
    assert_allclose(np.corrcoef(noise.T), np.eye(5), atol=0.03)
    assert_allclose(losses.detach(), cross_entropy(logits, y, reduction="none").detach())


def test_noise_augmentation_needs_fitted_noise_and_keeps_it():
    X, y = np.arange(10.0).reshape(5, 2), [0, 1, 0, 1, 1]
    with pytest.raises(NotFittedError, match="LaplaceNoise"):
        RobustClassifier(defense=NoiseAugmentation(LaplaceNoise())).fit(X, y)
    defense = NoiseAugmentation(LaplaceNoise().fit(X, 0.3))
    clf = clone(RobustClassifier(defense=defense, max_epochs=1))
    assert clf.fit(X, y).defense.noise.sigma_ == 0.3
    assert clf.defense is not defense


# ------------------------------------------------------------------------------------------------
# Training for randomised smoothing

SMOOTHING = {
    "SmoothAdv": SmoothAdv(n_noise=3),
    "MACER": MACER(n_noise=3),
    "consistency": Consistency(n_noise=3),
    "stability": Stability(),
}
SIGMAS = {"sigma": 0.4, "per feature": np.array([0.0, 0.1, 0.5, 1.0, 2.0])}
every_smoothing = pytest.mark.parametrize("name", SMOOTHING)
every_sigma = pytest.mark.parametrize("sigma", SIGMAS.values(), ids=SIGMAS)


def noise_of(x, sigma, n_copies, seed=0):
    """What a defense draws from an equal generator."""
    shape = (n_copies, *x.shape)
    noise = torch.randn(shape, generator=make_generator(seed), dtype=x.dtype)
    return noise * torch.tensor(sigma, dtype=x.dtype)


def make_curved_model(n_classes=3):
    model = make_smooth_model(n_classes).double()
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[2].weight.mul_(3)
    return model


def inputs_of_model(model):
    """Where what the model is called with in future is kept."""
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    return seen


def predictions(model, copies):
    """Softmax and its logarithm of shape (n_copies, n, n_classes), by scipy."""
    logits = np.stack([model(copy).detach().numpy() for copy in copies])
    return softmax(logits, axis=2), log_softmax(logits, axis=2)


@every_sigma
@every_smoothing
def test_noisy_copies(name, sigma):
    """All defenses for smoothing draw the same noise; the first copy counts in the history."""
    model, (x, y) = make_curved_model(), make_batch(dtype=torch.float64)
    seen = inputs_of_model(model)
    threat = ThreatModel(0.0)  # the attack of SmoothAdv stays where it is
    defense = clone(SMOOTHING[name]).set_params(sigma=sigma)
    _, logits = loss_of(defense, model, x, y, threat)
    noisy = x + noise_of(x, sigma, 1 if name == "stability" else 3)
    expected = torch.cat([x[None], noisy]) if name == "stability" else noisy
    assert_allclose(seen[-1], expected.flatten(0, 1), rtol=1e-14)
    assert_allclose(logits.detach(), model(noisy[0]).detach(), rtol=1e-10)


@every_sigma
def test_consistency_is_cross_entropy_divergence_and_entropy(sigma):
    model, (x, y) = make_curved_model(), make_batch(dtype=torch.float64)
    p, log_p = predictions(model, x + noise_of(x, sigma, 3))
    mean = p.mean(axis=0)
    clean = -log_p[:, np.arange(32), y].mean(axis=0)
    divergence = np.mean([kl(mean, p_j) for p_j in p], axis=0)
    entropy = -(mean * np.log(mean)).sum(axis=1)
    assert divergence.mean() > 0.01
    defense = Consistency(sigma, weight=3.0, entropy_weight=0.7, n_noise=3)
    losses = loss_of(defense, model, x, y)[0].detach()
    assert_allclose(losses, clean + 3.0 * divergence + 0.7 * entropy, rtol=1e-10)


def kl(p, q):
    return (p * np.log(p / q)).sum(axis=1)


@every_sigma
def test_stability_is_cross_entropy_of_labels_and_of_clean_predictions(sigma):
    model, (x, y) = make_curved_model(), make_batch(dtype=torch.float64)
    (p, _), (log_p, log_p_noisy) = predictions(model, [x, x + noise_of(x, sigma, 1)[0]])
    expected = -log_p[np.arange(32), y] - 3.0 * (p * log_p_noisy).sum(axis=1)
    losses = loss_of(Stability(sigma, weight=3.0), model, x, y)[0]
    assert_allclose(losses.detach(), expected, rtol=1e-10)


def test_stability_has_gradients_through_both_predictions():
    model, (x, y) = make_curved_model(), make_batch(dtype=torch.float64)
    logits = []
    model.register_forward_hook(lambda *args: logits.append(args[2]))
    losses = loss_of(Stability(0.4, weight=3.0), model, x, y)[0]
    (grad,) = torch.autograd.grad(losses.sum(), logits[0])
    z, z_noisy = (half.detach().numpy() for half in logits[0].chunk(2))
    p, log_q = softmax(z, axis=1), log_softmax(z_noisy, axis=1)
    mean_log_q = (p * log_q).sum(axis=1, keepdims=True)
    clean = p - np.eye(3)[y] - 3.0 * p * (log_q - mean_log_q)
    assert_allclose(grad[:32], clean, rtol=1e-8, atol=1e-12)
    assert_allclose(grad[32:], 3.0 * (np.exp(log_q) - p), rtol=1e-8, atol=1e-12)


@every_sigma
@pytest.mark.parametrize("n_classes", [2, 4])
def test_macer_is_cross_entropy_and_what_is_missing_of_the_radius(n_classes, sigma):
    model, (x, y) = make_curved_model(n_classes), make_batch(n_classes, dtype=torch.float64)
    noisy = x + noise_of(x, sigma, 5)
    row = np.arange(32)
    expected = -np.log(predictions(model, noisy)[0].mean(axis=0)[row, y])
    scaled = nn.Sequential(model, Times(2.0))
    p = predictions(scaled, noisy)[0].mean(axis=0)
    others = p.copy()
    others[row, y] = 0.0
    xi = normal.ppf(p[row, y]) - normal.ppf(others.max(axis=1))
    right = p.argmax(axis=1) == y.numpy()
    robustness = np.where(right, np.maximum(1.5 - xi, 0), 0.0)
    missing = right & (xi < 1.5)
    assert missing.any()
    assert (xi >= 1.5).any()
    assert (~right).any()
    unit = 1.0 if np.ndim(sigma) else sigma
    defense = MACER(sigma, n_noise=5, weight=3.0, gamma=1.5, inverse_temperature=2.0)
    losses = loss_of(defense, model, x, y)[0].detach().numpy()
    assert_allclose(losses, expected + 3.0 * unit / 2 * robustness, rtol=1e-8)
    # Without the weight there is nothing but cross-entropy; where it differs is known.
    defense.set_params(weight=0.0)
    without = loss_of(defense, model, x, y)[0].detach().numpy()
    assert_allclose(without, expected, rtol=1e-8)
    assert ((losses > without) == missing).all()


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smoothing_where_predictions_are_saturated(dtype, n_classes):
    """Losses and gradients are finite, with logits of +-100 for and against the label."""
    y = torch.arange(n_classes).repeat_interleave(n_classes)
    likeliest = torch.arange(n_classes).repeat(n_classes)
    x = (200 * torch.eye(n_classes, dtype=dtype)[likeliest] - 100).requires_grad_()
    model = nn.Identity()  # the input is the logits
    right = likeliest == y
    for defense in SMOOTHING.values():
        defense = clone(defense).set_params(sigma=1.0)
        logits = []
        losses, _ = loss_of(defense, Keeps(model, logits), x, y, ThreatModel(1.0))
        (grad,) = torch.autograd.grad(losses.sum(), logits[-1])
        assert losses.isfinite().all()
        assert grad.isfinite().all()
        assert (losses[right] < 1e-3).all()
        assert (losses[~right] > 150).all()
        assert grad.abs().max() > 0.1


class Keeps(nn.Module):
    """Keeps what it returns."""

    def __init__(self, module, kept):
        super().__init__()
        self.module = module
        self.kept = kept

    def forward(self, x):
        self.kept.append(self.module(x).requires_grad_())
        return self.kept[-1]


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("scale", [0.1, 3.0, 10.0])
def test_grad_logits_of_smooth_adv_is_the_gradient(scale, n_classes):
    generator = make_generator(0)
    n_copies, n = 4, 50
    shape = (n_copies * n, n_classes)
    logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    y = torch.randint(n_classes, (n,), generator=generator)
    p = logits.softmax(1).view(n_copies, n, n_classes)
    value = -p.mean(0).gather(1, y[:, None]).log()
    (grad,) = torch.autograd.grad(value.sum(), logits)
    direction = SmoothedCrossEntropy(y.repeat(n_copies), n_copies).grad_logits(logits.detach())
    # The same for all copies of a sample up to one positive factor.
    grad, direction = (
        g.view(n_copies, n, -1).transpose(0, 1).flatten(1) for g in (grad, direction)
    )
    grad, direction = (g / g.norm(dim=1, keepdim=True) for g in (grad, direction))
    assert_allclose(direction, grad, rtol=1e-6, atol=1e-8)


def test_grad_logits_of_smooth_adv_does_not_vanish():
    """Where autograd's gradient is zero or NaN: all copies are sure, one less than the other."""
    for sign in (1, -1):
        logits = sign * torch.tensor([[200.0, -200.0], [150.0, -150.0]])
        direction = SmoothedCrossEntropy(torch.tensor([0, 0]), 2).grad_logits(logits)
        assert_allclose(direction, [[0, 0], [-1, 1]], atol=1e-30)
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]])
    direction = SmoothedCrossEntropy(torch.tensor([0, 0]), 2).grad_logits(logits)
    assert_allclose(direction, [[-0.5, 0.5], [-0.5, 0.5]])


@every_norm
def test_smooth_adv_attacks_the_smoothed_classifier(norm):
    """Averages cross-entropy at noisy copies of a point in the threat model with a larger loss."""
    model, (x, y) = make_curved_model(), make_batch(dtype=torch.float64)
    mask = [True, False, True, True, False]
    threat = ThreatModel(0.3, norm, (0.0, 1.0), mask)
    seen = inputs_of_model(model)
    losses = loss_of(SmoothAdv(0.4, n_noise=3, n_steps=5), model, x, y, threat)[0].detach()
    noise = noise_of(x, 0.4, 3)
    points = seen[-1].view(3, 32, 5) - noise
    z = points[0]
    assert_allclose(points[1:], z.expand(2, -1, -1), atol=1e-12)  # one point, not one a copy
    assert z.min() >= -1e-12
    assert z.max() <= 1 + 1e-12
    assert_allclose(z[:, [1, 4]], x[:, [1, 4]], atol=1e-12)
    distance = np.linalg.norm(z - x, ORDERS[norm], axis=1)
    assert distance.max() <= 0.3 + 1e-9
    assert distance.min() > 0.01
    p, log_p = predictions(model, z + noise)
    assert_allclose(losses, -log_p[:, np.arange(32), y].mean(axis=0), rtol=1e-8)
    before = predictions(model, x + noise)[0]
    own = (np.arange(32), y)
    assert (p.mean(axis=0)[own] < before.mean(axis=0)[own]).all()


def test_smooth_adv_climbs_to_the_worst_point():
    """On one feature, against enumeration of the ball."""
    torch_model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    generator = make_generator(1)
    with torch.no_grad():
        for parameter in torch_model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.rand(40, 1, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (40,), generator=generator)
    noise = noise_of(x, 0.2, 4)
    seen = inputs_of_model(torch_model)
    loss_of(SmoothAdv(0.2, n_noise=4, n_steps=20), torch_model, x, y, ThreatModel(0.1))

    def mean_p(z):
        return predictions(torch_model, z + noise)[0].mean(axis=0)[np.arange(40), y]

    found = mean_p(seen[-1].view(4, 40, 1)[0] - noise[0])
    worst = np.min([mean_p(x + shift) for shift in np.linspace(-0.1, 0.1, 41)], axis=0)
    assert (worst < mean_p(x) - 1e-3).mean() > 0.8
    assert_allclose(found, worst, rtol=1e-3)


# ------------------------------------------------------------------------------------------------
# The dual norm


@every_norm
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("per_feature", [False, True])
def test_dual_norm_is_the_largest_value_in_the_ball(per_feature, masked, norm):
    generator = make_generator(0)
    grad = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    eps = np.array([0.1, 0.2, 0.0, 0.3, 0.5, 1.0]) if per_feature else 0.7
    mask = [0, 2, 3, 5] if masked else None
    threat = ThreatModel(eps, norm, mask=mask)
    largest = threat.dual_norm(grad)
    x = torch.rand(200, 6, generator=generator, dtype=torch.float64)
    attained = (grad * (threat.maximize_linear(grad, x) - x)).sum(1)
    assert_allclose(largest, attained, rtol=1e-9)
    for _ in range(20):
        z = threat.random_start(x, generator)
        assert ((grad * (z - x)).sum(1) <= largest + 1e-12).all()


def test_dual_norm_ignores_the_box_and_takes_images():
    grad = torch.randn(3, 1, 2, 2, generator=make_generator(0))
    threat = ThreatModel(0.5, "linf", bounds=(0, 1))
    assert_allclose(threat.dual_norm(grad), 0.5 * grad.abs().sum((1, 2, 3)), rtol=1e-6)


def test_dual_norm_is_differentiable():
    grad = torch.randn(3, 4, generator=make_generator(0), dtype=torch.float64, requires_grad=True)
    for norm in ORDERS:
        threat = ThreatModel([0.1, 0.2, 0.3, 0.4], norm)
        assert torch.autograd.gradcheck(threat.dual_norm, grad)
