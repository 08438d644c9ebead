"""Write, repair and read raw frames and Parquet files on disk."""
