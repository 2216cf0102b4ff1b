"""Plot of clean and adversarial inputs."""

import numpy as np

from ..adapters import FittedClassifier
from ..attacks import resolve_attack
from ..utils._containers import column_names, is_dataframe, take_rows
from ._matplotlib import import_pyplot

_RIGHT, _WRONG = "black", "tab:red"
_UP, _DOWN = "tab:red", "tab:blue"


class AdversarialExamplesDisplay:
    """Adversarial examples: the changes by an attack, and the predictions after them.

    Images are shown in three rows: clean, adversarial, and their difference. Other data are shown
    in one panel per sample, with a bar for each changed feature. The titles are predictions; wrong
    predictions are red.

    Use :meth:`from_estimator` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    X, X_adv : array-like of shape (n_samples, n_features) or (n_samples, ...)
        Clean and adversarial inputs.

    y_pred, y_pred_adv : array-like of shape (n_samples,)
        Predictions for the clean and for the adversarial inputs.

    y : array-like of shape (n_samples,), default=None
        Correct labels. None means ``y_pred``.

    image_shape : tuple of int, default=None
        Shape of one image: (height, width), or with one or three channels (channels, height,
        width) or (height, width, channels). None means the shape of a sample if it has two or
        three axes, and no images if X has rows of features.

    feature_names : array-like of str of shape (n_features,), default=None
        Names for the bars. None numbers the features.

    scale : float or array-like of shape (n_features,), default=None
        Unit of each bar, for example the budget of the feature. None means units of X.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes of shape (3, n_samples) or (1, n_samples)
        Axes of the images, or of the bars.

    ax_ : matplotlib.axes.Axes
        Axes that ``axes_`` replace.

    figure_ : matplotlib.figure.Figure
        Figure that contains the axes.

    See Also
    --------
    RobustnessCurveDisplay : Plot of the robust accuracy over eps.
    skrobust.attacks.PGD : An attack.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import matplotlib.pyplot as plt
    >>> from skrobust.inspection import AdversarialExamplesDisplay
    >>> display = AdversarialExamplesDisplay(
    ...     X=[[0.1, 0.2]], X_adv=[[0.3, 0.2]], y_pred=["cat"], y_pred_adv=["dog"]
    ... )
    >>> display.plot().axes_[0, 0].get_title()
    'cat → dog'
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        *,
        X,
        X_adv,
        y_pred,
        y_pred_adv,
        y=None,
        image_shape=None,
        feature_names=None,
        scale=None,
    ):
        self.X = X
        self.X_adv = X_adv
        self.y_pred = y_pred
        self.y_pred_adv = y_pred_adv
        self.y = y
        self.image_shape = image_shape
        self.feature_names = feature_names
        self.scale = scale

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        attack,
        image_shape=None,
        n_samples=6,
        feature_names=None,
        random_state=0,
        ax=None,
        **kwargs,
    ):
        """Attack a classifier on the first samples, and plot them.

        Parameters
        ----------
        estimator : fitted classifier or torch.nn.Module
            Classifier to attack. A pipeline is attacked at its raw input.

        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs, in the units of the ``eps`` and ``bounds`` of the attack.

        y : array-like of shape (n_samples,), default=None
            True labels. None means the predictions of the estimator.

        attack : BaseAttack
            The attack, such as ``PGD(eps=0.1)``. If its ``eps`` has one budget per feature, this
            is the unit of the bars.

        image_shape : tuple of int, default=None
            Shape of one image, if the rows of X are images; see the class.

        n_samples : int, default=6
            Number of samples to attack and to plot, from the first row of X on.

        feature_names : array-like of str of shape (n_features,), default=None
            Names for the bars. None means the columns of a DataFrame; features of an array are
            numbered.

        random_state : int, RandomState instance or None, default=0
            Seed of the attack, if its own ``random_state`` is None.

        ax : matplotlib.axes.Axes, default=None
            Axes to replace. None makes a new figure.

        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : AdversarialExamplesDisplay

        Examples
        --------
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> import matplotlib.pyplot as plt
        >>> from sklearn.datasets import load_digits
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from skrobust.attacks import PGD
        >>> from skrobust.inspection import AdversarialExamplesDisplay
        >>> X, y = load_digits(return_X_y=True)
        >>> clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
        >>> display = AdversarialExamplesDisplay.from_estimator(
        ...     clf, X, y, attack=PGD(eps=2, bounds=(0, 16)), image_shape=(8, 8), n_samples=4
        ... )
        >>> display.axes_.shape
        (3, 4)
        >>> plt.close(display.figure_)
        """
        import_pyplot(cls)  # fail before the attack runs, not after it
        if attack is None:
            raise TypeError(
                "attack must be an attack of skrobust.attacks, such as PGD(eps=0.1); got None."
            )
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1; got {n_samples}.")
        attack = resolve_attack(attack, random_state=random_state)
        if feature_names is None:
            feature_names = column_names(X)
        X = take_rows(X if is_dataframe(X) else np.asarray(X), slice(n_samples))
        y = None if y is None else np.asarray(y)[:n_samples]
        X_adv = attack.perturb(estimator, X, y)
        classifier = FittedClassifier(estimator)
        return cls(
            X=X,
            X_adv=X_adv,
            y_pred=classifier.predict(X),
            y_pred_adv=classifier.predict(X_adv),
            y=y,
            image_shape=image_shape,
            feature_names=feature_names,
            scale=attack.eps if np.ndim(attack.eps) else None,
        ).plot(ax, **kwargs)

    def plot(self, ax=None, *, cmap="gray", max_features=15):
        """Plot the samples.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to replace, made by ``subplots`` or with a grid. None makes a new figure.

        cmap : str or matplotlib.colors.Colormap, default="gray"
            Colour map of images with one channel.

        max_features : int, default=15
            Largest number of bars. Bars show the features with the largest change, averaged over
            the samples in units of ``scale``.

        Returns
        -------
        display : AdversarialExamplesDisplay
            The display itself, with the attributes of the plot.
        """
        pyplot = import_pyplot(self)
        X, X_adv = np.asarray(self.X, dtype=float), np.asarray(self.X_adv, dtype=float)
        if X.shape != X_adv.shape or X.ndim < 2:
            raise ValueError(
                "AdversarialExamplesDisplay needs X and X_adv of one shape (n_samples, ...); got "
                f"{X.shape} and {X_adv.shape}."
            )
        image_shape = X.shape[1:] if self.image_shape is None and X.ndim > 2 else self.image_shape
        if image_shape is None:
            self._plot_bars(pyplot, ax, X, X_adv - X, max_features)
        else:
            self._plot_images(pyplot, ax, X, X_adv, image_shape, cmap)
        return self

    def _plot_images(self, pyplot, ax, X, X_adv, image_shape, cmap):
        clean, adversarial = (_as_images(part, image_shape) for part in (X, X_adv))
        difference = adversarial - clean
        if difference.ndim == 4:  # show the channel with the largest change
            strongest = np.abs(difference).argmax(axis=3, keepdims=True)
            difference = np.take_along_axis(difference, strongest, axis=3)[..., 0]
        low, high = _value_range(clean, adversarial)
        largest = np.abs(difference).max() or 1.0
        n = len(X)
        self._make_grid(pyplot, ax, 3, n, figsize=(1.1 * n + 1, 3.8))
        for j in range(n):
            for i, images in enumerate((clean, adversarial)):
                # For images with channels, imshow ignores vmin and vmax: scale to [0, 1] first.
                shown = (images[j] - low) / (high - low)
                self.axes_[i, j].imshow(shown, cmap=cmap, vmin=0, vmax=1)
                self._set_title(self.axes_[i, j], j, adversarial=bool(i))
            artist = self.axes_[2, j].imshow(
                difference[j], cmap="RdBu_r", vmin=-largest, vmax=largest
            )
        for ax in self.axes_.flat:
            ax.set(xticks=[], yticks=[])
        for ax, label in zip(self.axes_[:, 0], ("clean", "adversarial", "difference"), strict=True):
            ax.set_ylabel(label)
        beside = self.axes_[2, -1].inset_axes([1.1, 0, 0.1, 1])
        self.figure_.colorbar(artist, cax=beside)

    def _plot_bars(self, pyplot, ax, X, change, max_features):
        scale = np.ones(X.shape[1]) if self.scale is None else np.asarray(self.scale, dtype=float)
        scale = np.broadcast_to(scale.ravel(), X.shape[1:])
        # A feature without a budget cannot change, and has no bar.
        bars = np.divide(change, scale, out=np.zeros_like(change), where=scale > 0)
        size = np.abs(bars).mean(axis=0)
        n_changed = int((size > 0).sum())
        shown = np.argsort(-size, kind="stable")[: min(max_features, max(n_changed, 1))]
        names = self.feature_names
        names = [f"feature {i}" if names is None else str(names[i]) for i in shown]
        n = len(X)
        self._make_grid(pyplot, ax, 1, n, figsize=(1.6 * n + 2, 0.24 * len(shown) + 1.4))
        limit = 1.08 * (np.abs(bars).max() or 1.0)
        for j, ax in enumerate(self.axes_[0]):
            heights = bars[j, shown]
            colors = np.where(heights > 0, _UP, _DOWN)
            ax.barh(np.arange(len(shown)), heights, color=colors, height=0.7)
            ax.axvline(0, color="black", linewidth=0.8)
            ax.set(xlim=(-limit, limit), ylim=(len(shown) - 0.5, -0.5), yticks=[])
            ax.locator_params(axis="x", nbins=4)
            self._set_title(ax, j, adversarial=True, both=True)
        self.axes_[0, 0].set_yticks(np.arange(len(shown)), names)
        hidden = "" if n_changed <= len(shown) else f"; {len(shown)} of {n_changed} features"
        unit = "in units of X" if self.scale is None else "in units of eps"
        middle = 0.5 if n % 2 else 1.04  # centre the label between two panels if n is even
        self.axes_[0, (n - 1) // 2].set_xlabel(f"change ({unit}{hidden})", x=middle)

    def _make_grid(self, pyplot, ax, n_rows, n_columns, figsize):
        """Replace ``ax`` by a grid of axes."""
        from matplotlib.gridspec import GridSpecFromSubplotSpec

        if ax is None:
            _, ax = pyplot.subplots(figsize=figsize, layout="constrained")
        place = ax.get_subplotspec()
        if place is None:
            raise ValueError(
                "ax must have a place in a grid, so that several axes can replace it; got axes "
                "without a grid. Make ax by plt.subplots() or figure.add_subplot()."
            )
        ax.set_axis_off()
        self.ax_, self.figure_ = ax, ax.figure
        grid = GridSpecFromSubplotSpec(
            n_rows, n_columns, subplot_spec=place, wspace=0.06, hspace=0.06
        )
        self.axes_ = np.empty((n_rows, n_columns), dtype=object)
        for i, j in np.ndindex(n_rows, n_columns):
            self.axes_[i, j] = ax.figure.add_subplot(grid[i, j])

    def _set_title(self, ax, j, *, adversarial, both=False):
        clean = np.asarray(self.y_pred)[j]
        predicted = np.asarray(self.y_pred_adv)[j] if adversarial else clean
        right = predicted == (clean if self.y is None else np.asarray(self.y)[j])
        title = str(predicted)
        if both:
            title = f"{clean} → {predicted}"
            if len(title) > 14:  # the longest title that fits above one panel
                title = f"{clean}\n→ {predicted}"
        ax.set_title(title, color=_RIGHT if right else _WRONG, fontsize="medium")


def _as_images(X, shape):
    """Return images of shape (n_samples, height, width) or (n_samples, height, width, 3)."""
    shape = tuple(shape)
    if np.prod(shape) != np.prod(X.shape[1:]):
        raise ValueError(
            f"image_shape must have as many values as a sample: {shape} holds {np.prod(shape)}, "
            f"and a sample has {np.prod(X.shape[1:])}."
        )
    images = X.reshape(len(X), *shape)
    if len(shape) == 3 and shape[0] in (1, 3):
        images = np.moveaxis(images, 1, 3)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3):
        return images
    raise ValueError(
        "image_shape must be (height, width), or with 1 or 3 channels (channels, height, width) or "
        f"(height, width, channels); got {shape}."
    )


def _value_range(*images):
    """Return the values to show as black and white: 0 and 1 if all values fit, or the extremes."""
    low, high = min(i.min() for i in images), max(i.max() for i in images)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1.0
