"""Workers as RayJobs of a Kubernetes cluster."""
