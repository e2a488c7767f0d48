"""Doubles and contracts, shipped: the stand-in worker, contracts, a fake NVML, grid and cluster.

`python -m gridsweep.testing ATTEMPT_FOLDER` is the stand-in worker.
"""
