"""What the Ray executor needs of a cluster: its API, the way files travel, and the program that runs there."""
