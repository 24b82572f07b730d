"""Settings of the documentation site: ``make docs`` writes it to ``build/docs``."""

from spectral_probe import __version__

project, author, release = "Spectral Probe", "the maintainers of Spectral Probe", __version__
copyright = f"2026, {author}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
html_theme, html_title = "furo", "Spectral Probe"
html_theme_options = {"source_directory": "docs/"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
#: Words of a shape, such as (n_items, d), are the names of several attributes, and are no references.
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
