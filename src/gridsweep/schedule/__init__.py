"""State and policy joined: `step`, the worklist, pace, deadlines, and the checks of every decision."""
