"""A device that works through queues, behind a protocol: CUDA, or the CPU in its place.

    base     the protocol: queues, events, graphs, pinned memory
    cuda     streams, events and CUDA graphs of torch
    eager    the CPU, which runs everything at once and in order
    null     nothing runs at all: what is left is the host's own time
    choose   the one of a torch device

What runs on a GPU step by step (the graph runner, the sampler, streamed weights) is written for the
protocol, so that a machine without a GPU proves its order and its bytes.
"""
