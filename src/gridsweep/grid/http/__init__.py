"""Requests to carbon providers: one client for all, its limits, its cache, its secrets, and what came back."""
