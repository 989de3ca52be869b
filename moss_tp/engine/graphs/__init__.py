"""A rank's side of a step on a GPU.

buckets        which steps replay a graph, and how many rows it has
step_input     a step's ints in tensors of fixed addresses, filled from pinned memory
limits         the largest step of an engine
graph_runner   copies in, replays or computes, samples, copies out
"""
