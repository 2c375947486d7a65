"""From a live network to rows: hooks, one pass that leaves no trace, the recorder."""
