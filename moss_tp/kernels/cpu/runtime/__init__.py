"""Runs kernels on this process's threads; knows nothing of what they compute."""
