"""The edges: the only modules that touch sockets, Kafka, files, HTTP and the clock."""
