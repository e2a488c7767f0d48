"""Sources of carbon intensity, one file a provider; none imports another."""
