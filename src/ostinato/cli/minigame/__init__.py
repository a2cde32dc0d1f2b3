"""The mini-game in the terminal: played by a person, and taught."""
