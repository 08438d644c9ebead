"""Count, measure and log what the process does."""
