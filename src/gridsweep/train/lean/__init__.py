"""Train a group of LoRA adapters together over one frozen base model, each exactly as if it were trained alone."""
