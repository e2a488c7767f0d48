"""Workers as RayJobs on a Kubernetes cluster."""
