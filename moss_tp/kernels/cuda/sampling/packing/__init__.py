"""What goes to the device's sampler and what comes back, each packed into one block."""
