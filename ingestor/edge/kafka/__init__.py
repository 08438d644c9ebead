"""Rows and side records into Kafka."""
