"""A process's state in one file, and back."""
