"""How the grid is heard: providers, fallbacks, the archive, trace files, yearly averages."""
