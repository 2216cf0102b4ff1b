"""The threat model: which inputs an attacker can reach from a given one."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from ..utils._random import GeneratorNoise
from ..utils._validation import fit_length, for_each_feature, per_feature
from ._l0 import L0Set
from ._l1 import L1Set
from ._l2 import L2Set
from ._linf import LinfSet
from ._norms import NORMS, ORDERS
from ._parameters import check_bounds, check_eps, check_mask, mask_to_bool

FEASIBLE_SETS = {"linf": LinfSet, "l2": L2Set, "l1": L1Set, "l0": L0Set}


@dataclass(frozen=True, eq=False, repr=False)
class ThreatModel:
    """The set of inputs that an attacker can reach: ball ∩ box ∩ mask.

    The admissible points around an input ``x`` are all ``z`` with

    - ``‖(z - x) / eps‖ <= 1`` in the chosen norm (for a scalar ``eps`` this is
      ``‖z - x‖ <= eps``); in l0: ``z`` differs from ``x`` in at most ``eps`` features,
    - ``low <= z <= high``,
    - ``z_i == x_i`` for every feature outside ``mask`` or with ``eps_i == 0``.

    All numbers are in the units of X. The object is immutable.

    Parameters
    ----------
    eps : float or array-like of shape (n_features,), default=0.1
        Radius of the ball, or the budget of each feature. With one budget per feature the ball is
        the box (linf), the ellipsoid (l2) or the weighted cross-polytope (l1) whose half axes are
        ``eps``. Non-negative and finite; for linf also one infinity, which leaves bounds and mask
        as the only limits. For l0 the number of features that may change, one whole number.

    norm : {"linf", "l2", "l1", "l0"}, default="linf"
        Norm in which the perturbation is measured. In l0, which counts the features that change,
        only the bounds limit how far a feature goes: maximising a linear function needs bounds, and
        random starts, steps and the dual norm do not exist.

    bounds : None or pair (low, high), default=None
        Box of valid inputs; each side a float or an array-like of shape (n_features,).
        Infinite sides are allowed.

    mask : None, str or array-like, default=None
        The features that the attacker can change: booleans of shape (n_features,), or indices, or
        column names (these need ``feature_names``). None means all.

    feature_names : None or array-like of str, default=None
        Names of the features, for a ``mask`` of names and for error messages.

    Notes
    -----
    Features are the values of one sample in C order: an image of shape (1, 28, 28) has 784.

    **Projection.** The nearest admissible point in the metric of the ball, that is, the one that
    minimises ``‖(z' - z) / eps‖₂``; for a scalar ``eps`` it is the Euclidean projection. With
    ``u = (z - x) / eps`` and ``b_i`` the room of the box on the side of ``u_i`` (over ``eps_i``),
    the Karush-Kuhn-Tucker conditions leave one unknown number:

    - linf: ``clip(z, max(x - eps, low), min(x + eps, high))``;
    - l2: ``|u'_i| = min(t |u_i|, b_i)`` with the largest ``t <= 1`` for which ``‖u'‖₂ <= 1``. The
      set of clipped features grows with ``t``. Fixing the features that are clipped at the present
      ``t`` and solving for the others gives an increasing sequence of feasible points that reaches
      the solution after finitely many rounds (three to eight in practice);
    - l1: ``|u'_i| = clip(|u_i| - λ, 0, b_i)`` with the smallest ``λ >= 0`` for which
      ``‖u'‖₁ <= 1`` ([1]_, Proposition 2.1), by Newton's method on the piecewise linear function
      of λ, kept inside a bracket where it does not converge at once;
    - l0, for ``u = z - x``: changing feature ``i`` as far as the box allows, rather than not at
      all, saves ``u_i² - (|u_i| - b_i)²₊``. The ``eps`` features that save the most are clipped to
      the box, the others return to ``x``; of equal ones, the first are changed.

    For an ``x`` outside ``bounds`` the box is extended to ``x``, so that the set is never empty;
    :meth:`check_inputs` refuses such inputs with a clear error.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
       classifiers", ICML 2021.

    Examples
    --------
    >>> import torch
    >>> from skrobust.threat import ThreatModel
    >>> threat = ThreatModel(eps=1.0, norm="l2", bounds=(0, 1))
    >>> x = torch.tensor([[0.5, 0.9]])
    >>> threat.project(x + torch.tensor([[3.0, 4.0]]), x)
    tensor([[1., 1.]])
    """

    eps: float | np.ndarray = 0.1
    norm: str = "linf"
    bounds: tuple | None = None
    mask: np.ndarray | None = None
    feature_names: np.ndarray | None = None

    def __post_init__(self):
        def set_(name, value):
            object.__setattr__(self, name, value)

        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {self.norm!r}.")
        set_("eps", check_eps(self.eps, self.norm))
        set_("bounds", check_bounds(self.bounds))
        names = None if self.feature_names is None else np.asarray(self.feature_names, dtype=object)
        set_("feature_names", names)
        set_("mask", check_mask(self.mask, names))

    def __repr__(self):
        shown = {"eps": self.eps, "norm": self.norm, "bounds": self.bounds, "mask": self.mask}
        inner = ", ".join(f"{k}={v!r}" for k, v in shown.items() if v is not None)
        return f"ThreatModel({inner})"

    def feasible_set(self, x, norm=None):
        """Prepare the geometry around one batch.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)
            Inputs; their dtype and device are those of all the arithmetic.

        norm : str, default=None
            Norm that measures perturbations where ``eps`` is infinite, for attacks that look for
            the closest point: balls of infinite radius are the same in all norms. None means the
            norm of the threat model.

        Returns
        -------
        feasible_set : FeasibleSet
            The admissible points around each input.
        """
        return FEASIBLE_SETS[norm or self.norm](self, x)

    def project(self, x_adv, x):
        """Return the nearest admissible point to ``x_adv`` around ``x``.

        Parameters
        ----------
        x_adv, x : tensors of shape (n_samples, ...)
            Points to project, and the inputs they perturb.

        Returns
        -------
        projected : tensor of shape (n_samples, ...)
            In the set up to the rounding of the dtype; :meth:`project_exactly` removes that, too.
        """
        return self.feasible_set(x).project_(x_adv.clone())

    def maximize_linear(self, grad, x):
        """Return the admissible point around ``x`` at which ``<grad, z>`` is largest.

        It is exact for ball, box and mask together: no attack in one step can do better, and on a
        linear model no attack at all. In l0 it moves the ``eps`` features with the largest product
        of gradient and room to the edge of the box.

        Parameters
        ----------
        grad, x : tensors of shape (n_samples, ...)
            Gradients and the inputs.

        Returns
        -------
        x_adv : tensor of shape (n_samples, ...)
            Admissible points.

        Raises
        ------
        ValueError
            With ``norm="l0"`` or ``eps=inf`` and without finite bounds: there is no maximum.
        """
        return self.feasible_set(x).maximize_linear(grad)

    def dual_norm(self, grad):
        """Return the largest ``<grad, z - x>`` over ball and mask, without the box.

        It is the dual norm of ``eps * grad``: l1 for linf, l2 for l2, linf for l1.

        Parameters
        ----------
        grad : tensor of shape (n_samples, ...)
            Gradients; the result is differentiable with respect to them.

        Returns
        -------
        largest : tensor of shape (n_samples,)
            Largest value for each sample.

        Raises
        ------
        ValueError
            With ``norm="l0"`` or ``eps=inf``: there is no largest value.
        """
        if self.norm == "l0" or self.is_unlimited:
            given = "norm='l0'" if self.norm == "l0" else "eps=inf"
            raise ValueError(
                "The dual norm needs a ball that limits how far features go, of norm 'linf', 'l2' "
                f"or 'l1' and finite eps; got {given}."
            )
        slopes = (grad * self._budgets(grad)).flatten(1)
        dual_order = {"linf": 1, "l2": 2, "l1": torch.inf}[self.norm]
        return torch.linalg.vector_norm(slopes, dual_order, dim=1)

    def random_start(self, x, generator=None):
        """Draw points uniformly from the ball and project them onto the box.

        With ``eps=inf`` they are uniform in the box.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)
            The inputs.

        generator : torch.Generator, default=None
            Source of randomness; None is torch's global one.

        Returns
        -------
        x_start : tensor of shape (n_samples, ...)
            Admissible points.

        Raises
        ------
        ValueError
            With ``norm="l0"``, and with ``eps=inf`` without finite bounds.
        """
        return self.feasible_set(x).random_start(GeneratorNoise(x, generator))

    def contains(self, x_adv, x):
        """Return whether each perturbed input is admissible, without tolerance, in float64.

        Parameters
        ----------
        x_adv, x : tensors of shape (n_samples, ...)
            Perturbed inputs and the inputs, in one dtype. ``bounds`` are rounded to it.

        Returns
        -------
        contained : bool tensor of shape (n_samples,)
            True where the whole sample is admissible.
        """
        delta = (x_adv.double() - x.double()).flatten(1)
        contained = delta.isfinite().all(1) & self._ball_contains(delta, self._budgets(x.double()))
        if self.bounds is not None:
            low, high = self.box(x)
            contained &= ((x_adv >= low) & (x_adv <= high)).flatten(1).all(1)
        return contained

    def _ball_contains(self, delta, eps):
        """Return whether each float64 perturbation is inside ball and mask."""
        eps = eps if eps.ndim == 0 else eps.reshape(1, -1)
        if self.norm == "linf":
            return (delta.abs() <= eps).all(1)
        fixed = ((delta != 0) & (eps == 0)).any(1)
        if self.norm != "l0":
            delta = torch.where(delta == 0, delta, delta / eps)
        radius = self.eps if self.norm == "l0" else 1
        return ~fixed & (FEASIBLE_SETS[self.norm].size(delta)[:, 0] <= radius)

    def project_exactly(self, x_adv, x):
        """Project, then round so that the result is admissible to the last bit of its dtype.

        Parameters
        ----------
        x_adv : tensor of shape (n_samples, ...)
            Points near the set, in any floating-point dtype.

        x : tensor of shape (n_samples, ...)
            The inputs, in the dtype that the result is to have.

        Returns
        -------
        x_inside : tensor of shape (n_samples, ...)
            In the dtype of ``x``. ``contains(x_inside, x)`` holds for every ``x`` within the
            bounds; a feature that the attacker cannot change keeps its bits.
        """
        if self.norm == "l0" or self.is_unlimited:
            # The size of a change does not matter: rounding a value cannot leave the ball.
            largest = torch.finfo(x.dtype).max
            projected = self.feasible_set(x.double()).project_(x_adv.to(torch.float64, copy=True))
            rounded = projected.clamp_(-largest, largest).to(x.dtype)
        else:
            rounded = self._round_inside(x_adv, x)
        if self.bounds is not None:
            low, high = self.box(x)
            rounded = torch.maximum(torch.minimum(rounded, high), low)
        # A zero keeps its sign.
        return torch.where(rounded == x, x, rounded)

    def _round_inside(self, x_adv, x):
        """Project in float64, and round to the dtype of ``x`` towards ``x``."""
        eps = _round_down(self.eps, x.dtype)
        if self.norm != "linf":
            # Shrink the ball slightly, so that recomputing the norm in another summation order
            # stays within eps.
            eps = eps * (1 - 16 * torch.finfo(x.dtype).eps)
        feasible_set = replace(self, eps=eps).feasible_set(x.double())
        delta = feasible_set.perturbation(x_adv.double())
        rounded = (feasible_set.x + delta).to(x.dtype)
        # Every norm grows with each |delta_i|: it is enough that rounding enlarges none of them.
        outward = (rounded.double() - feasible_set.x).abs() > delta.abs()
        return torch.where(outward, torch.nextafter(rounded, x), rounded)

    def measure(self, delta):
        """Return the size of perturbations, in the norm and the budgets of the threat model.

        Parameters
        ----------
        delta : array-like of shape (n_samples, ...)
            Perturbations ``x_adv - x``.

        Returns
        -------
        size : ndarray of shape (n_samples,)
            In units of X; for l0 the number of features changed. With one ``eps`` per feature, of
            the perturbation divided by it, infinite where a feature without a budget changes.
        """
        delta = np.asarray(delta, dtype=np.float64).reshape(len(delta), -1)
        if np.ndim(self.eps):
            eps = np.asarray(self.eps).ravel()
            far = np.where(delta == 0, 0.0, np.inf)
            delta = np.divide(delta, eps, out=far, where=eps > 0)
        return np.linalg.norm(delta, ORDERS[self.norm], axis=1).astype(np.float64)

    def is_unbounded(self, n_features):
        """Return whether the ball holds the whole box, or all of space, around every input.

        Parameters
        ----------
        n_features : int
            Number of features of a sample.

        Returns
        -------
        unbounded : bool
            True if the attacker can reach every valid input.
        """
        if self.mask is not None and not mask_to_bool(self.mask, n_features).all():
            return False
        if self.is_unlimited:
            return True
        if self.bounds is None:
            return False
        low, high = (for_each_feature(side, n_features, "bounds") for side in self.bounds)
        if self.norm == "l0":
            return bool(self.eps >= n_features)
        eps = for_each_feature(self.eps, n_features, "eps")
        scaled = np.divide(high - low, eps, out=np.full(n_features, np.inf), where=eps > 0)
        scaled[high == low] = 0
        return bool(np.linalg.norm(scaled, ORDERS[self.norm]) <= 1)

    def check_inputs(self, X):
        """Raise a ValueError if an input is outside the bounds, or a parameter has a wrong length.

        Parameters
        ----------
        X : ndarray of shape (n_samples, ...)
            Inputs.
        """
        n_features = prod(X.shape[1:])
        fit_length(self.eps, n_features, "eps")
        if self.mask is not None:
            mask_to_bool(self.mask, n_features)
        if self.bounds is None:
            return
        low, high = (
            for_each_feature(side, n_features, "bounds").astype(X.dtype) for side in self.bounds
        )
        flat = X.reshape(len(X), -1)
        smallest, largest = flat.min(axis=0), flat.max(axis=0)
        bad = np.flatnonzero((smallest < low) | (largest > high))
        if len(bad):
            i = bad[0]
            name = "" if self.feature_names is None else f" ({self.feature_names[i]!r})"
            more = f" ({len(bad)} features are outside.)" if len(bad) > 1 else ""
            raise ValueError(
                f"X must lie within bounds: feature {i}{name} has values from {smallest[i]:g} to "
                f"{largest[i]:g}, and its bounds are [{low[i]:g}, {high[i]:g}].{more} bounds are "
                "in the units of the X that is handed in: widen them, or scale X before."
            )

    @property
    def is_unlimited(self):
        """Whether ``eps`` is infinite: only bounds and mask limit the attacker."""
        return bool(np.isinf(self.eps).any())

    def box(self, x):
        """Return both sides of ``bounds`` as tensors that broadcast with ``x``, in its dtype.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)
            Inputs, for shape, dtype and device.

        Returns
        -------
        low, high : tensors of shape () or of the shape of a sample
            Sides of the box.
        """
        return tuple(
            torch.tensor(per_feature(side, x.shape[1:], "bounds"), dtype=x.dtype, device=x.device)
            for side in self.bounds
        )

    def _budgets(self, x):
        """Return the budgets of the features of one sample as a tensor; zero outside the mask."""
        eps = np.float64(1.0) if self.norm == "l0" else per_feature(self.eps, x.shape[1:], "eps")
        if self.mask is not None:
            mask = mask_to_bool(self.mask, prod(x.shape[1:])).reshape(x.shape[1:])
            eps = np.where(mask, eps, 0.0)
        return torch.tensor(eps, dtype=x.dtype, device=x.device)


def _round_down(eps, dtype):
    """Return the largest number of ``dtype`` that is not above ``eps``, in float64."""
    exact = torch.tensor(eps, dtype=torch.float64)
    rounded = exact.to(dtype)
    above = rounded.double() > exact
    rounded = torch.where(above, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded)
    return rounded.double().numpy()
