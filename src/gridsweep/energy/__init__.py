"""Energy measurement and power limits: meters, NVML, RAPL, the power model, GPU power limits."""
