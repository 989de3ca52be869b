"""What bounds a step: the model's traffic and arithmetic, and what a GPU was measured to do."""
