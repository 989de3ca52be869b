"""Programs of kernels: how they are built, kept and run on this process's threads."""
