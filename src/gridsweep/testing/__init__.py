"""Doubles and contracts, shipped: the stand-in worker, contracts, a fake NVML, grid and cluster."""
