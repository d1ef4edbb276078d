"""A link from outside: u = log(1 + exp(a)), which grows like a."""

import math

import fastrsx


def terms(a, M):
    """u, u' and u'', times exp(-M)."""
    p, k = 1.0 / (1.0 + math.exp(-a)), math.exp(-M)
    return (max(a, 0.0) + math.log1p(math.exp(-abs(a)))) * k, p * k, p * (1.0 - p) * k


LINK = fastrsx.Link(terms)
