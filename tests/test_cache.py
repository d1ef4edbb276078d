"""The disk cache of compiled kernels: what is read, what is written, and what is said when it cannot be.

All on `panel.padded`, which compiles in a tenth of a second. FASTRSX_STRESS=1 runs the races many times.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numba
import pytest

import fastrsx
from fastrsx.cli import main
from fastrsx.kernels import dense, diskcache, links
from processes import NOWHERE, finish, run, start

ROUNDS = 20 if os.environ.get("FASTRSX_STRESS") == "1" else 3
posix = pytest.mark.skipif(os.name != "posix", reason="needs permissions and limits, or a home that is set by HOME")

IMPORT = """
import os, shutil, sys
import numba, numpy as np
from fastrsx.kernels import panel
def check(*args):
    for d in args:
        padded = panel.padded(d)
        assert padded == 8 and isinstance(padded, float) == isinstance(d, float), padded
"""
COUNTS = "\nprint(panel.padded.stats.cache_hits.total(), 'hits', panel.padded.stats.cache_misses.total(), 'misses')"
CHECK = f"{IMPORT}check(5, 5.0){COUNTS}"
COMPILED, LOADED = "0 hits 2 misses", "2 hits 0 misses"

UNPRIVILEGED = """
import ctypes, os
if os.geteuid() == 0:  # root can write anywhere until it gives up its capabilities
    assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
"""


def kernels(folder):
    """The files of the cache below a directory."""
    return sorted(Path(folder).rglob("*.nb*"))


def warnings_of(code, cwd, **variables):
    """What a process that checks its answers itself warned of."""
    out = run(f"import sys\nsys.stderr = sys.stdout\n{code}", cwd, "-W", "always", **variables)
    return [line for line in out.splitlines() if "Warning: " in line]


def assert_one_warning(lines):
    (line,) = lines
    assert "RuntimeWarning: fastrsx: compiled kernels cannot be kept" in line
    assert "NUMBA_CACHE_DIR" in line
    assert "FASTRSX_CACHE=0" in line


@pytest.fixture
def site(tmp_path):
    """A directory with a copy of the package, which the processes that run there import."""
    site = tmp_path / "site"
    for name, target in (("fastrsx", site / "fastrsx"), ("fastrsx.kernels", site / "fastrsx" / "kernels")):
        source = Path(find_spec(name).origin).parent
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    return site


IN_TREE = {"NUMBA_CACHE_DIR": None, "HOME": NOWHERE, "XDG_CACHE_HOME": NOWHERE}

# -- what is kept ----------------------------------------------------------------------------------------------


def test_one_file_for_each_signature(tmp_path):
    """Others than their owner can read them, and `recompile` renews them."""
    code = f"os.umask(0o022){COUNTS}\npanel.padded.recompile()\ncheck(5, 5.0)"
    run(f"{IMPORT}check(5, 5.0)\n{code}", tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(tmp_path))
    files = kernels(tmp_path)
    assert len(files) == 2
    assert all(file.name.startswith("panel.padded-") and file.suffix == ".nbc" for file in files)
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in files) or os.name != "posix"
    assert run(CHECK, tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(tmp_path)) == LOADED


def test_turned_off(site):
    before = sorted(site.rglob("*"))
    run(CHECK, site, "-W", "error", "-B", FASTRSX_CACHE="0", **IN_TREE)
    assert sorted(site.rglob("*")) == before


def test_upgraded_package(site):
    """Any other source is other files; going back finds those that were there."""
    assert run(CHECK, site, "-W", "error", **IN_TREE) == COMPILED
    before = {name: (site / "fastrsx" / "kernels" / name).read_text(encoding="utf-8") for name in ("panel.py", "simd.py")}
    for name, change, answer in (("panel.py", "padded = serial(lambda d: 24)", 24), ("simd.py", "# a comment", 8)):
        file = site / "fastrsx" / "kernels" / name
        file.write_text(f"{before[name]}{change}\n", encoding="utf-8")
        upgraded = f"{IMPORT}assert panel.padded(5) == {answer}\nfrom fastrsx.cli import main\nmain(['cache', 'info'])"
        out = run(upgraded, site, "-W", "error", **IN_TREE)
        assert f"kernels    {3 if answer == 24 else 4}, " in out
        assert f"stale      {2 if answer == 24 else 3} " in out
        file.write_text(before[name], encoding="utf-8")
    assert run(CHECK, site, "-W", "error", **IN_TREE) == LOADED


def test_copied_package(site, tmp_path):
    """As layers of a container are, with other times."""
    assert run(CHECK, site, "-W", "error", **IN_TREE) == COMPILED
    shutil.copytree(site, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (10**9, 10**9))
    shutil.rmtree(site)
    assert run(CHECK, tmp_path / "copy", "-W", "error", **IN_TREE) == LOADED


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    assert run(CHECK, folder, "-W", "error", NUMBA_CACHE_DIR=str(folder)) == COMPILED
    return folder


@pytest.mark.parametrize(
    "damage",
    [
        lambda data, other: b"",
        lambda data, other: data[: len(data) // 2],
        lambda data, other: b"\xff\x00" * 99,
        lambda data, other: data[:-2000] + bytes([data[-2000] ^ 1]) + data[-1999:],
        lambda data, other: other,
    ],
    ids=["empty", "cut", "noise", "one bit", "of another signature"],
)
def test_damaged_file_is_a_miss(warm, tmp_path, damage):
    """And written anew."""
    shutil.copytree(warm, tmp_path / "cache")
    files = kernels(tmp_path / "cache")
    whole = [path.read_bytes() for path in files]
    for path, data, other in zip(files, whole, whole[::-1], strict=True):
        path.write_bytes(damage(data, other))
    assert run(CHECK, tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(tmp_path / "cache")) == COMPILED
    assert kernels(tmp_path / "cache") == files
    assert all(path.read_bytes() != damage(data, other) for path, data, other in zip(files, whole, whole[::-1], strict=True))


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_two_processes_on_one_cold_cache(tmp_path, round_):
    """They compile different signatures of a kernel at once, then the same; a third process finds them all."""
    code = """
import time
def meet(mine, other):
    open(mine, "w").close()
    while not os.path.exists(other):
        time.sleep(1e-4)
"""
    two = [
        start(
            f"{IMPORT}{code}meet('{mine}1', '{other}1')\ncheck({d})\nmeet('{mine}2', '{other}2')\ncheck(np.int32(5))",
            *(tmp_path, "-W", "error"),
            NUMBA_CACHE_DIR=str(tmp_path),
        )
        for mine, other, d in (("a", "b", 5), ("b", "a", 5.0))
    ]
    try:
        for process in two:
            finish(process)
    finally:
        for process in two:
            process.kill()
    assert len(kernels(tmp_path)) == 3
    third = f"{IMPORT}check(5, 5.0, np.int32(5)){COUNTS}"
    assert run(third, tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(tmp_path)) == "3 hits 0 misses"


# -- links that are not ours -----------------------------------------------------------------------------------


class Custom(NamedTuple):
    low: float = 0.0
    cacheable = False


class Holder(NamedTuple):
    n: int
    link: Custom | links.Rsx


def test_types_that_are_not_cacheable():
    work = dense.alloc_workspace(8, 3, False)
    types = {name: numba.typeof(value) for name, value in {"ours": work, "custom": work._replace(link=Custom())}.items()}
    assert diskcache.is_cacheable(types["ours"])
    assert not diskcache.is_cacheable(types["custom"])
    assert not diskcache.is_cacheable(numba.typeof(Holder(1, Custom())))
    assert not diskcache.is_cacheable(numba.typeof(((Custom(), Custom()),)))
    assert diskcache.is_cacheable(numba.typeof((Holder(1, links.Rsx()), 1.0, work.a)))


def test_kernel_of_such_a_type_is_not_kept(tmp_path):
    code = """
import numpy as np
from fastrsx.kernels import dense
from fastrsx.kernels.links import Rsx
a, point, f, sums = np.zeros(8), np.ones(99), np.zeros(8), np.zeros((1, 99))
kernel = dense.predictions_serial
kernel(Rsx(), a, point, f, f, sums)
(signature, compiled), = kernel.overloads.items()
assert kernel._cache.load_overload(signature, kernel.targetctx)
Rsx.cacheable = False
assert kernel._cache.load_overload(signature, kernel.targetctx) is None
kernel._cache.flush()
kernel._cache.save_overload(signature, compiled)
"""
    run(code, tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(tmp_path))
    assert kernels(tmp_path)
    assert not [path for path in kernels(tmp_path) if path.name.startswith("dense.predictions")]


# -- where nothing can be written ------------------------------------------------------------------------------


def test_package_is_writable_but_the_home_is_not(site):
    assert run(CHECK, site, "-W", "error", **IN_TREE) == COMPILED
    assert len(kernels(site / "fastrsx" / "kernels" / "__pycache__")) == 2


@posix
@pytest.mark.parametrize("cache_dir", [None, NOWHERE])
def test_read_only_install_without_a_home(site, cache_dir):
    (site / "fastrsx" / "kernels" / "__pycache__").touch()  # a file, so not a directory to write to
    nowhere = IN_TREE | {"NUMBA_CACHE_DIR": cache_dir}
    assert_one_warning(warnings_of(CHECK, site, **nowhere))
    assert not warnings_of(CHECK, site, **nowhere, FASTRSX_CACHE="0")


@posix
@pytest.mark.parametrize("place", ["beside the package", "NUMBA_CACHE_DIR"])
def test_read_only_cache_is_read(site, tmp_path, place):
    """And what it lacks is written to the next directory, if there is one."""
    variables = IN_TREE | ({"NUMBA_CACHE_DIR": str(tmp_path / "cache")} if place == "NUMBA_CACHE_DIR" else {})
    assert run(CHECK, site, "-W", "error", **variables) == COMPILED
    (folder,) = {path.parent for path in kernels(tmp_path)}
    for read_only in (folder, site / "fastrsx" / "kernels" / "__pycache__"):
        read_only.mkdir(exist_ok=True)
        read_only.chmod(0o555)
    assert run(UNPRIVILEGED + CHECK, site, "-W", "error", **variables) == LOADED
    more = f"{UNPRIVILEGED}{CHECK}\npanel.padded(5j.imag > 1)"
    assert_one_warning(warnings_of(more, site, **variables))
    home = str(tmp_path / "home")
    run(more, site, "-W", "error", **variables | {"HOME": home, "XDG_CACHE_HOME": home})
    assert len(kernels(home)) == 1
    assert len(kernels(folder)) == 2


WRITE_ERRORS = {
    "no space": "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))",
    "permission lost": f"{UNPRIVILEGED}\nos.chmod(folder, 0o555)",
    "directory replaced": "shutil.rmtree(folder)\nopen(folder, 'w').close()",
}


@posix
@pytest.mark.parametrize("error", WRITE_ERRORS)
def test_write_error_is_one_warning(tmp_path, error):
    code = f"{IMPORT}folder = panel.padded.stats.cache_path\n{WRITE_ERRORS[error]}\ncheck(5, 5.0)"
    assert_one_warning(warnings_of(code, tmp_path, NUMBA_CACHE_DIR=str(tmp_path)))
    assert not kernels(tmp_path)


def test_directory_that_vanished_is_made_again(tmp_path):
    code = f"{IMPORT}shutil.rmtree(panel.padded.stats.cache_path)\ncheck(5, 5.0)"
    run(code, tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(tmp_path))
    assert len(kernels(tmp_path)) == 2


def test_locators_of_the_user(site, tmp_path):
    assert run(CHECK, site, "-W", "error", **IN_TREE, NUMBA_CACHE_LOCATOR_CLASSES="InTreeCacheLocator") == COMPILED
    assert len(kernels(site / "fastrsx" / "kernels" / "__pycache__")) == 2
    assert_one_warning(warnings_of(CHECK, tmp_path, NUMBA_CACHE_LOCATOR_CLASSES="IPythonCacheLocator"))


# -- the command line ------------------------------------------------------------------------------------------


def test_cache_info_and_clear(site):
    """Only our own files go."""
    assert run(CHECK, site, "-W", "error", **IN_TREE) == COMPILED
    folder = site / "fastrsx" / "kernels" / "__pycache__"
    (folder / "dense.value-294.py311.nbi").touch()  # of Numba's own cache
    others = [folder / "dense.cpython-310.pyc", folder / "notes.txt"]
    for file in others:
        file.touch()
    code = "from fastrsx.cli import main\nfor action in ('info', 'clear', 'info'): assert main(['cache', action]) == 0"
    lines = run(code + "\nmain(['info'])", site, "-W", "error", **IN_TREE).splitlines()
    assert lines[0] == lines[3] == lines[5] == f"directory  {folder}"
    assert lines[1].startswith("kernels    2, 0.")
    assert lines[2].startswith("stale      0 ")
    assert lines[4] == "removed    3 files"
    assert lines[6].startswith("kernels    0, 0.0 MB")
    assert f"cache      {folder}, 0 compiled kernels, 0.0 MB" in lines
    assert not kernels(folder)
    assert all(file.exists() for file in others)


@posix
def test_cache_clear_of_a_read_only_directory(site):
    assert run(CHECK, site, "-W", "error", **IN_TREE) == COMPILED
    (site / "fastrsx" / "kernels" / "__pycache__").chmod(0o555)
    code = f"{UNPRIVILEGED}\nfrom fastrsx.cli import main\nassert main(['cache', 'clear']) == 1"
    out = run(code, site, "-W", "error", **IN_TREE)
    assert "__pycache__ (read only)\nremoved    0 files, 2 cannot be" in out


def test_cache_warm(capsys, monkeypatch):
    monkeypatch.setattr(fastrsx, "warmup", lambda: 1.25)
    assert main(["cache", "warm"]) == 0
    out = capsys.readouterr().out
    assert "... 1.2 s\n" in out
    assert "kernels    " in out


@pytest.mark.parametrize("action", ["info", "clear", "warm"])
def test_cache_command_without_a_cache(capsys, monkeypatch, action):
    monkeypatch.setattr(diskcache, "cache_problem", "turned off")
    assert main(["cache", action]) == 1
    assert capsys.readouterr().err == "fastrsx cache: off: turned off\n"
