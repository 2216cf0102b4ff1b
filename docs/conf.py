import re
from importlib.metadata import version as installed_version

project = "skrobust"
author = copyright = "The skrobust developers"
release = version = installed_version("skrobust")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]

default_role = "literal"
html_theme = "furo"
html_title = f"skrobust {release}"

# The docstrings are the reference: a page for each public name, its methods written out.
numpydoc_show_class_members = False
autodoc_typehints = "none"

# References into skrobust must resolve; the names of other projects are left as they are.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!skrobust(\.|$)).*")]


def skip_members(app, what, name, obj, skip, options):
    """Leave out what classes inherit from other libraries: scikit-learn documents it."""
    module = getattr(obj, "__module__", None) or "skrobust"
    return True if not re.match(r"skrobust(\.|$)", module) else None


def setup(app):
    app.connect("autodoc-skip-member", skip_members)
