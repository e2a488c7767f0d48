"""Workers as jobs of a Ray cluster.

`entrypoint` runs on the cluster before anything is installed there: it uses the standard library only.
"""
