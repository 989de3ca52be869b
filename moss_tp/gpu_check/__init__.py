"""Proof in one command that a GPU computes MOSS right, and how near to its own limits.

    python -m moss_tp.gpu_check --out gpu.json

    command    arguments, and the order of things
    part       the parts, each a module of `parts/`, each with a time limit
    run        a process for each part; results are written after each
    check      what a part gets: the device, sizes, what other parts have found, a place for results
    verdict    a figure beside its limit and its bar
    report     results as JSON

It needs moss_tp, torch with Triton, numpy, numba, safetensors and huggingface_hub, no installation
and no network.
"""
