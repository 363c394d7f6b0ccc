"""The docs site (Sphinx, MyST): the pages as they stand in the checkout, so that links are those of the files."""

import shutil
from pathlib import Path

from pygments.lexers.special import TextLexer

project = "sahub"
copyright = "the authors of sahub, Apache-2.0"
extensions = ["myst_parser"]
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**",
    "examples/*.md",
    "sahub/embedded/README.md",
]
exclude_patterns = [".venv", ".git", "site", "outputs", "multirun", "demo", "tests", "build", "dist"]
root_doc = "docs/index"
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_block"]

html_theme = "furo"
html_title = "sahub"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"footer_icons": []}


def _front_page(app, error):
    """A site opens at its root, whichever page is first."""
    if error is None and app.builder.format == "html":
        page = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=docs/index.html">\n'
        Path(app.outdir, "index.html").write_text(page, "utf-8")
        shutil.rmtree(Path(app.outdir, ".doctrees"), ignore_errors=True)


def setup(app):
    """Diagrams in text are shown as text: what draws them would be fetched by the reader's browser."""
    app.add_lexer("mermaid", TextLexer)
    app.connect("build-finished", _front_page)
