"""How far a model's predictions are from another one's, by the kernels that serve it."""
