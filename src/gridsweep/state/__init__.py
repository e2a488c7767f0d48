"""Facts, and their fold. It knows no policy.

May import `errors`, `carbon`, `sweep` and `optima`.
"""
