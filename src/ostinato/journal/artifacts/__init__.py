"""Pictures, sounds and larger tensors, stored once by their hash."""
