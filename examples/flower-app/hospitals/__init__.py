"""Hospitals that learn together: a Flower app with a network and data of its own."""
