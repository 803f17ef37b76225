"""Kernel ridge regression from synthetic to real samples."""
