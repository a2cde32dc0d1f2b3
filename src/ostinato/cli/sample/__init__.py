"""Commands that sample from a trained model."""
