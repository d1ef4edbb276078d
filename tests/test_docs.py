"""Every example in a docstring or the README is run."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fastrsx
import fastrsx.kernels

README = Path(__file__).parent.parent / "README.md"
GUIDE = README.parent / "docs" / "embedding.md"
PACKAGES = (fastrsx, fastrsx.kernels)
FOUND = [(package, module) for package in PACKAGES for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]
MODULES = [f"{package.__name__}.{module.name}" for package, module in FOUND if not module.name.startswith("cuda")]  # which need numba-cuda
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


@pytest.mark.skipif(not README.exists(), reason="the README lies beside the tests only in a checkout")
def test_readme_examples():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        test = doctest.DocTestParser().get_doctest(block, {}, "README", str(README), 0)
        assert test.examples
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide lies beside the tests only in a checkout")
def test_guide_examples():
    test = doctest.DocTestParser().get_doctest(GUIDE.read_text(encoding="utf-8"), {}, "guide", str(GUIDE), 0)
    assert len(test.examples) > 40
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0
