"""The admin port: health, status and metrics."""
