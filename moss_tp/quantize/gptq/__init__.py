"""GPTQ (Frantar et al. 2022) on one weight: grid, Hessian, columns, and the published layout."""
