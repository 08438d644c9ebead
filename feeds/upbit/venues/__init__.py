"""Hold the venues that speak as Upbit does, one module each."""
