"""Every example in a docstring or the README is run, links lead to files, and lines of prose are short."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fastrsx
import fastrsx.kernels

ROOT = Path(__file__).parent.parent
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "embedding.md"
PAGES = [page for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")]) if page.name != "CHANGELOG.md"]
in_checkout = pytest.mark.skipif(not README.exists(), reason="the documentation lies beside the tests only in a checkout")
PACKAGES = (fastrsx, fastrsx.kernels)
# These need numba-cuda.
ON_GPU = tuple(f"fastrsx.{name}" for name in ("engines.cuda", "engines.exchange", "engines.spare", "kernels.cuda", "kernels.gpu"))
FOUND = [module.name for package in PACKAGES for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
MODULES = [name for name in FOUND if not name.startswith(ON_GPU)]
PUBLIC = [name for name in fastrsx.__all__ if callable(getattr(fastrsx, name))]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("name", ["newton", "newton_batch", "Problem", "Link", "check_link", "predict", "plan", "warmup", "Factors"])
def test_public_names_have_an_example(name):
    assert ">>>" in getattr(fastrsx, name).__doc__


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    assert len(getattr(fastrsx, name).__doc__) > 40


def outside_fences(page):
    """The numbered lines of a page that are not code."""
    is_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield number, line


@in_checkout
def test_readme_examples():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        test = doctest.DocTestParser().get_doctest(block, {}, "README", str(README), 0)
        assert test.examples
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


@in_checkout
def test_guide_examples():
    test = doctest.DocTestParser().get_doctest(GUIDE.read_text(encoding="utf-8"), {}, "guide", str(GUIDE), 0)
    assert len(test.examples) > 40
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


@in_checkout
def test_readme_commands():
    """ci/readme.sh finds them by this pattern."""
    commands = re.findall(r"^pip install .* && .*$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ["pip install . && fastrsx demo", "pip install -e '.[test]' && pytest -n auto"]


@in_checkout
def test_links_lead_to_files():
    links = [(page, link) for page in PAGES for _, line in outside_fences(page) for link in re.findall(r"\]\(([^)#]+)[^)]*\)", line)]
    assert len(links) > 20
    assert not [f"{page.relative_to(ROOT)}: {link}" for page, link in links if "://" not in link and not (page.parent / link).exists()]


@in_checkout
def test_prose_is_at_most_100_characters_wide():
    prose = [(page, number, line) for page in PAGES for number, line in outside_fences(page) if not line.startswith("| ")]
    assert len(prose) > 500
    assert not [f"{page.relative_to(ROOT)}:{number}" for page, number, line in prose if len(line) > 100]


@in_checkout
def test_citation_is_of_this_version():
    assert f"\nversion: {fastrsx.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
