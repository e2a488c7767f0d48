"""Workers as jobs of a Ray cluster.

`entrypoint` runs on the cluster before anything is installed there, so it uses only the standard library.
"""
