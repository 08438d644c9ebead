"""Feed recordings through the live pipeline."""
