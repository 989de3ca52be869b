"""When Triton runs a kernel, and what a kernel is compiled to.

switch       the kernel, or its torch reference
spec         a kernel as it is compiled ahead of time
source       what Triton compiles when a kernel is launched
cubins       compiles specs in parallel, without a GPU
resources    registers, spills and shared memory, read from a cubin
read         reads memory at the device's full rate, to measure it
"""
