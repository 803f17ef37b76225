"""What runs on Flower (``strategies.federated``) and on Avalanche (``strategies.continual``)."""
