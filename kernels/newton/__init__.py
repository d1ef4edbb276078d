"""Newton's method: the subproblem, an iteration, what iterations come to, and a whole small solve."""
