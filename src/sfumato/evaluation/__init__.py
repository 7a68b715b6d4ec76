"""How good a model is, in figures with their errors."""
