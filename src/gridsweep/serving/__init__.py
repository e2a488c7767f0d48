"""A sweep's adapters behind an OpenAI-compatible API."""
