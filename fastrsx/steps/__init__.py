"""Where a step comes from, and in which variables it is taken."""
