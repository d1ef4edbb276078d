import os
from importlib.metadata import PackageNotFoundError, files

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Few workers, since several may compile the same kernel at once."""
    return min(4, os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker per file, since its tests share compiled signatures."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def cache():
    """NUMBA_CACHE_DIR of this process, so that other processes find the solves that it has compiled; None for the user's own cache."""
    return os.environ.get("NUMBA_CACHE_DIR")


@pytest.fixture(params=["omp", "workqueue", "tbb"])
def layer(request, monkeypatch):
    """A threading layer of Numba's that child processes can use."""
    if request.param == "omp":
        pytest.importorskip("numba.np.ufunc.omppool", reason="numba has no OpenMP layer here", exc_type=ImportError)
    if request.param == "tbb":
        try:
            libraries = [file for file in files("tbb") or () if file.name == "libtbb.so.12"]
        except PackageNotFoundError:
            pytest.skip("tbb is not installed")
        if not libraries:
            pytest.skip("tbb has no library for Linux here")
        # In a virtual environment the loader does not find the wheel's library.
        monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries[0].locate().resolve().parent), prepend=os.pathsep)
    return request.param
