"""Scenarios that compare strategies, their results and reports."""
