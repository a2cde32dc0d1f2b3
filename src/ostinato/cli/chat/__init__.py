"""`ostinato chat`: a conversation in the terminal."""
