"""What the parts share: engines and how to drive them, plans, kernels' cases, profiles."""
