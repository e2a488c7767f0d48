"""A group of LoRA adapters that train together over one frozen base model, each exactly as if it were alone."""
