"""Numbers of all threads of a block, joined in a fixed order: within each warp by its shuffles, then across warps in each of them."""

import operator

from .block import WARP, called, cuda
from .ptx import swapped


def make_reduction(join):
    """Over a warp, and over a block, for each of their threads. scratch: a number for each warp; the warps are a power of two."""

    @called
    def over_warp(x):
        half = WARP // 2
        while half > 0:
            x = join(x, swapped(x, half))
            half //= 2
        return x

    @called
    def over_block(scratch, x):
        x = over_warp(x)
        cuda.syncthreads()
        if cuda.threadIdx.x % WARP == 0:
            scratch[cuda.threadIdx.x // WARP] = x
        cuda.syncthreads()
        warps = cuda.blockDim.x // WARP
        x, half = scratch[cuda.threadIdx.x % warps], warps // 2
        while half > 0:
            x = join(x, swapped(x, half))
            half //= 2
        return x

    return over_warp, over_block


_, block_sum = make_reduction(operator.add)
warp_max, block_max = make_reduction(max)
