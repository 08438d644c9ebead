"""Hold the venues that speak as Binance does: each module is one."""
