"""The documentation site: `tox -e docs`, warnings as errors."""

import re
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from sphinx.application import Sphinx

import repsim

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference import write_reference  # noqa: E402  (beside this file)

project, author = "repsim", "The repsim developers"
version = release = repsim.__version__
copyright = author
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
root_doc = "index"
templates_path = ["_templates"]
exclude_patterns = [
    "_build",
    "_templates",
    "gallery",
    "explain",
    "**.ipynb",
    "**/README.*",
]
suppress_warnings = ["config.cache"]  # the galleries' order is a function

html_theme = "pydata_sphinx_theme"
html_title = "repsim"
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"start": [], "index": []}  # no pages lie beneath them
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections say them
autodoc_default_options = {"members": True, "inherited-members": False}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": ["gallery", "explain"],
    "gallery_dirs": ["auto_gallery", "auto_explain"],
    "filename_pattern": r"/\w+\.py",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "matplotlib_animations": True,
    "plot_gallery": "True",
    "min_reported_time": 1000,
    "write_computation_times": False,
    "show_memory": False,
    "reset_modules": ("matplotlib",),
}
mpl.use("agg")

write_reference(HERE / "generated")

# Films name a style sheet elsewhere for their buttons; the theme has the same letters.
SHEET = re.compile(r'<link rel="stylesheet"\s+href="https://[^"]*font-awesome[^"]*">')
PAPER = re.compile(r"(?<![/`:])\barXiv:(\d{4}\.\d{4,5})\b")


def without_elsewhere(
    app: Sphinx, page: str, template: str, context: dict[str, Any], tree: object
) -> None:
    """Take out what a page would fetch from a third place."""
    if "body" in context:
        context["body"] = SHEET.sub("", context["body"])


def with_papers(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Make references to arXiv links, as DOIs are."""
    link = r"`arXiv:\1 <https://arxiv.org/abs/\1>`__"
    lines[:] = [PAPER.sub(link, line) for line in lines]


def setup(app: Sphinx) -> None:
    """Connect both."""
    app.connect("html-page-context", without_elsewhere)
    app.connect("autodoc-process-docstring", with_papers)
