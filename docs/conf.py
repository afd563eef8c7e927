"""How the site is built: make docs."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import trimtab

project = "trimtab"
author = "The trimtab authors"
copyright = "the trimtab authors, Apache-2.0"
version = release = trimtab.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "building.methods",
    "building.results_index",
    "building.journal",
    "building.commands",
    "building.letters",
    "building.console",
    "building.plain_docstrings",
    "building.outside",
]
exclude_patterns = ["building", "_static"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # logs begin sections below the second level where they like

html_theme = "furo"
html_title = "trimtab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/flap.svg"
html_theme_options = {"light_logo": "flap.svg", "dark_logo": "flap.svg", "navigation_with_keys": True}
html_show_sourcelink = False
html_copy_source = False
pygments_style, pygments_dark_style = "tango", "monokai"
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
autodoc_typehints = "signature"
maximum_signature_line_length = 88
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other projects and private ones; there is no inventory offline
