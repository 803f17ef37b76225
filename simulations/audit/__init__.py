"""Audits of releases: who was a member, what is a copy, what a gradient gives away."""
