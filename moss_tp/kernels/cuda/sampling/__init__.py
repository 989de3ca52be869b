"""The sampler on the device. `device_sampler` is what a step uses, `sample` lists the kernels."""
