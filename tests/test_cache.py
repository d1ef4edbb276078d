"""The disk cache of compiled kernels: what is read, what is written, and the warnings if it cannot be.

All tests use `panel.padded`, which compiles in a tenth of a second. FASTRSX_STRESS=1 runs the races many times.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numba
import pytest

import fastrsx
from fastrsx.cli import main
from fastrsx.kernels import dense
from fastrsx.kernels.compiling import diskcache
from fastrsx.kernels.formulas import links
from processes import NOWHERE, finish, run, start

ROUNDS = 20 if os.environ.get("FASTRSX_STRESS") == "1" else 3
posix = pytest.mark.skipif(os.name != "posix", reason="needs permissions and limits, or a home that is set by HOME")

IMPORT = """
import os, shutil, sys
import numba, numpy as np
from fastrsx.kernels.layouts import panel
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
    """The warnings of a process that checks its answers itself."""
    out = run(f"import sys\nsys.stderr = sys.stdout\n{code}", cwd, "-W", "always", **variables)
    return [line for line in out.splitlines() if "Warning: " in line]


def assert_one_warning(lines):
    (line,) = lines
    assert "RuntimeWarning: fastrsx: compiled kernels cannot be kept" in line
    assert "NUMBA_CACHE_DIR" in line
    assert "FASTRSX_CACHE=0" in line


def modes(folder):
    """The modes of a directory and of everything in it."""
    return [path.stat().st_mode & 0o7777 for path in (folder, *sorted(folder.rglob("*")))]


def tree(folder):
    """Everything below a directory, with the contents of the files."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def site(tmp_path):
    """A directory with a copy of the package, which the processes that run there import."""
    site = tmp_path / "site"
    for name, target in (("fastrsx", site / "fastrsx"), ("fastrsx.kernels", site / "fastrsx" / "kernels")):
        source = Path(find_spec(name).origin).parent
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    return site


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A directory with the two kernels of CHECK."""
    folder = tmp_path_factory.mktemp("warm") / "cache"
    assert run(CHECK, folder.parent, "-W", "error", FASTRSX_CACHE=str(folder)) == COMPILED
    return folder


HOMELESS = {"NUMBA_CACHE_DIR": None, "HOME": NOWHERE, "XDG_CACHE_HOME": NOWHERE}


@pytest.fixture
def home(tmp_path):
    """The variables of a user whose caches are in `home`, on Linux, macOS and Windows, and who has set no other folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    return {"NUMBA_CACHE_DIR": None} | dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(folder))


# -- what is kept ----------------------------------------------------------------------------------------------


def test_one_file_for_each_signature(tmp_path):
    """Users other than their owner can read them, and `recompile` renews them."""
    code = f"os.umask(0o022){COUNTS}\npanel.padded.recompile()\ncheck(5, 5.0)"
    run(f"{IMPORT}check(5, 5.0)\n{code}", tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(tmp_path))
    files = kernels(tmp_path)
    assert len(files) == 2
    assert all(file.name.startswith("panel.padded-") and file.suffix == ".nbc" for file in files)
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in files) or os.name != "posix"
    assert run(CHECK, tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(tmp_path)) == LOADED


@posix
def test_folder_is_of_the_user_alone(tmp_path, home):
    """With any umask; so are the folders above that are created for it."""
    os.chmod(tmp_path, 0o755)
    for umask, name in (("0", "open"), ("0o077", "closed")):
        folder = tmp_path / name / "deep" / "kernels"
        assert run(f"import os\nos.umask({umask})\n{CHECK}", tmp_path, "-W", "error", **home, FASTRSX_CACHE=str(folder)) == COMPILED
        assert modes(tmp_path / name) == [0o700] * 3 + [0o644 if umask == "0" else 0o600] * 2


@pytest.mark.parametrize(("word", "variables"), [("0", "home"), ("off", "homeless")])
def test_turned_off(site, home, word, variables):
    """Nothing is created, and there is no warning."""
    before = tree(site.parent)
    run(CHECK, site, "-W", "error", "-B", **(home if variables == "home" else HOMELESS), FASTRSX_CACHE=word)
    assert tree(site.parent) == before


def test_upgraded_package(site, home):
    """A change of the source leads to other files; after it is undone, the first files are found again."""
    assert run(CHECK, site, "-W", "error", **home) == COMPILED
    before = {name: (site / "fastrsx" / "kernels" / name).read_text(encoding="utf-8") for name in ("layouts/panel.py", "registers/simd.py")}
    for name, change, answer in (("layouts/panel.py", "padded = serial(lambda d: 24)", 24), ("registers/simd.py", "# a comment", 8)):
        file = site / "fastrsx" / "kernels" / name
        file.write_text(f"{before[name]}{change}\n", encoding="utf-8")
        upgraded = f"{IMPORT}assert panel.padded(5) == {answer}\nfrom fastrsx.cli import main\nmain(['cache', 'info'])"
        out = run(upgraded, site, "-W", "error", **home)
        assert f"kernels    {3 if answer == 24 else 4}, " in out
        assert f"stale      {2 if answer == 24 else 3} " in out
        file.write_text(before[name], encoding="utf-8")
    assert run(CHECK, site, "-W", "error", **home) == LOADED


def test_stamp_of_the_source(tmp_path):
    """It differs after any change of a file, its name or its folder, also if lines move to the next file; it is the same for a copy."""

    def stamp(**files):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, source in files.items():
            file = root / f"{name.replace('__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source, encoding="utf-8")
        return diskcache.stamp(root)

    whole = stamp(a="1\n2\n", b="3\n", cpu__c="4\n")
    assert stamp(a="1\n2\n", b="3\n", cpu__c="4\n") == whole
    others = [
        stamp(a="1\n2\n", b="3\n", cpu__c="5\n"),
        stamp(a="1\n2\n", b="3\n", cpu__d="4\n"),
        stamp(a="1\n2\n", b="3\n", c="4\n"),
        stamp(a="1\n", b="2\n3\n", cpu__c="4\n"),
        stamp(a="1\n2\n", b="3\n"),
    ]
    assert len({whole, *others}) == 6
    assert stamp() is None


@posix
def test_lock_of_an_editor(tmp_path):
    """Emacs puts one beside a file with unsaved changes: a dangling link."""
    (tmp_path / "panel.py").write_text("1\n")
    before = diskcache.stamp(tmp_path)
    (tmp_path / ".#panel.py").symlink_to("me@here.1:2")
    assert diskcache.stamp(tmp_path) == before


def test_copied_package(site, tmp_path, home):
    """Like a layer of a container, with other timestamps."""
    assert run(CHECK, site, "-W", "error", **home) == COMPILED
    shutil.copytree(site, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (10**9, 10**9))
    shutil.rmtree(site)
    assert run(CHECK, tmp_path / "copy", "-W", "error", **home) == LOADED


def test_kernels_in_subpackages(site, home):
    """They are kept like others, by their full name, and a change of their source affects all kernels."""
    for part in ("formulas", "cpu"):
        source = f"from ..compiling.jit import serial\n\n\n@serial\ndef name(x):\n    return '{part}'\n"
        (site / "fastrsx" / "kernels" / part / "added.py").write_text(source, encoding="utf-8")
    code = """
from fastrsx.kernels.layouts import panel
from fastrsx.kernels.cpu import added as cpu
from fastrsx.kernels.formulas import added as formulas
assert (cpu.name(1), formulas.name(1), panel.padded(5)) == ("cpu", "formulas", 8)
print(*[kernel.stats.cache_hits.total() for kernel in (cpu.name, formulas.name, panel.padded)])
"""
    assert run(code, site, "-W", "error", **home) == "0 0 0"
    assert run(code, site, "-W", "error", **home) == "1 1 1"
    added = site / "fastrsx" / "kernels" / "cpu" / "added.py"
    added.write_text(f"{added.read_text(encoding='utf-8')}# a comment\n", encoding="utf-8")
    assert run(code, site, "-W", "error", **home) == "0 0 0"


@pytest.mark.parametrize("module", ["__main__", "fastrsx.kernels_of_mine"])
def test_kernels_of_other_packages_are_not_kept(tmp_path, home, module):
    """Their source is not in the stamp."""
    code = f"""
from fastrsx.kernels.compiling.jit import serial
__name__ = '{module}'
mine = serial(lambda x: x)
mine(1)
assert not mine._cache.cache_path
"""
    run(code, tmp_path, "-W", "error", **home)
    assert not kernels(tmp_path)


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
    """It is then written again."""
    shutil.copytree(warm, tmp_path / "cache")
    files = kernels(tmp_path / "cache")
    whole = [path.read_bytes() for path in files]
    for path, data, other in zip(files, whole, whole[::-1], strict=True):
        path.write_bytes(damage(data, other))
    assert run(CHECK, tmp_path, "-W", "error", FASTRSX_CACHE=str(tmp_path / "cache")) == COMPILED
    assert kernels(tmp_path / "cache") == files
    assert all(path.read_bytes() != damage(data, other) for path, data, other in zip(files, whole, whole[::-1], strict=True))


VALUE = """
import numpy as np
from fastrsx.kernels import dense
from fastrsx.kernels.cpu import passes
A, b, x = np.ones((3, 1)), np.full(3, 1 / 3), np.zeros(1)
work = dense.alloc_workspace(3, 1, False)
"""
PROJECT = "passes.project(work.link, A, x, b, x[:0], work.a, work.sums, work.point, work.buffers)"


def test_a_parallel_kernel_from_disk_is_compiled_into_another(tmp_path):
    """What numba's threads need is then also there for a process that loads only the other: without, it would call address 0."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    run(VALUE + PROJECT, tmp_path, **cache)
    assert "value" not in {path.name.split("-")[0].partition(".")[2] for path in kernels(tmp_path / "cache")}
    for _ in range(2):
        assert run(VALUE + "print(dense.value(A, x, b, x[:0], work))", tmp_path, **cache) == "0.0"


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
from fastrsx.kernels.formulas.links import Rsx
from fastrsx.kernels.formulas.records import POINT, STATE
a, point, f, sums = np.zeros(8), np.ones(1, POINT), np.zeros(8), np.zeros(1, STATE)
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
    assert not [path for path in kernels(tmp_path) if path.name.startswith("passes.predictions")]


# -- where they are --------------------------------------------------------------------------------------------


def test_cache_of_the_user(site, tmp_path, home):
    """Its place follows the convention of the platform; nothing is written to the package."""
    before = tree(site)
    assert run(CHECK, site, "-W", "error", "-B", **home) == COMPILED
    assert tree(site) == before
    folder = Path(home["HOME"]) / "fastrsx" / ("Cache" if os.name == "nt" else "")
    assert [path.parent for path in kernels(tmp_path)] == [folder] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms have other folders")
def test_home_of_linux(tmp_path, home):
    run(CHECK, tmp_path, "-W", "error", **home | {"XDG_CACHE_HOME": None})
    assert modes(tmp_path / "home" / ".cache")[:2] == [0o700] * 2
    assert len(kernels(tmp_path / "home" / ".cache" / "fastrsx")) == 2


def test_folders_that_the_user_names(tmp_path, home):
    """FASTRSX_CACHE comes before NUMBA_CACHE_DIR, and that before the home; each is created if it is missing."""
    variables = {"NUMBA_CACHE_DIR": str(tmp_path / "numba" / "cache"), "FASTRSX_CACHE": str(tmp_path / "ours" / "cache")}
    for name, folder in zip(variables, (tmp_path / "numba" / "cache" / "fastrsx", tmp_path / "ours" / "cache"), strict=True):
        later = {other: value for other, value in variables.items() if name == other or name == "FASTRSX_CACHE"}
        assert run(CHECK, tmp_path, "-W", "error", **home | later) == COMPILED
        assert len(kernels(folder)) == 2
    assert not kernels(tmp_path / "home")


@pytest.mark.parametrize("name", ["FASTRSX_CACHE", "NUMBA_CACHE_DIR"])
def test_relative_folder(tmp_path, home, name):
    """It is below the directory in which the process started, also after a change of directory."""
    code = CHECK.replace("check(5", "os.chdir('home')\ncheck(5")
    assert run(code, tmp_path, "-W", "error", **home | {name: "here/cache"}) == COMPILED
    assert len(kernels(tmp_path / "here" / "cache")) == 2
    assert not kernels(tmp_path / "home")


@pytest.mark.parametrize("word", ["", "1", "on"])
def test_turned_on(monkeypatch, word):
    monkeypatch.setattr(diskcache, "SETTING", word)
    assert not any(is_named for _, is_named in diskcache._wanted())


@posix
def test_tilde(monkeypatch):
    """No shell expands the variables of a Dockerfile or a service."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(diskcache, "SETTING", "~/mine")
    assert (Path("/home/me/mine"), True) in diskcache._wanted()


def test_cache_in_the_package_is_left_alone(site, home, warm):
    """Earlier versions kept their kernels there."""
    folder = site / "fastrsx" / "kernels" / "__pycache__"
    shutil.copytree(warm, folder)
    before = tree(folder)
    assert run(CHECK, site, "-W", "error", "-B", **home) == COMPILED
    assert tree(folder) == before


def test_locators_of_numba_are_not_asked(site, home):
    """Some of them would write to the package."""
    assert run(CHECK, site, "-W", "error", **home, NUMBA_CACHE_LOCATOR_CLASSES="InTreeCacheLocator") == COMPILED
    assert not kernels(site)
    assert len(kernels(home["HOME"])) == 2


# -- where others can write ------------------------------------------------------------------------------------

root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a file to another user")
SOMEBODY = 12345


def give_away(path):
    os.chown(path, SOMEBODY, -1, follow_symlinks=False)


def behind_a_link(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")
    give_away(path)


UNSAFE = {
    "all can write": (lambda folder: folder.chmod(0o777), "mode 777; chmod 700"),
    "the group can write": (lambda folder: folder.chmod(0o770), "mode 770; chmod 700"),
    "others can write": (lambda folder: folder.chmod(0o702), "mode 702; chmod 700"),
    "all can add files": (lambda folder: folder.chmod(0o1777), "mode 1777)"),
    "all can replace it": (lambda folder: folder.parent.chmod(0o777), "shared has mode 777; chmod o-w"),
    "all can replace a folder above": (lambda folder: folder.parent.parent.chmod(0o777), "top has mode 777; chmod o-w"),
}
UNSAFE_BY_ROOT = {
    "another user's": (give_away, f"it belongs to another user, with uid {SOMEBODY}"),
    "another user's link": (behind_a_link, "cache is a link of another user's"),
    "another user's link above": (lambda folder: behind_a_link(folder.parent), "shared is a link of another user's"),
    "a folder above is shared, and another's": (lambda folder: [folder.parent.chmod(0o1777), give_away(folder.parent)], "shared has mode 1777)"),
}


def remedy(text):
    """The command that a message advises."""
    return re.search(r"chmod [^)]*", text).group()


@posix
@pytest.mark.parametrize("case", [*UNSAFE, *(pytest.param(case, marks=root) for case in UNSAFE_BY_ROOT)])
def test_unsafe_folder_is_refused(tmp_path, case):
    """The message says why and what to do; after that, the folder is used."""
    folder = diskcache.private(tmp_path / "top" / "shared" / "cache")
    makes_unsafe, reason = (UNSAFE | UNSAFE_BY_ROOT)[case]
    makes_unsafe(folder)
    with pytest.raises(diskcache.UnsafeError) as refused:
        diskcache.private(folder)
    assert refused.value.strerror.startswith("not read either: ")
    assert reason in f"{refused.value.strerror})"
    if "chmod" in reason:
        subprocess.run(remedy(refused.value.strerror), shell=True, check=True)
        assert diskcache.private(folder) == folder


@root
def test_no_advice_for_the_owner_alone(tmp_path, monkeypatch):
    """Another user cannot change the mode of root's folder."""
    folder = diskcache.private(tmp_path / "cache")
    folder.chmod(0o777)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    with pytest.raises(diskcache.UnsafeError, match=r"others can write to it, mode 777$"):
        diskcache.private(folder)


@posix
@pytest.mark.parametrize("case", [case for case in UNSAFE if "replace" in case])
def test_nothing_is_made_in_an_unsafe_folder(tmp_path, case):
    parent = diskcache.private(tmp_path / "top" / "shared" / "cache")
    UNSAFE[case][0](parent)
    with pytest.raises(diskcache.UnsafeError):
        diskcache.private(parent.parent / "other" / "cache")
    assert sorted(tree(tmp_path)) == [*parent.parents[1::-1], parent]


@posix
@pytest.mark.parametrize("name", ["FASTRSX_CACHE", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"])
def test_unsafe_folder_is_neither_read_nor_written(tmp_path, home, warm, name):
    """There is one warning, and `fastrsx cache info` and `fastrsx info` say so too."""
    shared = tmp_path / "shared"
    folder = shared / ("" if name == "FASTRSX_CACHE" else "fastrsx")
    variables = home | {name: str(shared)}
    shutil.copytree(warm, folder)
    folder.chmod(0o777)
    before = tree(shared)
    info = "from fastrsx.cli import main\nmain(['cache', 'info'])\nmain(['info'])\nassert panel.padded.stats.cache_misses.total() == 2"
    out = run(f"import sys\nsys.stderr = sys.stdout\n{CHECK}\n{info}", tmp_path, "-W", "always", **variables)
    (line,) = (line for line in out.splitlines() if "Warning: " in line)
    assert f"fastrsx: compiled kernels cannot be kept in {folder} (not read either: others can write to it, mode 777; chmod 700 {folder})" in line
    assert out.count(f"{folder} (not read either: ") == 3
    assert tree(shared) == before
    elsewhere = kernels(tmp_path / "home")
    assert len(elsewhere) == (0 if name == "XDG_CACHE_HOME" else 2)
    assert f"so they are kept in {elsewhere[0].parent}; set FASTRSX_CACHE" in line if elsewhere else "so each process compiles its own" in line
    subprocess.run(remedy(line), shell=True, check=True)
    assert run(CHECK, tmp_path, "-W", "error", **variables) == LOADED


@root
def test_two_users_with_one_home(tmp_path, home, warm):
    """The second one gets one warning, and the folder is not changed; a folder of their own is the remedy."""
    shutil.copytree(warm, tmp_path / "home" / "fastrsx")
    for path in (tmp_path / "home", *tree(tmp_path / "home")):
        give_away(path)
    before = tree(tmp_path / "home")
    assert_one_warning(warnings_of(CHECK, tmp_path, **home))
    assert tree(tmp_path / "home") == before
    assert run(CHECK, tmp_path, "-W", "error", **home, FASTRSX_CACHE=str(tmp_path / "mine")) == COMPILED


SAFE = {
    "all can read": lambda folder: folder.chmod(0o755),
    "only read": lambda folder: folder.chmod(0o555),
    "as /tmp": lambda folder: folder.parent.chmod(0o1777),
    "a group's folder above": lambda folder: folder.parent.chmod(0o2775),
    "own link": lambda folder: [folder.rename(folder.with_name("moved")), folder.symlink_to("moved")],
    "own link above": lambda folder: [folder.parent.rename(folder.parent.with_name("moved")), folder.parent.symlink_to("moved")],
}
SAFE_BY_ROOT = {"another user's folder above": lambda folder: give_away(folder.parent)}


@posix
@pytest.mark.parametrize("case", [*SAFE, *(pytest.param(case, marks=root) for case in SAFE_BY_ROOT)])
def test_safe_folder_is_used(tmp_path, case):
    folder = diskcache.private(tmp_path / "shared" / "cache")
    (SAFE | SAFE_BY_ROOT)[case](folder)
    assert diskcache.private(folder) == folder.resolve()


@posix
def test_what_belongs_to_root_is_trusted(monkeypatch):
    """So everyone reads a system-wide cache that root has filled; root itself trusts nobody else."""
    (theirs,) = {os.stat("/")} if os.stat("/").st_uid == 0 else pytest.skip("/ does not belong to root here")
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    assert not diskcache._is_foreign(theirs)
    assert diskcache._is_foreign(os.stat_result((0, 0, 0, 0, SOMEBODY + 1, 0, 0, 0, 0, 0)))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert diskcache._is_foreign(os.stat_result((0, 0, 0, 0, SOMEBODY, 0, 0, 0, 0, 0)))


def replaced_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


HARMS = {
    "the group can write": lambda path: path.chmod(0o664),
    "others can write": lambda path: path.chmod(0o646),
    "a pipe": replaced_by_a_pipe,
    "another user's": give_away,
}


@posix
@pytest.mark.parametrize("case", [pytest.param(case, marks=root if case == "another user's" else ()) for case in HARMS])
def test_unsafe_file_is_not_read(tmp_path, monkeypatch, case):
    """Another user may have left it when the directory was still open to others; it is replaced."""
    monkeypatch.setattr(diskcache, "folders", lambda: diskcache.Folders((tmp_path,), tmp_path, (), False))
    files, key = diskcache.KernelFiles("panel.padded"), ("build", "signature")
    files.save(key, 1)
    assert files.load(key) == 1
    (path,) = kernels(tmp_path)
    HARMS[case](path)
    assert files.load(key) is None
    files.save(key, 2)
    assert files.load(key) == 2
    assert kernels(tmp_path) == [path]


# -- where nothing can be written ------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("cache_dir", [None, NOWHERE])
def test_no_home(site, cache_dir):
    """One warning, also if the package could be written to."""
    before = tree(site)
    nowhere = HOMELESS | {"NUMBA_CACHE_DIR": cache_dir}
    assert_one_warning(warnings_of(f"import sys\nsys.dont_write_bytecode = True\n{CHECK}", site, **nowhere))
    assert tree(site) == before


UNKNOWN = "import pwd\ndef getpwuid(uid): raise KeyError(uid)\npwd.getpwuid = getpwuid\n"  # the uid of this process


@posix
def test_user_whom_the_system_does_not_know(tmp_path):
    """As in a container that runs with any uid: nothing named ~ is created."""
    homeless = dict.fromkeys(("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME"))
    (line,) = warnings_of(f"{UNKNOWN}{CHECK}", tmp_path, **homeless)
    assert_one_warning([line])
    assert "cannot be kept in a home, for there is none, so each process" in line
    assert not list(tmp_path.iterdir())


@posix
@pytest.mark.parametrize("name", ["HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("value", ["", "not/absolute", "~"])
def test_home_that_is_no_path(monkeypatch, name, value):
    """Nothing is created in the working directory."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # KeyError
    assert all(folder.is_absolute() for folder, is_named in diskcache._wanted() if not is_named)


@posix
def test_home_that_can_only_be_read(tmp_path, home):
    (tmp_path / "home").chmod(0o555)
    assert_one_warning(warnings_of(UNPRIVILEGED + CHECK, tmp_path, **home))


@posix
@pytest.mark.parametrize("place", ["home", "NUMBA_CACHE_DIR"])
def test_read_only_cache_is_read(tmp_path, home, warm, place):
    """Kernels that it lacks are written to the next directory, if there is one."""
    folder = tmp_path / "cache" / "fastrsx"
    name = "XDG_CACHE_HOME" if place == "home" else place
    variables = HOMELESS | {name: str(tmp_path / "cache")}
    shutil.copytree(warm, folder)
    folder.chmod(0o555)
    assert run(UNPRIVILEGED + CHECK, tmp_path, "-W", "error", **variables) == LOADED
    more = f"{UNPRIVILEGED}{CHECK}\npanel.padded(5j.imag > 1)"
    assert_one_warning(warnings_of(more, tmp_path, **variables))
    if place != "home":
        run(more, tmp_path, "-W", "error", **home | {name: str(tmp_path / "cache")})
        assert len(kernels(tmp_path / "home")) == 1
    assert len(kernels(folder)) == 2


@pytest.mark.parametrize("name", ["FASTRSX_CACHE", "NUMBA_CACHE_DIR"])
def test_file_in_place_of_a_folder(tmp_path, home, name):
    """The next folder is written to. Numba gives no warning about its own variable, so we give none either."""
    (tmp_path / "file").write_text("not a folder")
    lines = warnings_of(CHECK, tmp_path, **home | {name: str(tmp_path / "file")})
    assert len(lines) == (name == "FASTRSX_CACHE")
    assert all(f"cannot be kept in {tmp_path / 'file'} (not a folder), so they are kept in " in line for line in lines)
    assert len(kernels(tmp_path / "home")) == 2


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


# -- the command line ------------------------------------------------------------------------------------------


def test_cache_info_and_clear(tmp_path, home, warm):
    """Only our own files are removed."""
    folder = shutil.copytree(warm, tmp_path / "cache")
    variables = home | {"FASTRSX_CACHE": str(folder)}
    (folder / f"{kernels(folder)[0].name}-0123").touch()  # left by a process that was killed
    others = [folder / name for name in ("dense.cpython-310.pyc", "notes.txt", "mine.value-294.py311.nbi", "mine.value-294.py311.1.nbc")]
    others.append(tmp_path / kernels(folder)[0].name)
    for file in others:
        file.touch()
    code = "from fastrsx.cli import main\nfor action in ('info', 'clear', 'info'): assert main(['cache', action]) == 0"
    lines = run(code + "\nmain(['info'])", tmp_path, "-W", "error", **variables).splitlines()
    assert lines[0] == lines[3] == lines[5] == f"directory  {folder}"
    assert lines[1].startswith("kernels    2, 0.")
    assert lines[2].startswith("stale      0 ")
    assert lines[4] == "removed    3 files"
    assert lines[6].startswith("kernels    0, 0.0 MB")
    assert f"cache      {folder}, 0 compiled kernels, 0.0 MB" in lines
    assert sorted(tree(tmp_path)) == sorted([*others, folder, tmp_path / "home"])


@posix
def test_cache_clear_of_a_read_only_directory(tmp_path, warm):
    variables = HOMELESS | {"FASTRSX_CACHE": str(tmp_path / "cache")}
    shutil.copytree(warm, tmp_path / "cache").chmod(0o555)
    code = f"{UNPRIVILEGED}\nfrom fastrsx.cli import main\nassert main(['cache', 'clear']) == 1"
    out = run(code, tmp_path, "-W", "error", **variables)
    assert "cache (read only)\nremoved    0 files, 2 cannot be" in out


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


def test_cache_command_without_a_directory(tmp_path):
    code = "import sys\nsys.stderr = sys.stdout\nfrom fastrsx.cli import main\nassert main(['cache', 'info']) == 1"
    out = run(code, tmp_path, "-W", "error", **HOMELESS)
    assert out.startswith("fastrsx cache: off: there is no directory for it; not in ")
    assert NOWHERE in out
