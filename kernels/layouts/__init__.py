"""The layouts of A: each loads its rows into the panel that the micro-kernel reads."""
