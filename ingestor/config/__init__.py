"""The configuration: its model, how it is loaded, and its schema."""
