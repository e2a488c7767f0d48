"""The default policy: the remaining work placed where it is expected to emit least."""
