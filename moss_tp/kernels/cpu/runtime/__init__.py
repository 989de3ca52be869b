"""Runs kernels on this process's threads, whatever they compute."""
