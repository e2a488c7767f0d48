"""What should start, pause or wait, given a situation. A policy knows no state.

May import `errors`, `carbon`, `sweep` and `optima`.
"""
