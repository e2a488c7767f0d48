"""Reports, plans and manifests as text, pictures and files."""
