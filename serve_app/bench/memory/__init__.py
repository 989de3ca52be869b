"""What a model takes: memory of all of its processes, and time to start, at MOSS's own size."""
