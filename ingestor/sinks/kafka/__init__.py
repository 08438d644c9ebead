"""Queue, encode and send rows to Kafka until they are acknowledged."""
