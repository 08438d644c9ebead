"""Run other programs on the same traffic for comparison."""
