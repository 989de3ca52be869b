"""`moss shard`: a model's weights cut into ranks and packed, for a quick start."""
