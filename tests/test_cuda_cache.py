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
from numba.cuda.dispatcher import CUDADispatcher

from fastrsx.kernels.compiling import gpucache
from fastrsx.kernels.formulas import links
from fastrsx.kernels.gpu import gram, loop, merge, plane, rows, sample, sparse, tensor_gram, vectors
from fastrsx.kernels.gpu.scalar import ByLink
from fastrsx.kernels.gpu.share import share_for
from processes import run

FOR_A_SHARE = ("ahead", "columns", "curvature", "gradient", "products", "squares", "transposed")
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

import numpy as np
from numba import float64, typeof
from fastrsx.kernels.formulas.records import POINT
from fastrsx.kernels.compiling.gpucache import cached
from fastrsx.kernels.formulas import links
from fastrsx.kernels.gpu import loop, rows, tensor_gram, vectors
from fastrsx.kernels.gpu.share import share_for

signature = float64[::1], typeof(np.zeros(1, POINT)), float64[::1], float64[::1]
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
for link in (links.RSX, links.LINKS["softmax"]):
    take(vectors.fold_predictions.of(type(link)), (typeof(link), *signature))
take(rows.products(share_for("<f8", 2, 3)), (float64[:, ::1], float64[::1], float64[::1]))
take(tensor_gram.narrow(1, tensor_gram.Source(8, 16, False), 0).kernel, (float64[:, ::1], float64[::1], float64[:, :, ::1]))
print(hits, "hits", misses, "misses")
"""


def files(folder):
    return sorted(Path(folder).rglob("*.nbc"))


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder with the four kernels of TAKE."""
    folder = tmp_path_factory.mktemp("warm") / "cache"
    assert run(TAKE, folder.parent, "-W", "error", FASTRSX_CACHE=str(folder)) == "0 hits 4 misses"
    return folder


def test_another_process_loads_them(warm, tmp_path):
    assert len(files(warm)) == 4
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE=str(warm)) == "4 hits 0 misses"


def test_they_are_of_this_build(warm):
    """So `fastrsx info` does not count them as stale, though it does not ask for a GPU."""
    assert all(f".{gpucache.build()}." in file.name for file in files(warm))


def test_another_gpu_compiles_its_own(warm, tmp_path):
    code = TAKE.replace("(9, 0)", "(8, 0)")
    assert run(code, tmp_path, "-W", "error", FASTRSX_CACHE=str(warm)) == "0 hits 4 misses"


def test_a_damaged_file_is_compiled_again(warm, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    for file in files(warm):
        (folder / file.name).write_bytes(file.read_bytes()[:-1])
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE=str(folder)) == "0 hits 4 misses"
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE=str(folder)) == "4 hits 0 misses"


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_what_others_can_write_to_is_not_read(warm, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    for file in files(warm):
        (folder / file.name).write_bytes(file.read_bytes())
        (folder / file.name).chmod(0o666)
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE=str(folder)) == "0 hits 4 misses"


def test_a_link_of_the_users_own_is_not_kept(tmp_path):
    """Its formulas are not in the source of the kernels: an entry could be of another version of them."""
    code = f"""{PRETEND}
from extensions import softplus
link = softplus.LINK.compiled
take(vectors.fold_predictions.of(type(link)), (typeof(link), *signature))
print(hits, "hits", misses, "misses")
"""
    for _ in range(2):
        assert run(code, tmp_path, "-W", "error", FASTRSX_CACHE=str(tmp_path / "cache")) == "0 hits 1 misses"
    assert not files(tmp_path)


def test_off(tmp_path):
    assert run(TAKE, tmp_path, "-W", "error", FASTRSX_CACHE="0") == "0 hits 4 misses"
    assert not files(tmp_path)


def all_kernels():
    """By module and name; those that are made for a share of rows, for one of them, and those for tensor cores for some ways to copy A."""
    share, found = share_for("<f8", 2, 5), {}
    for layout in ((8, 16, False), (8, 8, False), (8, 8, True), (4, 8, False), (2, 8, False), (2, 8, False, True)):
        source = tensor_gram.Source(*layout)
        for riders in (0, tensor_gram.RIDERS):
            found |= {tensor_gram.narrow(groups, source, riders).kernel: f"narrow {groups} {source} {riders}" for groups in (1, 2, 4)}
            found[tensor_gram.wide(source, riders).kernel] = f"wide {source} {riders}"
    for lanes in (1, 8):
        found |= {make(lanes): f"sparse {name} {lanes}" for name, make in vars(sparse).items() if name in FOR_A_SHARE}
        found |= {sparse.merge(lanes, has_largest): f"merge {lanes} {has_largest}" for has_largest in (False, True)}
    for module in (gram, loop, merge, plane, rows, sample, sparse, tensor_gram, vectors):
        makers = {} if module is sparse else {name: vars(module)[name] for name in FOR_A_SHARE if name in vars(module)}
        made = {name: make(share) for name, make in makers.items() if make.__module__ == module.__name__}
        for name, value in {**vars(module), **made}.items():
            for each in [value.of(type(link)) for link in links.LINKS.values()] if isinstance(value, ByLink) else [value]:
                if isinstance(each, CUDADispatcher) and not each.targetoptions["device"]:
                    found[each] = f"{module.__name__}.{name}"
    return found


def test_every_kernel_can_be_told_from_others():
    found = {kernel: gpucache.identity(kernel) for kernel in all_kernels()}
    assert len(found) > 40
    assert not [name for kernel, name in all_kernels().items() if found.get(kernel) is None]
    assert len(set(found.values())) == len(found)


def test_what_is_closed_over_tells_kernels_apart():
    """The same source for shares of other widths, and for other links."""
    tell = gpucache.identity
    kinds = ("<f8", 5), ("<f8", 50), ("<f4", 5), ("<f2", 5), ("bfloat16", 5)
    assert len({tell(rows.products(share_for(number, 2, d))) for number, d in kinds}) == len(kinds)
    assert tell(vectors.fold_domain.of(type(links.RSX))) != tell(vectors.fold_domain.of(type(links.LINKS["softmax"])))
    assert tell(vectors.fold_domain.of(type(softplus.LINK.compiled))) is None
