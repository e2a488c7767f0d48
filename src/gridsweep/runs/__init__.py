"""Sweeps in which all is real: the run, its folder, worlds with a wall clock, settling, amendments."""
