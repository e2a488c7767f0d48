"""Doubles of a Kubernetes cluster that come with the package: an API server over real HTTP, an operator with a kubelet.

`server.ApiServer` keeps objects, `operator.Cluster` moves RayJobs and pods through their states and runs workers.
"""
