"""The site has a place for every public name, every page of the gallery and every page of text, whose examples are run. Sphinx is not needed."""

import ast
import doctest
import re
from pathlib import Path

import pytest

import fastrsx
from fastrsx.kernels import dense, solve

DOCS = Path(__file__).parent.parent / "docs"
RUN_ELSEWHERE = {"embedding.md", "theory.md"}  # tests/test_docs.py, tests/test_convexity.py
PAGES = sorted(DOCS.glob("**/*.md"))
EXAMPLES = [page for page in PAGES if ">>>" in page.read_text(encoding="utf-8") and page.name not in RUN_ELSEWHERE]
SCRIPTS = sorted(DOCS.glob("gallery/*.py"))
pytestmark = pytest.mark.skipif(not PAGES, reason="the documentation lies beside the tests only in a checkout")


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def test_every_public_name_is_in_the_api():
    listed = re.findall(r"^   ([\w.]+)$", text_of("api/index.md"), re.MULTILINE)
    assert [name for name in listed if "." not in name and not hasattr(fastrsx, name)] == []
    assert set(fastrsx.__all__) <= set(listed)


def test_every_kernel_of_the_guide_is_in_the_api():
    documented = set(re.findall(r"autofunction:: (\w+)", text_of("api/kernels.md")))
    named = set(re.findall(r"(?:dense|solve)\.(\w+)\(", text_of("embedding.md")))
    assert {name.removesuffix("_serial") for name in named} <= documented
    public = {name for name in dense.__all__ if f"{name}_serial" in dense.__all__ and name != "products"}
    assert public <= documented
    assert all(hasattr(dense, name) or hasattr(solve, name) for name in documented)


def test_every_script_of_the_gallery_is_a_page():
    order = re.search(r"^ORDER = \((.*?)\)", text_of("site_parts.py"), re.DOTALL | re.MULTILINE)
    assert len(SCRIPTS) > 5
    assert sorted(re.findall(r'"(\w+)"', order[1])) == [script.stem.removeprefix("plot_") for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_has_a_title_a_text_and_a_picture(script):
    source = script.read_text(encoding="utf-8")
    compile(source, script, "exec")
    title, rule, empty, *text = ast.get_docstring(ast.parse(source)).splitlines()
    assert (rule, empty, bool(text)) == ("=" * len(title), "", True)
    assert source.endswith("plt.show()\n")
    assert "\n# %%\n# " in source  # what was learned


@pytest.mark.parametrize("script", [script for script in SCRIPTS if not script.stem.startswith("plot_")], ids=lambda script: script.stem)
def test_a_script_that_is_not_run_brings_its_picture(script):
    picture, source = f"_static/{script.stem}.png", script.read_text(encoding="utf-8")
    assert f"\n# .. image:: /{picture}\n" in source
    assert f'\n# sphinx_gallery_thumbnail_path = "{picture}"\n' in source
    assert 0 < (DOCS / picture).stat().st_size < 150_000


def test_every_page_is_in_the_contents():
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for block in re.findall(r"```\{toctree\}(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            entries = [line.strip().split("<")[-1].rstrip(">") for line in block.splitlines() if ":" not in line]
            listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    assert [page for page in PAGES if page.resolve() not in listed] == []


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_examples(page):
    test = doctest.DocTestParser().get_doctest(page.read_text(encoding="utf-8"), {}, page.name, str(page), 0)
    assert test.examples
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0
