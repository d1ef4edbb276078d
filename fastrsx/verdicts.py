"""How a solve ended: the one map from a verdict of the kernels to a status and a sentence, and facts about A and b that a user may not know."""

import numpy as np

from fastrsx.kernels import dense, solve

from .frames import MOST_NAMED, Names, column_name
from .grouping import Groups
from .inputs import Vector
from .result import SUM_TOL, Status

Stop = tuple[Status, str] | None  # None: go on

STOPS: dict[int, Stop] = {
    solve.GO_ON: None,
    solve.MINIMUM: (Status.CONVERGED, Status.CONVERGED.sentence),
    solve.EXACT_FIT: (Status.EXACT_FIT, Status.EXACT_FIT.sentence),
    solve.SATURATED_ROWS: (Status.STALLED, "The rows are saturated: the Hessian's terms cancel to rounding. Start nearer 0."),
    solve.NO_DESCENT: (
        Status.STALLED,
        "No step along the model's direction lowers the loss beyond rounding; the tolerance may be out of reach.",
    ),
    solve.NONFINITE: (
        Status.NONFINITE,
        "The Hessian is not finite: entries of A or w are too large; divide columns of A by their largest entries.",
    ),
}


def near_pole(columns: str, where: str = "") -> Stop:
    """`solve.NEAR_POLE`; `where` names the group."""
    return Status.NO_MINIMISER, (
        f"The infimum is not attained: alpha = <u, 1>{where} tends to 0, its pole, as x grows along {columns} "
        "while the loss goes on falling. Weights w > 0 give the problem a minimiser."
    )


def on_a_ray(columns: str) -> Stop:
    """`solve.ON_A_RAY`."""
    return Status.NO_MINIMISER, (
        f"The infimum is not attained: the loss goes on falling along a ray on which rows saturate, led by {columns}. "
        "Weights w > 0 give the problem a minimiser."
    )


def fit_at_infinity(columns: str) -> Stop:
    """An exact fit in the limit only, see `fastrsx.steps.limits`."""
    return Status.NO_MINIMISER, (
        f"The infimum is not attained: the loss tends to 0 as x grows along {columns}, where a constant is added to A x, "
        "for exp(A x) fits b exactly without the A x beside it. Pass link='softmax', or weights w > 0, to have a minimiser."
    )


UNATTAINABLE = "No x in float64 has the A x that the solve came to."


def back_at_start(status: Status, message: str, instead: str, why: str) -> tuple[Status, str]:
    """The verdict where x is x0 again: that proves no minimum and no limit, so `instead` replaces such a message."""
    if status.success or status is Status.NO_MINIMISER:
        status, message = Status.STALLED, instead
    return status, f"{message} {why}, so x is x0."


# -- notes appended to any message ----------------------------------------------------------------------------


def heaviest(direction: Vector, names: Names) -> str:
    """The columns that carry most of a direction of scaled columns, largest first."""
    weight = np.abs(direction)
    order = np.argsort(-weight, kind="stable")
    main = [column_name(j, names) for j in order[:MOST_NAMED] if weight[j] >= 0.2 * weight[order[0]]]
    return f"column{'s' * (len(main) > 1)} {', '.join(main)} of A"


def nearly_dependent(columns: str, condition: float) -> str:
    """Advice where columns depend on each other to more digits than x has."""
    return (
        f" C{columns[1:]} are nearly dependent, with a condition of {condition:.0e} once scaled: "
        "centre and standardise them before they are squared or multiplied, or drop one."
    )


def _near_1(total: float) -> str:
    """A sum that is not 1."""
    return f"{total:.6g}" if f"{total:.6g}" != "1" else f"1 {'-' if total < 1 else '+'} {abs(total - 1):.1e}"


def sum_of_b(total: float, status: Status) -> str:
    """A note that b does not sum to 1, as f does."""
    if abs(total - 1) <= SUM_TOL or status is Status.EXACT_FIT:
        return ""
    return f" b sums to {_near_1(total)} and f to 1, so no exact fit exists{': pass b / b.sum() to fit shares' if total > 0 else ''}."


def groups_of_b(totals: Vector, groups: Groups, status: Status) -> str:
    """The same, where f sums to 1 in each group; a total is NaN where rows of the group are not compared with their b."""
    wrong = np.flatnonzero(np.abs(totals - 1) > SUM_TOL)
    if not wrong.size or status is Status.EXACT_FIT:
        return ""
    count = wrong.size - 1
    others = f" and in {count} other group{'s' * (count > 1)} to other numbers than 1" if count else ""
    return (
        f" b sums to {_near_1(totals[wrong[0]])} in group {groups.name(int(wrong[0]))}{others}, and f to 1 in each, so no exact fit exists: "
        "divide b by its sum over each group to fit shares."
    )


def single_rows(sizes: Vector, has_poles: bool, status: Status) -> str:
    """A note on groups of one row, of those with a multiplicity."""
    count = int(np.count_nonzero(sizes == 1))
    if not count:
        return ""
    which = "Every group has one row" if count == len(sizes) else f"{count} of {len(sizes)} groups have one row"
    advice = "; drop those rows, for x cannot pass the poles of their alpha" if has_poles and not status.success else ""
    return f" {which}, where f is 1 whatever x is{advice}."


def _listed(columns: Vector, names: Names) -> str:
    """These columns, as the start of a sentence."""
    shown = [column_name(j, names) for j in columns[:MOST_NAMED].tolist()] + ["..."] * (columns.size > MOST_NAMED)
    return f"Column{'s' * (columns.size > 1)} {', '.join(shown)} of A"


def invisible(columns: Vector, names: Names) -> str:
    """A note on columns that a softmax within groups does not see."""
    if not columns.size:
        return ""
    return f" {_listed(columns, names)}, constant within every group, do{'es' * (columns.size == 1)} not change the loss: x is 0 there."


def unseen(columns: Vector, names: Names) -> str:
    """A note that columns count as 0."""
    if not columns.size:
        return ""
    return f" {_listed(columns, names)}, without an entry beyond {dense.LEAST_ENTRY:g}, counted as 0: multiply by a constant what should count."
