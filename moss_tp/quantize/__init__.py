"""`moss quantize`: a model's linears in 4 or 8 bits by GPTQ, in the layout that MOSS published."""
