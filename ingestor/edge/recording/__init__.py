"""Recordings on disk: written, repaired, read, compacted to Parquet."""
