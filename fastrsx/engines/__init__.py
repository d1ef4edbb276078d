"""Who runs a pass over A: the CPU on arrays in memory, a file in parts, or a GPU."""
