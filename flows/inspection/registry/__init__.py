"""Model versions and who approved them."""
