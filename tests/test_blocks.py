"""Blocks of rows, and the parts of their Gram matrices that threads share."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastrsx
from fastrsx.kernels import dense
from fastrsx.kernels.cpu import blocks
from fastrsx.kernels.layouts.panel import ROWS, padded
from fastrsx.kernels.registers import gram
from naive import Naive

RNG = np.random.default_rng(20261129)


@pytest.mark.parametrize("d", [1, 13, 64, 257, 512, 1000, 1024])
@pytest.mark.parametrize("n", [1, 100, 512, 513, 100_000, 4_000_000])
def test_blocks_are_many_and_their_gram_matrices_small(n, d):
    count = blocks.block_count(n, d)
    assert 1 <= count <= blocks.MOST_BLOCKS
    assert count * padded(d) ** 2 <= max(blocks.GRAM_NUMBERS, n * d / blocks.GRAM_SHARE) or count <= blocks.FEWEST_BLOCKS
    bounds = [blocks.block_rows(k, count, n) for k in range(count)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == n
    assert all(stop == start for (_, stop), (start, _) in pairwise(bounds))
    assert all(start % ROWS == 0 for start, _ in bounds)
    if n == 4_000_000:
        assert count >= 120, "fewer than most servers have threads"


@pytest.mark.parametrize("threads", [1, 2, 3, 16, 48, 128])
@pytest.mark.parametrize("count", [1, 8, 12, 32, 128])
def test_parts_leave_few_threads_idle(count, threads):
    parts = blocks.part_count(count, 512, threads)
    rounds = -(-count * parts // threads)
    assert parts == blocks.MOST_PARTS or count * parts >= (1 - blocks.MOST_IDLE) * threads * rounds
    assert blocks.part_count(count, 64, threads) == 1
    if threads <= 2 and count >= 8:
        assert parts == 1


@pytest.mark.parametrize("d", [8, 128, 136, 512, 1000])
@pytest.mark.parametrize("parts", [1, 2, 5, 16])
def test_parts_hold_all_columns_once(d, parts):
    bounds = [gram.strips_of_part(d, part, parts) for part in range(parts)]
    assert [first for first, _ in bounds] == [0, *(last for _, last in bounds[:-1])]
    assert bounds[-1][1] == gram.strip_count(d)
    assert gram.strip_start(d, 0) == 0
    assert gram.strip_start(d, gram.strip_count(d)) == d


@pytest.mark.parametrize(("n", "d"), [(1500, 130), (700, 257)])
def test_shared_gram_matrices_have_the_same_bits(n, d):
    A, b, x, empty = RNG.standard_normal((n, d)), RNG.random(n), RNG.standard_normal(d) / d, np.empty(0)
    h, work, found = RNG.standard_normal(n), dense.alloc_workspace(n, d, True), []
    for parts in (1, 2, 7):
        grad, hess, gram = np.empty(d), np.empty((d, d)), np.empty((d, d))
        for twin in ("", "_serial"):
            fun = getattr(dense, f"value_grad_hess{twin}")(A, x, b, empty, grad, hess, blocks.shared(work, parts))
            getattr(dense, f"weighted_gram{twin}")(A, h, gram, blocks.shared(work, parts))
            found.append((fun, grad.tobytes(), hess.tobytes(), gram.tobytes()))
    assert all(each == found[0] for each in found)
    assert_allclose(hess, Naive(A, b, x).hess, rtol=1e-10, atol=1e-14)


def test_a_problem_shares_gram_matrices_where_threads_outnumber_blocks():
    A, b, x = RNG.standard_normal((1500, 200)), RNG.random(1500), np.full(200, 1e-3)
    expected = fastrsx.Problem(A, b, kernel="serial").hess(x)
    problem = fastrsx.Problem(A, b, kernel="parallel")
    problem.plan = problem._passes.plan = problem.plan._replace(threads=32)
    assert np.array_equal(problem.hess(x), expected)
    work = problem._passes.workspace()
    assert len(work.buffers) == len(work.vectors) * blocks.part_count(len(work.vectors), 200, 32) > len(work.vectors)
