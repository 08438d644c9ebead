"""Benchmarks: `python -m benchmarks NAME`. docs/benchmarks.md says how to read them."""
