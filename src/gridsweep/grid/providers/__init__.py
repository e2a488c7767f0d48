"""Where carbon intensity comes from; one file a provider."""
