"""Many small problems, eight to a register."""
