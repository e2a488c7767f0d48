"""Sweeps in which nothing is real: plans, back-tests, the baseline, virtual worlds, the simulated executor."""
