"""Run several worker processes on one machine as one ingestor."""
