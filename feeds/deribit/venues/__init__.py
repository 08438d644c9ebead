"""Hold the venues that speak as Deribit does: each module is one."""
