"""Newton's method: the subproblem, an iteration, the outcome of iterations, and a whole small solve."""
