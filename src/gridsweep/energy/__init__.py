"""Energy measured and power limited: meters, NVML, RAPL, the model, power limits."""
