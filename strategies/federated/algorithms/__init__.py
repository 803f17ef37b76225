"""The strategies themselves, one a file."""
