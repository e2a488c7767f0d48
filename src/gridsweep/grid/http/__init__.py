"""HTTP requests to carbon providers: the shared client, its limits, cache and secrets, and the parsing of answers."""
