"""An independent oracle for a solve's outcome: `complaint` says what is untrue about it. Plain longdouble NumPy from the maths, without fastrsx.

    a = A x    e = m exp(a)    u = e + m a    v = e + m    alpha = <u, 1> > 0    f = u / alpha    c = r (f - b)    s = <f, c>
    (link="softmax": u = v = e = m exp(a); link="linear": u = m a, v = m, e = 0)
    L = <c, f - b> + 1/2 <w * a, w * a>

With groups of rows, alpha and s are sums over the rows of one group. The multiplicities m and the residual weights r are 1 if not given.

A solve works in float64, so its outcome is only determined up to rounding, and every tolerance here is a bound on rounding. A x is known to
E = (d + steps + 4) eps max |A| |x|: a product of d terms, to which each step adds the rounding of a number as large as the largest, and as large as
A x or a step was on the way, up to a hundred times A x; beyond that the package computes A x again. If x was moved
in the null space of A, which the package does to max |a| 1e-12, that is added. The effect of E on u, f, L, the gradient and the Hessian follows to
first order in f, and exactly in exp, by magnitudes; their own sums add SUMS eps times the magnitudes of their terms. So if E is 1 nothing is known,
and if |A| |x| is small every digit counts. Only these tolerances are not rounding but promises of the package: `tol`; eigenvalues above -1e-10 of the
largest count as not negative; directions along which A x is 1e-12 of its largest count as a null space; and a Hessian of 1e-9 of its terms
counts as rounding, so that only the loss is checked.
"""

import numpy as np

real = np.longdouble
EPS = real(np.finfo(float).eps)
TINY = real(5e-324)  # half of the least number, twice: products and sums
SUMS = 64  # eps: at most 40 terms, with a few operations on each
MOVED = real(1e-12)  # of max |a|
FLAT, FLAT_BY_PRODUCTS = real(1e-10), real(1e-8)  # of the largest eigenvalue: of a known Hessian, and of one seen through products with vectors
NEAR_POLE = (16 * EPS) ** (-real(1) / 3)  # kappa
TOWARDS_POLE = 1e3  # where the Hessian has no clear curvature
LARGEST, OVERFLOWS = float(np.finfo(float).max), real(1e290)  # intermediate squares and sums of something that large may overflow
SCALED_UP_TO = real(20)  # the condition of scaled columns
DEPENDENT = real(1e-11)  # of the largest axis; ten times the package's limit, since the axes here are not principal
ROUNDING = 1e-14  # of the largest axis
PROMISED = real(1e8)  # the condition up to which an x in float64 has the A x of the solve
SATURATION = real(1e-9)  # of the Hessian's terms
LEAST_ENTRY = real(1e-140)  # a column without a larger entry counts as 0
FLUSHED = np.exp(real(-708))  # the package replaces smaller exponentials by 0
SHORT = real(1e-5)  # max |A p| of the last step to a minimum
SUBNORMAL = real(1e-300)  # a loss below that is the sum of squares that have lost their digits
STEPS = 60  # of Newton's method, which needs fewer to reach a minimum nearby
FAR = 100  # times max |a|
BESIDE = real(1e-3)  # max |A p| of a short step
AHEAD = 64  # units of max |A p| on a ray, as far as the package says it has looked


def absolute(*values):
    return max((abs(value).max() for value in values if np.size(value)), default=real(0))


class Groups:
    """Groups of rows, in the order in which they first appear, and sums over each: arrays of T numbers. Without labels there is one."""

    def __init__(self, labels, n):
        numbers = {}
        self.of = np.array([numbers.setdefault(label, len(numbers)) for label in ([None] * n if labels is None else labels)])  # the group of each row
        self.count = len(numbers)
        self.order = np.argsort(self.of, kind="stable")
        self.starts = np.searchsorted(self.of[self.order], np.arange(self.count))

    def sum(self, y):
        return y.sum(keepdims=True) if self.count == 1 else np.add.reduceat(y[self.order], self.starts)

    def dot(self, y, z):
        return np.atleast_1d(y @ z) if self.count == 1 else self.sum(y * z)

    def max(self, y):
        return np.maximum.reduceat(y[self.order], self.starts)

    def products(self, A, v):
        """A_t^T v_t for each group: T x d."""
        return (A.T @ v)[None] if self.count == 1 else np.add.reduceat((A * v[:, None])[self.order], self.starts)


class Point:
    """Everything at x in longdouble, with bounds on its rounding errors: `noise` for L.

    `alpha` and its logarithm, `kappa`, `lost`, the relative error of alpha, and F = <r f, f> are arrays, with one number for each group.
    """

    def __init__(self, A, b, w, x, link="rsx", steps=0, moved=False, farthest=0.0, *, groups=None, m=None, r=None):
        self.A, self.b, self.link = np.asarray(A, real), np.asarray(b, real), link
        self.groups = Groups(groups, len(self.b))
        self.m, self.r = (np.ones(len(self.b), real) if y is None else np.asarray(y, real) for y in (m, r))
        self.w = np.zeros(len(self.b), real) if w is None else np.zeros(len(self.b), real) + np.asarray(w, real)
        x = np.asarray(x, real)
        self.x, self.a = x, self.A @ x
        error = (self.A.shape[1] + steps + 4) * EPS * absolute(abs(self.A) @ abs(x)) + self.A.shape[1] * TINY
        self.error = np.full(len(self.b), error)
        self.error += (steps + 4) * EPS * min(real(farthest), FAR * absolute(self.a))  # A x came down from there, step by step
        if moved:
            self.error += MOVED * absolute(self.a)
        self._terms()

    def _terms(self):
        a, error, link, m, r, groups = self.a, self.error, self.link, self.m, self.r, self.groups
        counts = m > 0
        tops = groups.max(np.where(counts, a, -np.inf)) if link != "linear" else np.zeros(groups.count, real)
        tops = np.maximum(tops, 0) if link == "rsx" else tops
        top = tops[groups.of]
        near_top = groups.max(np.where(counts & (a >= top - 2 * error), 2 * error, 0))[groups.of]
        e = np.exp(np.where(counts, a - top, 0)) if link != "linear" else 0 * a  # elsewhere m is 0
        k = np.exp(-top) if link != "softmax" else 0 * top
        most = np.minimum(a - top + error + near_top, 1000)
        e_error = np.exp(most) - e + np.where(e < FLUSHED, e, 0) if link != "linear" else 0 * a
        k_error = k * np.expm1(np.minimum(near_top, 1000)) + k * (k < FLUSHED) if link == "rsx" else 0 * k
        self.u, self.v, self.e = m * (e + k * a), m * (e + k), m * e
        sizes = m * (e + k * abs(a))
        u_error = m * (e_error + k * error + k_error * abs(a)) + SUMS * EPS * sizes
        self.v_error = m * (e_error + k_error)
        self.alpha, self.alpha_error = groups.sum(self.u), groups.sum(u_error)
        inside = self.alpha > 0
        self.log_alpha = np.where(inside, np.log(np.where(inside, self.alpha, 1)) + tops, np.nan)
        self.kappa = np.where(inside, groups.sum(sizes) / np.where(inside, self.alpha, 1), np.inf)
        self.inside = bool(inside.all())
        self.known = bool(((self.alpha_error < self.alpha / 4) & (self.alpha < np.inf)).all())
        if not self.inside:
            self.value, self.noise, self.known = real(np.inf), real(np.inf), False
            return
        alpha, self.lost = self.alpha[groups.of], self.alpha_error / self.alpha
        self.f = self.u / alpha
        self.f_error = u_error / alpha + abs(self.f) * self.lost[groups.of]
        self.c = r * (self.f - self.b)
        self.s = groups.dot(self.f, self.c)[groups.of]
        self.s_error = groups.dot(self.f_error, abs(self.c) + r * abs(self.f))[groups.of]
        self.F = groups.dot(r * self.f, self.f)
        self.squares = (self.f - self.b) @ self.c
        self.squares_noise = 2 * abs(self.c) @ (self.f_error + EPS * abs(self.b)) + (r * self.f_error) @ self.f_error + SUMS * EPS * self.squares
        w2 = self.w**2
        penalty = w2 @ a**2 / 2
        self.value = self.squares + penalty
        self.noise = self.squares_noise + w2 @ (abs(a) * error + error**2 / 2) + SUMS * EPS * penalty
        if (r == 0).any():  # elsewhere the rounding of f is far above subnormal numbers
            self.noise += (len(a) + 8) * TINY
        if not self.known:
            self.noise = real(np.inf)

    def at(self, a):
        """The point at another A x, which has no error."""
        out = object.__new__(Point)
        out.A, out.b, out.w, out.link, out.a = self.A, self.b, self.w, self.link, a
        out.groups, out.m, out.r = self.groups, self.m, self.r
        out.error = 0 * a
        out._terms()
        return out

    def along(self, image, t):
        """L at a + t image."""
        return self.at(self.a + t * image).value

    @property
    def scale(self):
        """The RMS of the columns, 1 for a zero column."""
        rms = np.sqrt((self.A**2).mean(axis=0))
        return np.where(rms > 0, rms, 1)

    def derivatives(self, A=None):
        """Gradient and Hessian in scaled columns, or in other columns that span the same space, each with a bound on its error."""
        A, r, w2 = self.A / self.scale if A is None else A, self.r, self.w**2
        alpha, lost, F = (y[self.groups.of] for y in (self.alpha, self.lost, self.F))
        v, cs = self.v / alpha, self.c - self.s
        c_error, f_size = r * self.f_error, r * abs(self.f)
        cs_error, cs_size = c_error + self.s_error, abs(self.c) + abs(self.s)
        v_error = self.v_error / alpha + v * (lost + SUMS * EPS)
        slope = 2 * v * cs + w2 * self.a
        slope_error = 2 * v_error * cs_size + 2 * v * cs_error + w2 * self.error + SUMS * EPS * (2 * v * cs_size + w2 * abs(self.a))
        e, e_error = self.e / alpha, v_error
        h = 2 * r * v**2 + 2 * e * cs + w2
        h_error = r * (4 * v * v_error + 2 * v_error**2) + 2 * e_error * cs_size + 2 * e * cs_error
        h_error += SUMS * EPS * (2 * r * v**2 + 2 * e * cs_size + w2)
        F_error = self.groups.dot(f_size, self.f_error)[self.groups.of]
        q_part, q_size = r * self.f + cs - F / 2, f_size + cs_size + F / 2
        q, q_error = v * q_part, v_error * q_size + v * (c_error + cs_error + F_error + SUMS * EPS * q_size)
        V, Q = self.groups.products(A, v), self.groups.products(A, q)
        V_error = self.groups.products(abs(A), v_error + SUMS * EPS * v)
        Q_error = self.groups.products(abs(A), q_error + SUMS * EPS * v * q_size)
        H = (A.T * h) @ A - 2 * (V.T @ Q + Q.T @ V)
        outer = V_error.T @ (abs(Q) + Q_error) + abs(V).T @ Q_error
        H_error = (abs(A).T * h_error) @ abs(A) + 2 * (outer + outer.T)
        return A.T @ slope, abs(A).T @ slope_error, (H + H.T) / 2, H_error

    def curvature_terms(self, A):
        """A^T |diag(h)| A: the Hessian if its terms did not cancel."""
        alpha = self.alpha[self.groups.of]
        v, e, cs = self.v / alpha, self.e / alpha, abs(self.c) + abs(self.s)
        return (abs(A).T * (2 * self.r * v**2 + 2 * e * cs + self.w**2)) @ abs(A)


def orthonormal(A):
    """Columns of mean square 1 that span the columns of A, to rounding in float64, by Gram-Schmidt, done twice; and the condition of scaled A.

    There are two conditions: one without the dropped axes, and one without those that are rounding.
    """
    n, d = A.shape
    rest = A / np.where(np.sqrt((A**2).mean(axis=0)) > 0, np.sqrt((A**2).mean(axis=0)), 1)
    with np.errstate(all="ignore"):
        sizes = np.linalg.svd(rest.astype(float), compute_uv=False)
    basis, dropped = np.empty((n, 0), real), DEPENDENT
    for _ in range(min(n, d)):
        length = np.sqrt((rest**2).mean(axis=0))
        j = int(np.argmax(length))
        if not length[j] > dropped:
            break
        column = rest[:, j] / length[j]
        for _ in range(2):
            column = column - basis @ (basis.T @ column) / n
            column = column / np.sqrt((column**2).mean())
        basis = np.column_stack([basis, column])
        rest = rest - np.outer(column, column @ rest) / n
        rest[:, j] = 0
    sizes = sizes if sizes.size and sizes[0] > 0 else np.ones(1)
    return basis, *(real(sizes[0] / sizes[sizes > least * sizes[0]][-1]) for least in (dropped, ROUNDING))


def eigen(H, size):
    """Eigenvalues and vectors of H, whose entries are at most `size`: LAPACK has no longdouble."""
    values, vectors = np.linalg.eigh((H / size).astype(float))
    return values.astype(real) * size, vectors.astype(real)


class Spectrum:
    """The second-order conditions at a point: the Newton decrement and the smallest eigenvalue, both beyond their rounding errors.

    Computed in an orthonormal basis of A's columns, so that they do not depend on which columns span the space.
    """

    def __init__(self, point, flat=FLAT):
        self.basis, condition, self.condition = orthonormal(point.A)
        # The package's own basis is off by rounding times the condition; below 20 it uses scaled columns instead.
        flat = max(flat * min(condition, SCALED_UP_TO) ** 2, SUMS * EPS * condition)
        g, g_error, H, H_error = point.derivatives(self.basis)
        size = absolute(H, H_error) or real(1)
        values, self.vectors = eigen(H, size)
        self.values, self.gradient = values, g
        self.error = np.sqrt((H_error**2).sum()) + len(g) * EPS * size + (len(point.a) + 8) * TINY
        self.is_saturated = absolute(values) <= SATURATION * absolute(point.curvature_terms(self.basis))
        self.least = values.min(initial=0) + self.error + flat * absolute(values)
        floor = self.error + flat * absolute(values)
        along = np.maximum(abs(self.vectors.T @ g) - abs(self.vectors.T) @ g_error, 0)
        self.curvatures = np.maximum(abs(values), floor if floor > 0 else 1)
        self.decrement = (along**2 / self.curvatures).sum() / 2
        self.step = absolute(self.basis @ (self.vectors @ (self.vectors.T @ g / self.curvatures)))  # max |A p| of Newton's step p

    def directions(self):
        """Directions in the basis: Newton's, those of trust regions, the steepest descent, and those of least curvature."""
        slopes, size = self.vectors.T @ self.gradient, absolute(self.values)
        floors = [floor for floor in (FLAT * size, *(self.error * real(10) ** -np.arange(0, 16, 2))) if floor > 0]
        newton = [-self.vectors @ (slopes / np.maximum(abs(self.values), floor)) for floor in floors]
        flat = [sign * self.vectors[:, j] for j in range(len(slopes)) for sign in (1, -1)]
        return [*newton, *regularised(self.vectors, self.values, slopes), -self.gradient, *flat]


def regularised(vectors, values, slopes):
    """The steps of trust regions of all sizes: -(H + shift I)^-1 g."""
    size = absolute(values)
    return [-vectors @ (slopes / (np.maximum(values, 0) + size * real(10) ** (-k / real(4)))) for k in range(72)] if size > 0 else []


def in_columns(point):
    """The images of such steps in A's scaled columns, which give another metric."""
    g, _, H, _ = point.derivatives()
    values, vectors = eigen(H, absolute(H) or real(1))
    return [point.A / point.scale @ p for p in regularised(vectors, values, vectors.T @ g)]


def falls_for_ever(point, image, unit):
    """Whether L never rises along a + t image, as far as it is evaluated, and is not constant there."""
    if not 0 < unit < np.inf:
        return False
    ahead = [point.along(image, t / unit) for t in range(1, AHEAD + 1)]
    lowest = point.value
    for value in ahead:
        if not value <= lowest + point.noise:
            return False
        lowest = min(lowest, value)
    behind = (point.along(image, -t / 4 / unit) for t in range(1, 4 * AHEAD + 1))
    return ahead[-1] < point.value - point.noise or any(not value <= point.value + point.noise for value in behind)


def comes_to_a_minimum(point):
    """Whether Newton's method, in longdouble, comes from there to a second-order point, which proves that there is a minimum."""
    for _ in range(STEPS):
        spectrum = Spectrum(point)
        if spectrum.decrement <= real(1e-10) * point.value and spectrum.least >= 0 and spectrum.step <= SHORT:
            return True  # on the tail of a ray the decrement vanishes too, but steps stay long
        images = [spectrum.basis @ p for p in spectrum.directions()]
        value, best = min(((point.along(image, 1), k) for k, image in enumerate(images)), default=(point.value, 0))
        if not value < point.value:
            return False
        point = point.at(point.a + images[best])
    return False


def is_on_a_ray(point):
    """Whether the infimum may not be attained: a ray shows it, and a minimum disproves it. A valley may have a bend."""
    if not point.known:
        return True
    spectrum = Spectrum(point)
    if spectrum.condition > PROMISED:  # the solve has seen an A x that differs from that of x
        return True
    images = [spectrum.basis @ p for p in spectrum.directions()] + in_columns(point)
    candidates = [(image, absolute(image)) for image in images] + [(point.a, absolute(point.a)), (point.a, real(AHEAD))]
    return any(falls_for_ever(point, image, unit) for image, unit in candidates) or not comes_to_a_minimum(point)


def overflows(point):
    """Whether quantities that a solve computes overflow float64."""
    sizes = [1 / point.scale, point.x, point.a, point.a**2, point.b**2, point.r * point.b**2, point.m**2, point.w**2, (point.w * point.a) ** 2]
    if point.inside:
        g, _, H, H_error = point.derivatives()
        scale = point.scale
        sizes += [point.f**2, point.r * point.f**2, g**2, H**2, g * scale, H * np.outer(scale, scale), H_error**2, H_error * np.outer(scale, scale)]
        sizes += [(point.A.T**2) @ (point.w**2), 1 / point.alpha**2]
    return not absolute(*sizes) <= OVERFLOWS


def counted(A):
    """A without the columns that count as 0, as the package's messages say: those without an entry beyond 1e-140."""
    return np.where(abs(A).max(axis=0) < LEAST_ENTRY, 0, A)


def is_empty(groups, m):
    """Whether the multiplicities leave a group without rows, real arrays of longdouble."""
    return bool((Groups(groups, len(m)).sum(m) == 0).any())


def is_refused(A, b, w, x0, link="rsx", *, groups=None, m=None, r=None):
    """Whether the arguments, real arrays of longdouble, make no problem, and so must raise; None if rounding decides."""
    for values in (A, b, w, m, r):
        if values is not None and not (abs(values) <= real(1e150)).all():
            return True
    if any(values is not None and (values < 0).any() for values in (w, m, r)) or (x0 is not None and not (abs(x0) <= LARGEST).all()):
        return True
    if link == "linear" and (x0 is None or w is not None):
        return True
    if m is not None and is_empty(groups, m):
        return True
    point = Point(counted(A), b, w, np.zeros(A.shape[1]) if x0 is None else x0, link, groups=groups, m=m, r=r)
    is_clear = point.alpha_error < abs(point.alpha)
    if (is_clear & (point.alpha < 0)).any():
        return True
    return False if is_clear.all() else None


def complaint(A, b, w, x0, result, link="rsx", tol=1e-10, max_iter=100, second_order=True, *, groups=None, m=None, r=None):
    """What is untrue about the result, or None: of newton(A, b, x0, w=w, link=link, groups=groups, multiplicity=m, residual_weights=r).

    All are real arrays, but the labels of groups.

    Without `second_order` only fun, jac and alpha must be right, not the claim of a minimum or a ray.
    """
    status, success = result.status.name, bool(result.success)
    A = counted(np.asarray(A, real))
    n, d = A.shape
    if success != (status in ("CONVERGED", "EXACT_FIT")):
        return f"success is {success} with {status}"
    x = np.asarray(result.x)
    if x.shape != (d,) or x.dtype != float or np.shape(result.jac) != (d,):
        return f"x is {x.dtype} of shape {x.shape}, jac of shape {np.shape(result.jac)}"
    structure = {"groups": groups, "m": m, "r": r}
    start = Point(A, b, w, np.zeros(d) if x0 is None else x0, link, **structure)
    shape = () if groups is None else start.alpha.shape
    if np.shape(result.alpha) != shape or np.shape(result.log_alpha) != shape:
        return f"alpha has shape {np.shape(result.alpha)}, log_alpha {np.shape(result.log_alpha)}, not {shape}"
    if not np.isfinite(x).all():
        return None if status == "NONFINITE" else f"x is {x} with {status}"
    scaled = A / np.where(abs(A).max(axis=0) > 0, abs(A).max(axis=0), 1)
    dependent = d > n or np.linalg.matrix_rank(scaled.astype(float), tol=1e-10 * np.sqrt(n * d)) < d
    farthest = max([absolute(start.a), *(record.step for record in result.history)])
    point = Point(A, b, w, x, link, steps=result.nit, moved=dependent and success, farthest=farthest, **structure)
    if status == "NONFINITE":
        if not overflows(point) and not overflows(start):
            return "NONFINITE, where all is finite"
        return None if not np.isfinite(result.fun) or not point.known or abs(result.fun - point.value) <= point.noise else "fun is not L(x)"
    if not np.isfinite(result.fun):
        return f"fun is {result.fun} with {status}"
    if (point.alpha_error < -point.alpha).any():
        return f"x lies outside the domain: alpha is {point.alpha} times exp(M)"
    if point.known and not abs(result.fun - point.value) <= point.noise:
        return f"fun is {result.fun!r}, L(x) {point.value!r}, which is {float(abs(result.fun - point.value) / point.noise):.3g} times the noise"
    if start.known and not result.fun <= start.value + start.noise:
        return f"fun is {result.fun!r}, above L(x0) = {start.value!r}"
    if status == "MAX_ITER" and result.nit != max_iter:
        return f"MAX_ITER after {result.nit} steps"
    if not point.known:
        return None
    log_alpha_error = 2 * point.lost + absolute(point.error) + SUMS * EPS * (1 + abs(point.log_alpha))
    if not (abs(result.log_alpha - point.log_alpha) <= log_alpha_error).all():
        return f"log_alpha is {result.log_alpha}, not {point.log_alpha}"
    if status == "EXACT_FIT":
        # No more than rounding, as the package bounds it: of sums that cancel, and of a in the rows that matter; and the error of x itself.
        rounding = (16 * min(absolute(point.kappa), NEAR_POLE) + min(absolute(point.a), 10000)) * EPS
        most = (1 + np.sqrt(real(2))) * rounding * np.sqrt((point.r * point.b) @ point.b)
        residual = np.sqrt(point.squares)
        if not residual <= most + np.sqrt((point.r * point.f_error) @ point.f_error):
            return f"EXACT_FIT with ||f - b|| = {residual}"
        return None if point.value - point.squares <= point.noise else f"EXACT_FIT with a penalty of {point.value - point.squares}"
    if overflows(point):
        return None
    g, g_error, H, H_error = point.derivatives()
    lowest = (n + 8) * TINY / point.scale  # subnormal numbers are rounded by that much; so is a vector of a rank-2 term
    if m is not None:
        lowest = np.maximum(lowest, (n + 8) * TINY)  # the scale may be that of rows with m = 0, far above that of all others
    counts = (A != 0).any(axis=0)
    small = LEAST_ENTRY * (n * (2 * point.v * (abs(point.c) + abs(point.s)) / point.alpha[point.groups.of] + point.w**2 * abs(point.a)).max())
    wrong = np.where(counts, abs(result.jac / point.scale - g) > g_error + lowest, abs(result.jac) > 2 * small)
    if wrong.any():
        return f"jac is {result.jac / point.scale} in scaled columns, not {g} up to {g_error}"
    if result.hess is not None and result.kernel.find("exact Hessian") >= 0:
        off = abs(result.hess / point.scale[:, None] / point.scale - H) / (
            H_error + lowest / point.scale[:, None] + absolute(H) * (lowest + lowest[:, None])
        )
        if not np.nan_to_num(off)[np.ix_(counts, counts)].max(initial=0) <= 1:
            return f"hess is off by {off.max()} times its error"
    if status == "CONVERGED" and second_order and point.value > SUBNORMAL:
        by_products = "matrix-free" in result.kernel
        spectrum = Spectrum(point, FLAT_BY_PRODUCTS if by_products else FLAT)
        if not (spectrum.decrement <= real(tol) * point.value + point.noise or spectrum.is_saturated):
            return f"the decrement is {spectrum.decrement} at L = {point.value}, with noise {point.noise}"
        if not (spectrum.least >= 0 or spectrum.is_saturated):
            return f"the Hessian has the eigenvalue {spectrum.values[0]} of {spectrum.values[-1]}, known to {spectrum.error}"
        image = spectrum.basis @ spectrum.vectors[:, 0] if len(spectrum.values) else np.zeros(n, real)
        most = FLAT_BY_PRODUCTS if by_products else real(tol)  # products see no slope along a direction that is as flat as that
        for way in (1, -1):
            beside = point.along(image, way * BESIDE / absolute(image)) if absolute(image) > 0 else point.value
            if not beside >= point.value * (1 - most) - 2 * point.noise:
                return f"L is {beside!r} beside L = {point.value!r}, along the direction of least curvature"
    if status == "NO_MINIMISER" and second_order:
        if "pole" in result.message:
            return None if (point.kappa >= TOWARDS_POLE * (1 - 4 * point.lost)).any() else f"near the pole, where kappa is {point.kappa}"
        return None if is_on_a_ray(point) else "no ray from here on which the loss falls"
    return None
