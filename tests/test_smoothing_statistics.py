"""Smoothing: the certificates are wrong as rarely as they say, by simulation and by brute force."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.optimize import linprog
from sklearn.base import BaseEstimator, ClassifierMixin

from skrobust.smoothing import (
    FlipNoise,
    GaussianNoise,
    LaplaceNoise,
    SmoothedClassifier,
    SplittingNoise,
    UniformNoise,
)
from skrobust.smoothing._certification import (
    Settings,
    certify_largest_radius,
    certify_one_radius,
)
from skrobust.smoothing._confidence import (
    ThresholdTest,
    clopper_pearson_lower,
    clopper_pearson_upper,
    confidence_sequence,
    trials_needed,
)
from skrobust.smoothing._flips import _lower_bound

N_RUNS = 10_000


def fitted(noise, sigma=0.5, n_features=4):
    return noise.fit(np.array([[0] * n_features, [1] * n_features, [2] * n_features]), sigma)


SAMPLED = {
    "gaussian": fitted(GaussianNoise()),
    "laplace": fitted(LaplaceNoise()),
    "uniform": fitted(UniformNoise()),
    "flips": fitted(FlipNoise()),
}


def assert_rare(wrong, alpha):
    """A rate of at most alpha would give as many as these once in 10,000 times or more often."""
    n_wrong, n = np.sum(wrong), np.size(wrong)
    assert stats.binom.sf(n_wrong - 1, n, alpha) > 1e-4, f"{n_wrong} of {n} at alpha={alpha}"


class SimulatedVotes:
    """Votes with known probabilities, in the place of a classifier under noise."""

    def __init__(self, p, seed=0):
        self.p = np.asarray(p)
        self.x = np.zeros((len(p), 1))
        self.n_classes = self.p.shape[1]
        self.generator = np.random.default_rng(seed)

        self.seen = np.zeros(self.p.shape, dtype=int)

    def count(self, rows, start, stop):
        counts = self.generator.multinomial(stop - start, self.p[rows])
        if start > 0:
            self.seen[rows] += counts
        return counts


# Bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_clopper_pearson_covers_exactly(alpha):
    n, successes = 40, np.arange(41)
    lower = clopper_pearson_lower(successes, n, alpha)
    upper = clopper_pearson_upper(successes, n, alpha)
    for p in np.linspace(0.01, 0.99, 99):
        mass = stats.binom.pmf(successes, n, p)
        assert mass[lower > p].sum() <= alpha * (1 + 1e-9)
        assert mass[upper < p].sum() <= alpha * (1 + 1e-9)
    expected = [
        stats.binomtest(k, n, alternative="greater").proportion_ci(1 - alpha).low for k in successes
    ]
    assert_allclose(lower, expected, atol=1e-9)


def test_confidence_sequence_holds_at_all_times():
    generator, alpha, steps = np.random.default_rng(0), 0.05, np.arange(1, 60) ** 2
    for p in (0.02, 0.5, 0.9):
        ever_missed = np.zeros(2000, dtype=bool)
        successes = np.zeros(2000, dtype=int)
        before = 0
        for n in steps:
            successes += generator.binomial(n - before, p, 2000)
            before = n
            lower, upper = confidence_sequence(successes, n, alpha)
            assert (lower <= successes / n).all()
            assert (upper >= successes / n).all()
            ever_missed |= (lower > p) | (upper < p)
        assert_rare(ever_missed, alpha)
    assert lower.min() > 0.8
    assert upper.max() < 0.97


def test_confidence_sequence_without_trials_says_nothing():
    lower, upper = confidence_sequence(np.zeros(2), np.zeros(2), 0.01)
    assert_array_equal(lower, [0, 0])
    assert_array_equal(upper, [1, 1])


def test_trials_needed():
    for p, alpha in [(0.5, 0.001), (0.977, 0.001), (0.9, 0.05)]:
        n = trials_needed(p, alpha)
        assert clopper_pearson_lower(n, n, alpha) > p
        assert clopper_pearson_lower(n - 1, n - 1, alpha) <= p


# The sequential test -------------------------------------------------------------------------


@pytest.mark.parametrize("p0", [0.55, 0.9])
@pytest.mark.parametrize("guess", ["honest", "enthusiastic", "none"])
def test_threshold_test_withstands_an_adversary_who_stops_when_it_suits(p0, guess):
    generator, alpha, n_max = np.random.default_rng(1), 0.05, 200
    guesses = {
        "honest": np.repeat(generator.binomial(100, p0, 10), N_RUNS // 10),
        "enthusiastic": np.full(N_RUNS, 100),
        "none": np.zeros(N_RUNS, dtype=int),
    }
    n_guess = 0 if guess == "none" else 100
    successes = np.zeros(N_RUNS, dtype=int)
    ever = np.zeros(N_RUNS, dtype=bool)
    for n in range(1, n_max + 1):  # looks after every vote, and goes on after "hopeless"
        successes += generator.random(N_RUNS) < p0
        cases, which = np.unique(guesses[guess] * 1000 + successes, return_inverse=True)
        test = ThresholdTest(p0, alpha, n_max, (cases // 1000, np.full(len(cases), n_guess)))
        ever |= (test.decide(cases % 1000, n)[0] == 1)[which]
    assert_rare(ever, alpha)
    assert ever.mean() > 0.2 * alpha  # nor is it idle


def test_threshold_test_seldom_gives_up_in_vain():
    generator, p0, n_max = np.random.default_rng(2), 0.8, 2000
    p1, n_runs = 0.85, 2000
    guess = (generator.binomial(100, p1, n_runs), np.full(n_runs, 100))
    test = ThresholdTest(p0, 0.01, n_max, guess)
    successes, known, before = np.zeros(n_runs), np.zeros(n_runs), 0
    for n in test.looks():
        successes += generator.binomial(n - before, p1, n_runs)
        before = n
        known = np.where(known == 0, test.decide(successes, n)[0], known)
    assert before == n_max
    assert (known == 1).mean() > 0.95


@pytest.mark.parametrize(("radius", "most"), [(0.25, 350), (0.5, 450), (1.0, 2600)])
def test_deciding_a_radius_is_cheap_and_agrees_with_the_plain_method(radius, most):
    # Radii as of a smoothed LeNet on MNIST at sigma = 0.5, alpha = 0.001, n = 100,000.
    generator, n, n_max = np.random.default_rng(3), 10_000, 100_000
    edges = np.array([-1, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2.5])
    part = generator.choice(8, n, p=[0.022, 0.01, 0.02, 0.032, 0.046, 0.126, 0.202, 0.542])
    p = stats.norm.cdf((edges[part] + generator.random(n) * np.diff(edges)[part]) / 0.5)
    votes = SimulatedVotes(np.column_stack([p, 1 - p]))
    noise = SAMPLED["gaussian"]
    settings = Settings(n_selection=100, n_samples=n_max, alpha=0.001, runner_up=False)
    top, _, _, n_used, reason = certify_one_radius(votes, noise, radius, settings)
    assert n_used.mean() <= most
    # What the plain method would have found, had it gone on.
    rest = generator.multinomial(n_max - votes.seen.sum(axis=1), votes.p)
    successes = (votes.seen + rest)[np.arange(n), top]
    plain = clopper_pearson_lower(successes, n_max, 0.001) > noise.threshold(radius)
    assert np.mean((reason == "certified") == plain) >= (0.997 if radius == 1 else 0.999)


# Certificates --------------------------------------------------------------------------------


@pytest.mark.parametrize("runner_up", [False, True])
@pytest.mark.parametrize("name", SAMPLED)
def test_radii_are_wrong_as_rarely_as_alpha_says(name, runner_up):
    noise, alpha = SAMPLED[name], 0.02
    p = np.repeat([[0.7, 0.2, 0.1], [0.95, 0.05, 0.0]], N_RUNS // 2, axis=0)
    true = noise.radius(p[:, 0], p[:, 1]) if runner_up else noise.radius(p[:, 0])
    settings = Settings(n_selection=50, n_samples=200, alpha=alpha, runner_up=runner_up)
    top, radius, p_lower, n_used, reason = certify_largest_radius(
        SimulatedVotes(p), noise, settings
    )
    assert_array_equal(n_used, 250)
    certified = reason == "certified"
    assert_rare(certified & ((top != 0) | (radius > true)), alpha)
    assert certified.mean() > 0.5
    assert (p_lower > p[np.arange(len(p)), top]).mean() <= 2 * alpha


@pytest.mark.parametrize("runner_up", [False, True])
@pytest.mark.parametrize("name", SAMPLED)
def test_decisions_are_wrong_as_rarely_as_alpha_says(name, runner_up):
    noise, alpha, n_samples = SAMPLED[name], 0.02, 1000
    # The worst that can be: the probability is just what the radius needs, and certifies nothing.
    if runner_up:
        radius, rival = (0.0, 0.36) if name == "flips" else (0.1, 0.3)
        p = _least_top(noise, radius, rival)
        p = np.repeat([[p, rival, 1 - p - rival]], N_RUNS, axis=0)
        assert p[0].argmin() == 2
    else:
        radius = 1.0 if name == "flips" else 0.4
        p = noise.threshold(radius)
        p = np.repeat([[p, (1 - p) / 2, (1 - p) / 2]], N_RUNS, axis=0)
    settings = Settings(n_selection=50, n_samples=n_samples, alpha=alpha, runner_up=runner_up)
    _, reached, _, n_used, reason = certify_one_radius(SimulatedVotes(p), noise, radius, settings)
    certified = reason == "certified"
    assert_rare(certified, alpha)
    assert_array_equal(reached, np.where(certified, radius, 0))
    assert (n_used <= 2 * 50 + n_samples).all()
    assert (n_used[reason == "undecided"] >= 24 + n_samples).all()


def _least_top(noise, radius, rival):
    """Probability at which a radius is just not certified, for a runner-up of this probability."""
    low, high = rival, 1 - rival
    for _ in range(60):
        middle = (low + high) / 2
        reaches = noise.radius(middle, rival) >= radius
        low, high = (low, middle) if reaches else (middle, high)
    return low


@pytest.mark.parametrize("name", SAMPLED)
def test_easy_cases_are_certified_with_few_votes(name):
    noise = SAMPLED[name]
    radius = 1.0 if name == "flips" else 0.4
    p = np.repeat([[0.999, 0.001], [0.5, 0.5]], 200, axis=0)
    settings = Settings(n_selection=50, n_samples=20_000, alpha=0.001, runner_up=False)
    _, _, p_lower, n_used, reason = certify_one_radius(SimulatedVotes(p), noise, radius, settings)
    assert (reason[:200] == "certified").all()
    assert (reason[200:] == "out of reach").all()
    assert n_used.mean() < 400
    assert_allclose(p_lower, np.repeat([noise.threshold(radius), 0], 200))


def test_a_bound_for_the_runner_up_gains_where_there_are_many_classes():
    p = np.repeat([[0.45] + [0.055] * 10], 200, axis=0)
    alone, each = (Settings(50, 2000, 0.001, runner_up) for runner_up in (False, True))
    for certify in (certify_largest_radius, lambda v, n, s: certify_one_radius(v, n, 0.2, s)):
        votes = SimulatedVotes(p)
        reason = certify(votes, SAMPLED["gaussian"], alone)[-1]
        assert (reason != "certified").all()
        reason = certify(votes, SAMPLED["gaussian"], each)[-1]
        assert (reason == "certified").mean() > 0.95


# Radii ---------------------------------------------------------------------------------------


def test_radii_of_linear_classifiers_in_closed_form():
    # On a half space across one feature no radius is larger than the distance, and these reach it.
    distance = np.linspace(0.01, 0.8, 30)
    cases = {
        "gaussian": stats.norm(scale=0.5),
        "laplace": stats.laplace(scale=0.5 / np.sqrt(2)),
        "uniform": stats.uniform(-0.5 * np.sqrt(3), np.sqrt(3)),
    }
    for name, distribution in cases.items():
        assert_allclose(distribution.std(), 0.5)
        p = distribution.cdf(distance)
        assert_allclose(SAMPLED[name].radius(p), distance)
        assert_allclose(SAMPLED[name].radius(p, 1 - p), distance)
        assert_allclose(SAMPLED[name].threshold(distance), p)


@pytest.mark.parametrize("name", SAMPLED)
def test_radius_and_threshold_are_inverse(name):
    noise = SAMPLED[name]
    radii = [0.0, 1.0, 2.0] if name == "flips" else [0.0, 0.1, 0.5, 0.8]
    for radius in radii:
        p = noise.threshold(radius)
        assert noise.radius(p + 1e-9) >= radius - 1e-6
        assert noise.radius(p - 1e-6) < radius
    p = np.linspace(0.3, 0.99, 50)
    for rival in (0.01, 0.2):
        assert (np.diff(noise.radius(p, np.minimum(rival, 1 - p))) >= 0).all()
    # To know more of the others is never worse.
    assert (noise.radius(p, np.minimum(0.1, 1 - p)) >= noise.radius(p) - 1e-12).all()


def test_radii_at_the_ends():
    for name in ("gaussian", "laplace"):
        assert SAMPLED[name].radius(1.0) == np.inf
        assert SAMPLED[name].radius(0.0) < 0
    assert_allclose(SAMPLED["uniform"].radius(1.0), 0.5 * np.sqrt(3))
    assert SAMPLED["uniform"].threshold(0.9) >= 1
    assert SAMPLED["flips"].threshold(9.0) == 1


def point_mass(noise, x, z):
    """Probability that the flips make z of x."""
    factors = [
        noise.sigma_ / k + (1 - noise.sigma_) * (a == b)
        for a, b, k in zip(x, z, noise.n_categories_, strict=True)
    ]
    return np.prod(factors)


@pytest.mark.parametrize("sigma", [0.3, 0.7])
def test_l0_bounds_are_those_of_the_worst_classifier(sigma):
    sizes = (2, 3, 4)
    points = np.array(list(product(*map(range, sizes))))
    noise = FlipNoise().fit(points, sigma)
    assert_array_equal(noise.n_categories_, sizes)
    x = points[0]
    here = np.array([point_mass(noise, x, z) for z in points])
    assert_allclose(here.sum(), 1)
    for p in (0.6, 0.8, 0.9, 0.97):
        worst = np.full(4, 1.0)
        for changed in points:
            there = np.array([point_mass(noise, changed, z) for z in points])
            solution = linprog(there, A_eq=[here], b_eq=[p], bounds=(0, 1))
            n_changed = np.sum(changed != x)
            worst[n_changed] = min(worst[n_changed], solution.fun)
        found = [float(_lower_bound(regions, p)) for regions in noise._regions]
        assert_allclose(found, worst[: len(found)], atol=1e-9)
        survives = np.minimum.accumulate(worst) > 0.5 + 1e-9
        assert noise.radius(p) == survives.sum() - 1


def test_flips_sample_what_the_bounds_take_for_granted():
    X = np.array([[0, 5.0, 1, 0, 0], [1, 7.0, 0, 1, 0], [2, 7.5, 0, 0, 1]])
    noise = FlipNoise([0, [2, 3, 4]]).fit(X, 0.6)
    z = torch.empty((20_000, 5), dtype=torch.float64)
    x = torch.tensor(X[1])
    noise.sampler(torch.float64, "cpu")(z, x, 0, torch.Generator().manual_seed(0))
    z = z.numpy()
    assert (z[:, 1] == 7).all()
    assert_array_equal(z[:, 2:].sum(axis=1), 1)
    codes = np.column_stack([z[:, 0], z[:, 2:].argmax(axis=1)]).astype(int)
    observed = np.bincount(codes @ [3, 1], minlength=9)
    expected = [point_mass(noise, (1, 1), pair) * len(z) for pair in product(range(3), repeat=2)]
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_additive_noise_has_the_distribution_that_the_radii_take_for_granted():
    distributions = {
        GaussianNoise: stats.norm(),
        LaplaceNoise: stats.laplace(scale=1 / np.sqrt(2)),
        UniformNoise: stats.uniform(-np.sqrt(3), 2 * np.sqrt(3)),
    }
    scale = np.array([1.0, 10.0])
    for kind, distribution in distributions.items():
        for dtype in (torch.float32, torch.float64):
            noise = kind().fit(np.zeros((1, 2)), 0.5, scale)
            z = torch.empty((5000, 2), dtype=dtype)
            x = torch.tensor([1.0, -3.0], dtype=dtype)
            noise.sampler(dtype, "cpu")(z, x, 0, torch.Generator().manual_seed(0))
            standard = (z - x).double().numpy() / (0.5 * scale)
            for column in standard.T:
                assert stats.kstest(column, distribution.cdf).pvalue > 1e-4
            assert abs(np.corrcoef(standard.T)[0, 1]) < 0.06


class Lookup(ClassifierMixin, BaseEstimator):
    """A classifier that answers at random, but always the same."""

    def __init__(self, n_classes, bias):
        self.n_classes = n_classes
        self.bias = bias

    @property
    def classes_(self):
        return np.arange(self.n_classes)

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        # Votes for the first class more often the nearer to the origin.
        code = np.sin(np.round(X * 1000) @ (1 + np.arange(X.shape[1])) * 12.9898) * 43758.5453
        uniform = code - np.floor(code)
        likely = np.abs(X).sum(axis=1) < self.bias
        drawn = (uniform * len(self.classes_)).astype(int)
        return np.where(likely & (uniform < 0.9), 0, drawn)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("bounds", [None, (0, 5)])
def test_splitting_noise_against_brute_force(n_classes, bounds):
    grid = np.array(list(product(range(6), repeat=2)), dtype=float)
    noise = SplittingNoise(step=1.0, bounds=bounds)
    clf = SmoothedClassifier(Lookup(n_classes, 6), noise=noise, sigma=6.0, random_state=0)
    clf.fit(grid)
    certificate = clf.certify(grid)
    assert_array_equal(certificate.label, clf.predict(grid))
    assert certificate.radius.max() >= 1
    distance = np.abs(grid[:, np.newaxis] - grid).sum(axis=-1)
    inside = distance <= certificate.radius[:, np.newaxis]
    same = certificate.label[:, np.newaxis] == certificate.label
    assert (same | ~inside).all()
    assert_array_equal(certificate.p_lower, clf.predict_proba(grid).max(axis=1))
    decided = clf.certify(grid, radius=1.0)
    assert_array_equal(decided.abstained, certificate.radius < 1)


def test_splitting_noise_moves_as_many_points_as_steps():
    noise = SplittingNoise(step=0.5, bounds=(-1, 3)).fit(np.zeros((1, 3)), 1.0, seed=3)
    sample = noise.sampler(torch.float64, "cpu")

    def points(x):
        out = torch.empty((noise.n_points_, 3), dtype=torch.float64)
        sample(out, torch.tensor(x), 0, None)
        return out.numpy()

    generator = np.random.default_rng(0)
    for _ in range(20):
        x, other = (-1 + 0.5 * generator.integers(0, 9, 3) for _ in range(2))
        moved = (points(x) != points(other)).any(axis=1).sum()
        assert moved <= np.abs(x - other).sum() / 0.5
        assert (points(x) >= -1).all()
        assert (points(x) <= 3).all()
    one = points(np.zeros(3)) != points(np.array([0.5, 0, 0]))
    assert one.any(axis=1).sum() == 1
