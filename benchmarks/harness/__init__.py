"""Run processes, collect figures and write reports for the cases."""
