"""The fold on a CPU: rows into states, states combined."""
