"""State and policy combined: `step`, the worklist, pace, deadlines, and the checks of every decision."""
