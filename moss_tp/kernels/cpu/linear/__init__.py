"""Linear layers: weights packed into panels, and products over them by tiles."""
