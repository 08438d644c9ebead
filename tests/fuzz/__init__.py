"""A fuzz target for the compiled way; README of `ingestor/native` says how to run it."""
