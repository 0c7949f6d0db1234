"""Sphinx: `make docs`."""

project = "twisted-wasmproxy"
author = "the twisted-wasmproxy authors"
extensions = ["myst_parser"]
html_theme = "alabaster"
myst_heading_anchors = 3
exclude_patterns = ["_build"]
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository
