"""What the site has of its own: formulas as MathML, the table of plans, links out of docs, and which members of a class are shown."""

import os
import re
import tempfile
import types
from pathlib import Path

import dask.array
import numpy as np
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from docutils.utils.math.latex2mathml import tex2mathml
from scipy.sparse import csr_array

import fastrsx
from fastrsx.cli import build_parser

# -- formulas -------------------------------------------------------------------------------------------------


def visit_math(writer, node):
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_displayed_math(writer, node):
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


# -- the decision table ---------------------------------------------------------------------------------------


def empty(n, d, dtype=float, order="C"):
    """An array that takes no memory until it is written, which a plan never does."""
    return np.empty((n, d), dtype, order)


def on_disk(n, d):
    """A memory map of a file of holes."""
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - lives as long as the map, whose name is gone when it closes
    array = np.memmap(file, float, "w+", shape=(n, d))
    file.close()
    return array


def sparse(n, d, entries):
    """That many entries in each row, all in the first columns."""
    return csr_array((np.ones(n * entries), np.tile(np.arange(entries), n), np.arange(n + 1) * entries), shape=(n, d))


PLANNED = {  # an A of each kind that takes no memory: a plan reads shape, dtype and layout alone
    "a small table": lambda: empty(2_000, 5),
    "many rows, few columns": lambda: empty(1_000_000, 16),
    "hundreds of columns": lambda: empty(100_000, 256),
    "more columns than rows": lambda: empty(500, 5_000),
    "many of both": lambda: empty(20_000, 5_000),
    "float32, in Fortran's order": lambda: empty(200_000, 32, np.float32, "F"),
    "sparse, a few entries a row": lambda: sparse(200_000, 2_000, 4),
    "a file beyond memory (`np.memmap`)": lambda: on_disk(4_000_000_000, 32),
    "chunks on a cluster (dask)": lambda: dask.array.zeros((10_000_000, 32), chunks=(500_000, 32)),
}


class Plans(Directive):
    """A table with a row for each entry of PLANNED, as `fastrsx.plan` describes it on the machine that builds the site."""

    def run(self):
        rows = [("What you have", "n x d", "hessian", "what `newton(A, b)` runs"), ("---", "--:", "---", "---"), *map(self.row, PLANNED)]
        table = nodes.Element()
        self.state.nested_parse(StringList([f"| {' | '.join(cells)} |" for cells in rows], source="plans"), 0, table)
        table[0]["classes"].append("plans")
        return table.children

    @staticmethod
    def row(what):
        A = PLANNED[what]()
        plan = fastrsx.plan(A)
        return what, f"{A.shape[0]:,} x {A.shape[1]:,}", f'`"{plan.hessian}"`', str(plan)


# -- the command line -----------------------------------------------------------------------------------------


class CommandHelp(Directive):
    """The help of a command, as a terminal of 80 columns shows it."""

    optional_arguments = 1

    def run(self):
        os.environ["COLUMNS"] = "80"
        parser = build_parser()
        if self.arguments:
            parser = next(action for action in parser._actions if action.dest == "command").choices[self.arguments[0]]
        return [nodes.literal_block(text := parser.format_help(), text, language="none")]


# -- files beside docs/ -----------------------------------------------------------------------------------------

DOCS = Path(__file__).parent
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "bench/README.md": "measuring.md", "bench/RESULTS.md": "results.md"}
PAGE_OF = {(DOCS.parent / file).resolve(): DOCS / page for file, page in PAGES.items()}
INCLUDE = re.compile(r"```\{include\} (.*)\n```")
LINK = re.compile(r"\]\(([^)#:]+)([)#])")


def bring(app, name, source):
    """Put included files in place, and lead links to a file that is a page of the site to that page."""
    folder = (DOCS / name).parent

    def with_links(text, base):
        def lead(link):
            target = (base / link[1]).resolve()
            return f"]({os.path.relpath(PAGE_OF.get(target, target), folder)}{link[2]}"

        return LINK.sub(lead, text)

    def included(line):
        file = folder / line[1]
        return with_links(file.read_text(encoding="utf-8"), file.parent)

    parts = INCLUDE.split(source[0])
    source[0] = INCLUDE.sub(included, source[0]) if len(parts) > 1 else with_links(source[0], folder)


# -- docstrings -----------------------------------------------------------------------------------------------


def of_module(module, name, *default):
    """A module's attribute, where compiled functions are the Python functions that they were compiled from."""
    found = getattr(module, name, *default)
    return getattr(found, "py_func", found)


def link_pages(app, what, name, member, options, lines):
    """Lead the names of pages in docstrings to the pages."""
    lines[:] = [re.sub(r"docs/(\w+)\.md", r":doc:`docs/\1.md </\1>`", line) for line in lines]


def skips(app, what, name, member, skip, options):
    """Fields of named tuples, which class docstrings describe."""
    return True if type(member).__name__ == "_tuplegetter" else None


# -- the gallery ----------------------------------------------------------------------------------------------

ORDER = (
    "cars",
    "attention",
    "vocabulary",
    "landscape",
    "no_minimum",
    "uncertainty",
    "convergence",
    "sampled",
    "digits",
    "catsup",
    "cities",
    "file",
    "dask",
)


def in_order(name):
    return ORDER.index(name.removeprefix("plot_").removesuffix(".py"))


def picture_style(gallery_conf, name):
    """What all pictures of the gallery share."""
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.figsize": (7.2, 4.4),
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            "axes.grid": False,
            "legend.frameon": False,
            "font.size": 10.5,
        }
    )


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displayed_math, None))
    app.add_directive("plans", Plans)
    app.add_directive("command-help", CommandHelp)
    app.add_autodoc_attrgetter(types.ModuleType, of_module)
    app.connect("source-read", bring)
    app.connect("autodoc-process-docstring", link_pages)
    app.connect("autodoc-skip-member", skips)
    return {"parallel_read_safe": True}
