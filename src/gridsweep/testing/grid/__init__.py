"""Doubles of carbon providers: their HTTP dialects on a loopback server."""
