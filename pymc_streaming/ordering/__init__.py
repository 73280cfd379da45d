"""Is the order of a stream a random one? The order report."""
