"""Doubles of carbon providers: HTTP dialects on a loopback server."""
