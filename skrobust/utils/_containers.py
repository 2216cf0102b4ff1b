"""What comes in goes out: dtypes and data frames."""

import numpy as np

# The dtypes that are kept; everything else becomes the first.
FLOATS = [np.float64, np.float32]


def is_dataframe(X):
    """Whether ``X`` is a pandas data frame (without importing pandas)."""
    return hasattr(X, "iloc") and hasattr(X, "columns")


def take_rows(X, rows):
    """Rows of an array or a data frame."""
    return X.iloc[rows] if is_dataframe(X) else X[rows]


def like(X, array):
    """``array`` in the container of ``X``: same index and columns, if it is a data frame."""
    if not is_dataframe(X):
        return array
    return type(X)(array, index=X.index, columns=X.columns)


def frame_like(X, array):
    """``array``, of any number of rows, with the columns of ``X``, if it is a data frame."""
    return type(X)(array, columns=X.columns) if is_dataframe(X) else array


def column_names(X):
    """Names of the columns of ``X``, or None where it has none."""
    return np.asarray(X.columns, dtype=object) if is_dataframe(X) else None
