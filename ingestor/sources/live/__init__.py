"""Plan, open, watch and repair the live connections to venues."""
