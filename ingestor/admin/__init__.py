"""Show operators the state of the process over HTTP and in the terminal."""
