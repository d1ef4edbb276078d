"""What A may be: each layout loads its rows into the panel that the micro-kernel wants."""
