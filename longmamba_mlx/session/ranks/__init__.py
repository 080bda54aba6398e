"""Read with several processes or machines: start, agreement, distribution of the work, and end."""
