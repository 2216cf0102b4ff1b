"""Arrays and data frames: rows, columns, and results in the container of the input."""

import numpy as np

# Inputs keep these dtypes; inputs of any other dtype are converted to the first of them.
FLOATS = [np.float64, np.float32]


def is_dataframe(X):
    """Return whether ``X`` is a pandas data frame, without importing pandas."""
    return hasattr(X, "iloc") and hasattr(X, "columns")


def take_rows(X, rows):
    """Return rows of an array or a data frame by position."""
    return X.iloc[rows] if is_dataframe(X) else X[rows]


def like(X, array):
    """Return ``array`` as a data frame with the index and columns of ``X``, if ``X`` is one."""
    if not is_dataframe(X):
        return array
    return type(X)(array, index=X.index, columns=X.columns)


def frame_like(X, array):
    """Return ``array`` as a data frame with the columns of ``X``, if ``X`` is one; new index."""
    return type(X)(array, columns=X.columns) if is_dataframe(X) else array


def column_names(X):
    """Return the column names of a data frame; None for an array."""
    return np.asarray(X.columns, dtype=object) if is_dataframe(X) else None
