"""Linear layers: weights packed into panels, products over them by tiles, and oneDNN's own."""
