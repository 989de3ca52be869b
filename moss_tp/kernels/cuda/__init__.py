"""The CUDA back end: Triton kernels, each beside its torch reference.

    runtime/      when Triton runs a kernel, what it is compiled to
    linear/       products with weights, LayerNorm, sums of pieces
    attention/    rotary embedding, the paged cache, attention
    sampling/     logits to tokens

Every kernel has one wrapper, which checks its arguments and runs either the kernel or, for tensors
on the CPU, the torch reference of the same function. So the whole back end runs without a GPU.

An element is computed in one order of operations, whatever the rows beside it and whichever kernel
computes it: products add up K in fixed pieces with one kind of matrix instruction, attention merges
fixed pieces of 128 tokens, and multiplications and additions that are fused say so (`tl.fma`; the
compiler fuses none of its own).
"""
