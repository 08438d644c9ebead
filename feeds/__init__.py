"""One module a venue; each is found by name and through the entry-point group `ingestor.feeds`."""
