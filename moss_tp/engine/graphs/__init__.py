"""A rank's side of a step on a GPU.

limits, memory             the largest step of an engine, and what it takes of the memory
buckets                    which steps replay a graph, and how many rows it has
layout, step_views         a step as one block of ints, and as tensors of fixed addresses
step_input                 fills such a block from a Batch
device_step, sampler       what the device computes with it
graph_runner, step_slot    copies in, replays or computes, copies out; a step on its way
build, wait                makes a runner; waits for a device with a deadline
"""
