"""Configure Kafka clients, topics and partitions, for sinks and consumers alike."""
