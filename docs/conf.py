"""Settings of the documentation site: ``make docs`` writes it to ``build/docs``."""

from spectral_probe import __version__

project, author, release = "Spectral Probe", "the maintainers of Spectral Probe", __version__
copyright = f"2026, {author}"  # noqa: A001
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["README.md"]
html_theme, html_title = "furo", "Spectral Probe"
html_theme_options = {"source_directory": "docs/"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_update_mathjax = False
#: Tables that a command writes begin with a heading of their level on the page that holds them.
suppress_warnings = ["myst.header"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_mock_imports: list[str] = []
autosummary_generate = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
nitpicky = False
