"""The disk cache of compiled GPU kernels, without a GPU: numba-cuda compiles and links them for one that is only pretended."""

import importlib.util
import os
from pathlib import Path

import pytest
from numba import config

if config.ENABLE_CUDASIM:
    pytest.skip("NUMBA_ENABLE_CUDASIM=1 is set, and the simulator compiles nothing", allow_module_level=True)
if importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'fastrsx[cuda]'", allow_module_level=True)
import cuda_resources

if cuda_resources.ptxas() is None:
    pytest.skip("the assembler is not installed: pip install nvidia-cuda-nvcc", allow_module_level=True)

from extensions import softplus
from numba import float64

from fastrsx.kernels.compiling import gpucache
from fastrsx.kernels.formulas import links
from fastrsx.kernels.gpu import rows, vectors
from fastrsx.kernels.gpu.scalar import ByLink
from processes import run

HERE = Path(__file__).parent
PRETEND = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from types import SimpleNamespace
from numba.cuda import codegen, dispatcher

gpu = SimpleNamespace(compute_capability=(9, 0), id=0)
dispatcher.get_current_device = lambda: gpu
codegen.devices.get_context = lambda *args: SimpleNamespace(device=gpu)
dispatcher._Kernel.bind = lambda kernel: kernel._codelibrary.get_cubin()

import cuda_resources
from numba import float64, typeof, types
from fastrsx.kernels.compiling.gpucache import cached
from fastrsx.kernels.formulas import links
from fastrsx.kernels.gpu import rows, vectors

hits = misses = 0
def take(kernel, signature):
    global hits, misses
    kernel = cached(kernel)
    compiled = kernel.compile(signature)
    assert compiled._codelibrary.get_cubin().code[1:4] == b"ELF"
    hits, misses = hits + kernel.stats.cache_hits.total(), misses + kernel.stats.cache_misses.total()
    return compiled
"""
TAKE = f"""{PRETEND}
signature = cuda_resources.other_signatures()[vectors.fold_predictions]
for link in (links.RSX, links.LINKS["softmax"]):
    take(vectors.fold_predictions.of(type(link)), (typeof(link), *signature[1:]))
take(vectors.fold_fill, (float64[::1], float64))
print(hits, "hits", misses, "misses")
"""


def files(folder):
    return sorted(Path(folder).rglob("*.nbc"))


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder with the three kernels of TAKE."""
    folder = tmp_path_factory.mktemp("warm") / "cache"
    assert run(TAKE, folder.parent, "-W", "error", FASTRSX_CACHE=str(folder)) == "0 hits 3 misses"
    return folder


def test_another_process_loads_them(warm, tmp_path):
    assert len(files(warm)) == 3
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE=str(warm)) == "3 hits 0 misses"


def test_they_are_of_this_build(warm):
    """So `fastrsx info` does not count them as stale, though it does not ask for a GPU."""
    assert all(f".{gpucache.build()}." in file.name for file in files(warm))


def test_another_gpu_compiles_its_own(warm, tmp_path):
    code = TAKE.replace("(9, 0)", "(8, 0)")
    assert run(code, tmp_path, "-W", "error", FASTRSX_CACHE=str(warm)) == "0 hits 3 misses"


def test_a_damaged_file_is_compiled_again(warm, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    for file in files(warm):
        (folder / file.name).write_bytes(file.read_bytes()[:-1])
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE=str(folder)) == "0 hits 3 misses"
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE=str(folder)) == "3 hits 0 misses"


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_what_others_can_write_to_is_not_read(warm, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    for file in files(warm):
        (folder / file.name).write_bytes(file.read_bytes())
        (folder / file.name).chmod(0o666)
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE=str(folder)) == "0 hits 3 misses"


def test_a_link_of_the_users_own_is_not_kept(tmp_path):
    """Its formulas are not in the source of the kernels: an entry could be of another version of them."""
    code = f"""{PRETEND}
from extensions import softplus
link = softplus.LINK.compiled
signature = cuda_resources.other_signatures()[vectors.fold_predictions]
take(vectors.fold_predictions.of(type(link)), (typeof(link), *signature[1:]))
print(hits, "hits", misses, "misses")
"""
    for _ in range(2):
        assert run(code, tmp_path, "-W", "error", FASTRSX_CACHE=str(tmp_path / "cache")) == "0 hits 1 misses"
    assert not files(tmp_path)


def test_off(tmp_path):
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE="0") == "0 hits 3 misses"
    assert not files(tmp_path)


def test_every_kernel_can_be_told_from_others():
    kernels = [*cuda_resources.signatures(float64), *cuda_resources.other_signatures()]
    each = [kernel.of(type(link)) for kernel in kernels if isinstance(kernel, ByLink) for link in links.LINKS.values()]
    each += [kernel for kernel in kernels if not isinstance(kernel, ByLink)]
    found = [gpucache.identity(kernel) for kernel in each]
    assert None not in found
    assert len(set(found)) == len(each)


def test_closures_and_other_meanings_tell_kernels_apart():
    tell = gpucache.identity
    assert tell(rows.fold_gradient.of(type(links.RSX))) != tell(rows.fold_gradient.of(type(links.LINKS["softmax"])))
    assert tell(vectors.fold_domain.of(type(softplus.LINK.compiled))) is None
