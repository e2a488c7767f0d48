"""The worker, a program of its own: `python -m gridsweep.train ATTEMPT_FOLDER`. Imported by no one."""
