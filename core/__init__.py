"""What is computed and stored. Imports no framework at module level, no command line, no backend."""
