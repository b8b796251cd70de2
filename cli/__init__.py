"""The command line: each file is one command; it parses, calls and prints."""
