"""Checks of the parameters of a threat model: ``eps``, ``bounds`` and ``mask``."""

import numpy as np

from ..utils._validation import read_only


def check_eps(eps, norm):
    """Return ``eps`` as a float or as a read-only float64 array with one budget per feature."""
    try:
        eps = np.asarray(eps, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"eps must be a number or one number per feature; got {eps!r}.") from error
    if norm == "l0":
        return _check_count(eps)
    if eps.ndim == 0 and eps == np.inf:
        if norm == "linf":
            return np.inf
        raise ValueError(
            f"eps=inf needs norm='linf'; got norm={norm!r}. Balls of infinite radius are the same "
            "in all norms."
        )
    if not np.isfinite(eps).all() or (eps < 0).any():
        wrong = eps[~np.isfinite(eps) | (eps < 0)].ravel()[0]
        raise ValueError(
            f"eps must be finite and not negative, in the units of X; got {wrong:g}. To leave a "
            "feature unlimited, use bounds and an eps as wide as they are."
        )
    return float(eps) if eps.ndim == 0 else read_only(eps)


def _check_count(eps):
    """Return the number of features that may change in l0, as a float."""
    needed = "eps must be one number of features, 0, 1, 2, ..., with norm='l0'"
    if eps.ndim:
        raise ValueError(
            f"{needed}; got an array of shape {eps.shape}. To name the features that can change, "
            "use mask."
        )
    if not np.isfinite(eps) or eps < 0:
        raise ValueError(
            f"{needed}; got {eps:g}. To let all features change, use eps=inf with norm='linf'."
        )
    if eps != np.floor(eps):
        raise ValueError(f"{needed}; got {eps:g}. Round it down.")
    return float(eps)


def check_bounds(bounds):
    """Return None or a pair (low, high) of floats or read-only float64 arrays."""
    if bounds is None:
        return None
    try:
        low, high = (np.asarray(side, dtype=np.float64) for side in bounds)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "bounds must be None or a pair (low, high) of numbers or of arrays with one number "
            f"per feature; got {bounds!r}."
        ) from error
    if np.isnan(low).any() or np.isnan(high).any():
        raise ValueError("bounds must not contain NaN; use -inf and inf for an open side.")
    try:
        crossed = np.atleast_1d(low > high).ravel()
    except ValueError as error:
        raise ValueError(
            f"bounds must have a low and a high of the same length; got shapes {low.shape} and "
            f"{high.shape}."
        ) from error
    if crossed.any():
        i = int(np.argmax(crossed))
        lows, highs = (np.broadcast_to(side.ravel(), crossed.shape) for side in (low, high))
        where = f" for feature {i}" if crossed.size > 1 else ""
        raise ValueError(
            f"bounds must have low <= high; got low={lows[i]:g} and high={highs[i]:g}{where}."
        )
    return tuple(float(s) if s.ndim == 0 else read_only(s) for s in (low, high))


def check_mask(mask, feature_names):
    """Return None, or read-only booleans or indices of the features that can change."""
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.ndim == 0:
        mask = mask.reshape(1)
    if mask.dtype == bool or np.issubdtype(mask.dtype, np.integer):
        return read_only(mask)
    if mask.size == 0:
        return read_only(np.empty(0, dtype=np.intp))
    if not all(isinstance(name, str) for name in mask.ravel()):
        raise ValueError(
            "mask must be None, booleans with one per feature, feature indices or column names; "
            f"got {mask!r}."
        )
    if feature_names is None:
        raise ValueError(
            "mask contains column names, and X has none. Give X as a DataFrame, or mask as "
            "indices or booleans."
        )
    position = {name: i for i, name in enumerate(feature_names)}
    unknown = [str(name) for name in mask.ravel() if name not in position]
    if unknown:
        raise ValueError(
            f"mask contains unknown column names: {', '.join(map(repr, unknown))}. The columns "
            f"of X are {', '.join(map(repr, feature_names))}."
        )
    return read_only(np.array([position[name] for name in mask.ravel()], dtype=np.intp))


def mask_to_bool(mask, n_features):
    """Return one boolean per feature from booleans or indices."""
    if mask.dtype == bool:
        if mask.size != n_features:
            raise ValueError(
                f"mask has {mask.size} booleans, but X has {n_features} features: give one "
                "boolean per feature, or indices or column names."
            )
        return mask.ravel()
    outside = mask[(mask < -n_features) | (mask >= n_features)]
    if len(outside):
        raise ValueError(
            f"mask contains the feature index {outside[0]}, but X has {n_features} features."
        )
    changeable = np.zeros(n_features, dtype=bool)
    changeable[mask] = True
    return changeable
