"""Turn sealed book updates into verified order-book rows, and ask for repairs."""
