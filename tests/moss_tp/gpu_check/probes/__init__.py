"""Parts that pass, miss, hang, crash and fail, to test what becomes of them."""
