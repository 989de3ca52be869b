"""The reference: plain torch operations on any device. Tests compare the other back ends to it."""
