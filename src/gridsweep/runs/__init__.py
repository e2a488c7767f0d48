"""Real runs: the run, its folder, worlds with a wall clock, settling, amendments."""
