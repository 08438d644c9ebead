"""Deliver rows to their destination and account for each of them."""
