"""Define rows, instruments, exact numbers and errors, which every other package exchanges."""
