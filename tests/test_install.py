"""Installs by pip, one after another in one environment, and the files that an uninstall leaves.

After each one a kernel runs, so that there is a cache of compiled kernels, as after a newcomer's `fastrsx demo`.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "fastrsx", "kernels")


def why_not():
    """Why nothing can be built and installed here without an index, or an empty string."""
    if not all((ROOT / name).exists() for name in SOURCES):
        return "the sources lie beside the tests only in a checkout"
    if find_spec("pip") is None:
        return "needs pip"
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]:
        wanted = Requirement(line)
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None or found not in wanted.specifier:
            return f"builds with what is installed, and {line} is not: pip install '{line}'"
    return ""


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def command(*words, env=None, cwd=None):
    """The output of a command, after it has succeeded."""
    done = subprocess.run(words, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def pip(*words, python=sys.executable):
    """Run pip, without an index and without the user's settings."""
    return command(sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "--python", python, *words)


INSTALL = ("install", "--no-index", "--no-deps", "--no-build-isolation")


def project(folder, version, without=""):
    """A copy of the sources with that version, without one file."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", without))
        else:
            shutil.copy(source, folder / name)
    file = folder / "fastrsx" / "__init__.py"
    text, count = re.subn(r'__version__ = ".*"', f'__version__ = "{version}"', file.read_text(encoding="utf-8"))
    assert count == 1
    file.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Two wheels; the newer one lacks a module."""
    folder = tmp_path_factory.mktemp("wheels")
    for version, without in (("98.0", ""), ("99.0", "rank.py")):
        source = project(tmp_path_factory.mktemp("project"), version, without)
        pip("wheel", *INSTALL[1:], "--wheel-dir", str(folder), str(source))
    return {wheel.name.split("-")[1]: wheel for wheel in folder.iterdir()}


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory):
    """A directory of links to the other installed packages, but not to fastrsx."""
    folder = tmp_path_factory.mktemp("dependencies")
    for name in ("setuptools", "numba", "llvmlite", "numpy", "platformdirs"):
        for path in Path(find_spec(name).origin).parent.parent.iterdir():
            link = folder / path.name
            if "fastrsx" not in path.name and not link.is_symlink():
                try:
                    link.symlink_to(path)
                except OSError:
                    pytest.skip("needs symbolic links")
    return folder


class Environment:
    """A fresh virtual environment, with its own home and cache."""

    def __init__(self, folder, dependencies):
        venv.create(folder / "env", symlinks=os.name != "nt")
        self.folder = folder
        self.python = str(folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
        self.site = Path(self.run("import sysconfig\nprint(sysconfig.get_path('purelib'))"))
        self.links = self.site / "dependencies.pth"
        self.links.write_text(str(dependencies))
        self.before = self.files()

    def run(self, code):
        """The output of a new process that runs `code`."""
        home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(self.folder / "home"))
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NUMBA_", "FASTRSX_"))} | home
        return command(self.python, "-W", "error", "-c", code, env=env, cwd=self.folder)

    def install(self, *what):
        pip(*INSTALL, *what, python=self.python)

    def use(self):
        """Run a kernel; returns the version that is imported, and its folder."""
        code = """
import fastrsx
from fastrsx.kernels.layouts import panel
assert panel.padded(5) == 8
print(fastrsx.__version__, fastrsx.__file__, sep="\\n")
"""
        version, file = self.run(code).splitlines()
        assert list((self.folder / "home").rglob("panel.padded-*.nbc"))
        assert not list((self.folder / "env").rglob("*.nbc"))
        return version, Path(file).parent

    def files(self):
        """The files of the environment, without bytecode."""
        return {path.relative_to(self.site).as_posix() for path in self.site.rglob("*") if path.is_file() and "__pycache__" not in path.parts}

    def assert_has(self, wheel):
        """The environment has the files of the wheel, and none of another."""
        with zipfile.ZipFile(wheel) as archive:
            wanted = {name for name in archive.namelist() if name.startswith("fastrsx/")}
        assert {name for name in self.files() if name.startswith("fastrsx/")} == wanted

    def uninstall(self):
        """Uninstall; no file is left, and the package cannot be imported."""
        pip("uninstall", "--yes", "fastrsx", python=self.python)
        assert not [path for path in self.site.rglob("*") if "fastrsx" in path.name]
        assert self.files() == self.before
        self.run("import importlib.util\nassert importlib.util.find_spec('fastrsx') is None")


@pytest.fixture
def environment(tmp_path, dependencies):
    return Environment(tmp_path, dependencies)


def test_upgrade_of_a_wheel(environment, wheels):
    for version in ("98.0", "99.0"):
        environment.install(str(wheels[version]))
        assert environment.use() == (version, environment.site / "fastrsx")
        environment.assert_has(wheels[version])
    environment.uninstall()


def test_directory_then_editable(environment, tmp_path_factory):
    """As in the two commands of the README."""
    source = project(tmp_path_factory.mktemp("project"), "99.1")
    environment.install(str(source))
    assert environment.use() == ("99.1", environment.site / "fastrsx")
    environment.install("--editable", str(source))
    assert environment.use() == ("99.1", source / "fastrsx")
    assert not list(source.rglob("*.nbc"))
    environment.uninstall()


def test_editable_then_wheel(environment, wheels, tmp_path_factory):
    source = project(tmp_path_factory.mktemp("project"), "99.1")
    environment.install("--editable", str(source))
    assert environment.use() == ("99.1", source / "fastrsx")
    environment.install(str(wheels["98.0"]))
    assert environment.use() == ("98.0", environment.site / "fastrsx")
    environment.assert_has(wheels["98.0"])
    environment.uninstall()


def test_cache_that_an_early_version_left(environment, wheels, tmp_path_factory):
    """Versions before the first release kept kernels in the package, and pip leaves them: they hide an editable install until they are deleted."""
    left = environment.site / "fastrsx" / "kernels" / "__pycache__" / "panel.padded-22.py311.0123456789abcdef.0123456789abcdef.nbc"
    left.parent.mkdir(parents=True)
    left.touch()
    source = project(tmp_path_factory.mktemp("project"), "99.1")
    environment.install("--editable", str(source))
    assert environment.run("import fastrsx\nprint(fastrsx.__file__)") == "None"
    shutil.rmtree(environment.site / "fastrsx")
    assert environment.use() == ("99.1", source / "fastrsx")
