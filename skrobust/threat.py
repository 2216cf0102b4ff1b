"""The threat model: which inputs an attacker can reach from a given one.

Everything geometric lives here, on tensors: projection, steepest step, random start, membership.
Attacks, defenses and verifiers ask a :class:`ThreatModel` and know no norm themselves.
"""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from ._region import Region, budgets, norm_of
from .utils._random import GeneratorNoise
from .utils._threat_parameters import (
    check_bounds,
    check_eps,
    check_mask,
    fit_length,
    mask_to_bool,
    per_feature,
)

LP_NORMS = ("linf", "l2", "l1")
NORMS = (*LP_NORMS, "l0")


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
        nothing but the bounds limits how far: steepest points need them, and random starts, steps
        and the dual norm do not exist.

    bounds : None or pair (low, high), default=None
        Box of valid inputs; each side a float or an array-like of shape (n_features,).
        Infinite sides are allowed.

    mask : None, str or array-like, default=None
        The features that the attacker can change: booleans of shape (n_features,), or indices, or
        column names (these need ``feature_names``). None means all.

    feature_names : None or array-like of str, default=None
        Names of the features, to look up a ``mask`` of names and to word errors.

    Notes
    -----
    Features are the values of one sample in C order: an image of shape (1, 28, 28) has 784.

    **Projection.** The nearest admissible point in the metric of the ball, that is, the one that
    minimises ``‖(z' - z) / eps‖₂``; for a scalar ``eps`` it is the Euclidean projection. With
    ``u = (z - x) / eps``, ``b_i`` the room that the box leaves on the side of ``u_i`` (over
    ``eps_i``), the Karush-Kuhn-Tucker conditions leave one unknown number:

    - linf: ``clip(z, max(x - eps, low), min(x + eps, high))``;
    - l2: ``|u'_i| = min(t |u_i|, b_i)`` with the largest ``t <= 1`` that has ``‖u'‖₂ <= 1``. The
      set of clipped features grows with ``t``, so that fixing those that are clipped at the
      present ``t`` and solving for the rest gives an increasing sequence of feasible points that
      reaches the solution after finitely many rounds (three to eight in practice);
    - l1: ``|u'_i| = clip(|u_i| - λ, 0, b_i)`` with the smallest ``λ >= 0`` that has
      ``‖u'‖₁ <= 1`` (Croce & Hein 2021, Proposition 2.1), by Newton's method on the piecewise
      linear function of λ, kept inside a bracket where it does not converge at once;
    - l0, which has no such conditions, for ``u = z - x``: to change feature ``i`` as far as the box
      allows rather than not at all saves ``u_i² - (|u_i| - b_i)²₊``. The ``eps`` features that save
      the most are clipped to the box, the others go back to ``x``; of equal ones, the first stay.

    For an ``x`` outside ``bounds`` the box is extended as far as ``x``, so that the set is never
    empty; :meth:`check_inputs` refuses such inputs with a clear error.

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

    def project(self, x_adv, x):
        """Nearest admissible point to ``x_adv`` around ``x``.

        Parameters
        ----------
        x_adv, x : tensors of shape (n_samples, ...)
            Points to project, and the inputs they perturb.

        Returns
        -------
        projected : tensor of shape (n_samples, ...)
            Inside the set up to the rounding of the tensors' dtype; :meth:`inside` removes that.
        """
        return self.around(x).project_(x_adv.clone())

    def steepest(self, grad, x):
        """Admissible point around ``x`` at which the linear function ``<grad, z>`` is largest.

        It is exact for ball, box and mask together: the best that an attack in one step can do,
        and on a linear model the best that any attack can do. In l0 these are the ``eps`` features
        with the largest product of gradient and room, moved to the edge of the box.

        Parameters
        ----------
        grad, x : tensors of shape (n_samples, ...)
            Gradients and the inputs.

        Returns
        -------
        x_adv : tensor of shape (n_samples, ...)

        Raises
        ------
        ValueError
            With ``norm="l0"`` or ``eps=inf`` and without finite bounds: no point is the best.
        """
        return self.around(x).steepest(grad)

    def dual_norm(self, grad):
        """Largest value of ``<grad, z - x>`` in the ball and the mask, whatever the box.

        It is the dual norm of ``eps * grad``: l1 for linf, l2 for l2, linf for l1.

        Parameters
        ----------
        grad : tensor of shape (n_samples, ...)
            Gradients; the result is differentiable with respect to them.

        Returns
        -------
        largest : tensor of shape (n_samples,)

        Raises
        ------
        ValueError
            With ``norm="l0"`` or ``eps=inf``: there is no largest value.
        """
        if self.norm == "l0" or self._unlimited:
            given = "norm='l0'" if self.norm == "l0" else "eps=inf"
            raise ValueError(
                "The dual norm needs a ball that limits how far features go, of norm 'linf', 'l2' "
                f"or 'l1' and finite eps; got {given}."
            )
        eps = budgets(self, grad.shape[1:])
        eps = torch.tensor(eps, dtype=grad.dtype, device=grad.device)
        dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[self.norm]
        return norm_of((grad * eps).flatten(1), dual)

    def random_start(self, x, generator=None):
        """Points drawn uniformly from the ball, then projected onto the box.

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

        Raises
        ------
        ValueError
            With ``norm="l0"``, and with ``eps=inf`` without finite bounds.
        """
        return self.around(x).random(GeneratorNoise(x, generator))

    def contains(self, x_adv, x):
        """Whether each perturbed input is admissible, judged without tolerance in float64.

        Parameters
        ----------
        x_adv, x : tensors of shape (n_samples, ...)
            Perturbed inputs and the inputs, in one dtype. ``bounds`` are rounded to it.

        Returns
        -------
        contained : bool tensor of shape (n_samples,)
        """
        delta = (x_adv.double() - x.double()).flatten(1)
        eps = torch.tensor(budgets(self, x.shape[1:]), dtype=torch.float64, device=x.device)
        eps = eps if eps.ndim == 0 else eps.reshape(1, -1)
        if self.norm == "linf":  # infinite points are never admissible
            ok = (delta.abs() <= eps.clamp_max(torch.finfo(torch.float64).max)).all(1)
        else:
            ok = delta.isfinite().all(1) & ~((delta != 0) & (eps == 0)).any(1)
            if self.norm == "l0":
                ok &= norm_of(delta, "l0") <= self.eps
            else:
                scaled = torch.where(delta == 0, delta, delta / eps)
                ok &= norm_of(scaled, self.norm) <= 1
        if self.bounds is not None:
            low, high = self._sides(x)
            ok &= ((x_adv >= low) & (x_adv <= high)).flatten(1).all(1)
        return ok

    def inside(self, x_adv, x):
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
        if self.norm == "l0" or self._unlimited:
            # How far a feature goes does not matter: its value can stay as it is.
            largest = torch.finfo(x.dtype).max
            projected = self.around(x.double()).project_(x_adv.to(torch.float64, copy=True))
            rounded = projected.clamp_(-largest, largest).to(x.dtype)
        else:
            eps = _round_down(self.eps, x.dtype)
            if self.norm != "linf":  # room for the rounding of whoever adds the terms up again
                eps = eps * (1 - 16 * torch.finfo(x.dtype).eps)
            region = replace(self, eps=eps).around(x.double())
            delta = region.perturbation(x_adv.double())
            rounded = (region.x + delta).to(x.dtype)
            # Every norm grows with each |delta_i|: it is enough that rounding enlarges none.
            outward = (rounded.double() - region.x).abs() > delta.abs()
            rounded = torch.where(outward, torch.nextafter(rounded, x), rounded)
        if self.bounds is not None:
            low, high = self._sides(x)
            rounded = torch.maximum(torch.minimum(rounded, high), low)
        return torch.where(rounded == x, x, rounded)  # a zero keeps its sign

    def around(self, x):
        """Prepare the geometry around one batch: what a loop needs, computed once.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)
            The inputs; their dtype and device are those of all the arithmetic.

        Returns
        -------
        region : Region
            Has ``project_(z)`` and ``step_(z, grad, fraction)``, which work in place,
            ``steepest(grad)``, ``random(noise)`` and ``take(rows)``.
        """
        return Region(self, x)

    def check_inputs(self, X):
        """Raise a ValueError if an input lies outside the bounds, or nothing fits their number.

        Parameters
        ----------
        X : ndarray of shape (n_samples, ...)
        """
        n_features = prod(X.shape[1:])
        fit_length(self.eps, n_features, "eps")
        if self.mask is not None:
            mask_to_bool(self.mask, n_features)
        if self.bounds is None:
            return
        low, high = (
            np.broadcast_to(fit_length(side, n_features, "bounds").astype(X.dtype), (n_features,))
            for side in self.bounds
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
    def _unlimited(self):
        return bool(np.isinf(self.eps).any())

    def _sides(self, x):
        """Low and high in the dtype of ``x``, ready to broadcast with it."""
        return tuple(
            torch.tensor(per_feature(side, x.shape[1:], "bounds"), dtype=x.dtype, device=x.device)
            for side in self.bounds
        )


def _round_down(eps, dtype):
    """Largest number of ``dtype`` that is not above ``eps``."""
    exact = torch.tensor(eps, dtype=torch.float64)
    rounded = exact.to(dtype)
    above = rounded.double() > exact
    rounded = torch.where(above, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded)
    return rounded.double().numpy()
