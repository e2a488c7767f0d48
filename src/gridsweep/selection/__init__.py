"""Which experiments go on at a rung, which are added, which wins, and how surely."""
