"""Doubles of the providers' APIs: each speaks its dialect over a grid whose truth is known."""
