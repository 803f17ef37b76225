"""The published loops as their papers describe them, written plainly: what the library's speed is measured against.

Class by class, a fresh network each step, layers as PyTorch has them, whole batches, float32. Only data, augmentation
and seeds are the library's, so that both compute the same thing.
"""
