"""Real-time market-data ingestor: exchange websockets to Kafka, exactly and accountably."""

__version__ = "0.2.0"
