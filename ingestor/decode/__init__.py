"""Turn frames into appended columns, one session for each connection."""
