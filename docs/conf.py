"""Sphinx builds the site: Markdown by MyST, the API reference from docstrings, search without a server. `nox -s docs` runs it."""

from __future__ import annotations

import importlib
from typing import Any

import otel_amplitude

# What users import. Names are imported when first used, and Sphinx does not ask for them: each is put into its module.
MODULES = (
    "otel_amplitude",
    "otel_amplitude.middleware",
    "otel_amplitude.testing",
    "otel_amplitude.sandbox",
    *(f"otel_amplitude.frameworks.{name}" for name in ("asgi", "celery", "django", "flask", "starlette", "wsgi")),
)
for module in map(importlib.import_module, MODULES):
    vars(module).update({name: getattr(module, name) for name in getattr(module, "__all__", ())})

project = "otel_amplitude"
author = "The otel_amplitude authors"
release = version = otel_amplitude.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 3
default_role = "literal"  # docstrings write code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options: dict[str, Any] = {"members": True, "show-inheritance": False}
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
copybutton_prompt_text = "$ "
html_theme = "furo"
html_title = f"otel_amplitude {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": "https://github.com/otel-amplitude/otel-amplitude/",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_last_updated_fmt = None
