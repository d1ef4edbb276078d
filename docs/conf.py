"""The configuration of the site; `site_parts.py` beside it has what is our own."""

import sys
from pathlib import Path

import fastrsx

sys.path.insert(0, str(Path(__file__).parent))

project, author, copyright = "fastrsx", "The fastrsx developers", "The fastrsx developers"
version = release = fastrsx.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "site_parts",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["gallery", "auto_gallery/**/*.ipynb", "auto_gallery/**/*.py"]
templates_path = ["_templates"]
highlight_language = "none"  # what a fence without a language holds is a formula or a command

# -- Markdown -------------------------------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"  # without scripts from elsewhere

# -- the API, from docstrings ---------------------------------------------------------------------------------
default_role = "autolink"
autodoc_typehints = "none"  # the docstrings have them, in the words of users
nitpick_ignore_regex = [("py:obj", r"(math|scipy)\..*")]  # no other project's pages are fetched
numpydoc_show_class_members = False  # the template lists them
copybutton_exclude = ".linenos, .gp, .go"

# -- the gallery ----------------------------------------------------------------------------------------------
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "site_parts.in_order",
    "backreferences_dir": "auto_gallery/backreferences",
    "doc_module": ("fastrsx",),
    "matplotlib_animations": False,
    "min_reported_time": 1e9,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "image_srcset": ["2x"],
    "reset_modules": ("matplotlib", "site_parts.picture_style"),
    "write_computation_times": False,
}

# -- HTML -----------------------------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "fastrsx"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "fastrsx"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {name: [] for name in ("index", "start", "which", "faq", "changelog", "cite")}
