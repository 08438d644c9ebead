"""Write last values to Redis."""

from ingestor.sinks.redis.writer import RedisSettings, RedisWriter

__all__ = ["RedisSettings", "RedisWriter"]
