"""What is asked for: experiments, tiers, designs, rungs, devices and stints. Values and functions, no I/O.

May import `errors` and `carbon`.
"""
