"""Asking carbon providers over HTTP: one client for all, its limits, its cache, its secrets, and what came back."""
