"""Private names of scikit-learn, imported here only (checked for versions 1.6 to 1.9)."""

from sklearn.base import _fit_context as fit_context
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _check_feature_names as check_feature_names
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "BaseSearchCV",
    "HasMethods",
    "Interval",
    "StrOptions",
    "check_feature_names",
    "check_sample_weight",
    "column_indices",
    "fit_context",
    "gamma_of",
    "is_multilabel",
]


def column_indices(column_transformer):
    """Return the input columns of each part of a fitted ColumnTransformer, as `{name: indices}`.

    The public ``transformers_`` holds the columns as the user gave them: as names, slices or
    callables. In scikit-learn 1.6 it is also a list that warns when it is read.
    """
    return column_transformer._transformer_to_input_indices


def gamma_of(svm):
    """Return the gamma of a fitted support vector machine as a number."""
    return svm._gamma


def is_multilabel(ridge_classifier):
    """Return whether a fitted RidgeClassifier predicts several labels per sample.

    Its public attributes do not distinguish this case from a fit on several classes.
    """
    return ridge_classifier._label_binarizer.y_type_.startswith("multilabel")
