"""Turn live sockets or recordings into frames for the decoders."""
