"""Private helpers that are shared by all sub-packages."""
