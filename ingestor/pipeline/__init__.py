"""Run one flush from columns to sink, and decide when it runs."""
