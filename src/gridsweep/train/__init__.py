"""The worker, a separate program: `python -m gridsweep.train ATTEMPT_FOLDER`. No other package imports it."""
