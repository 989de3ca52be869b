"""When Triton runs a kernel, and what a kernel is compiled to."""
