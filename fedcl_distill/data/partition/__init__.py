"""Dividing data over clients: one rule a file."""

from fedcl_distill.data.partition.base import Partitioner, check_partition
from fedcl_distill.data.partition.classes import ClassesPerClient
from fedcl_distill.data.partition.dirichlet import Dirichlet
from fedcl_distill.data.partition.divide import partition
from fedcl_distill.data.partition.flower_datasets import FlowerDatasetsPartitioner
from fedcl_distill.data.partition.iid import IID
from fedcl_distill.data.partition.natural import Natural
from fedcl_distill.data.partition.parse import parse_partitioner

__all__ = [
    "IID",
    "ClassesPerClient",
    "Dirichlet",
    "FlowerDatasetsPartitioner",
    "Natural",
    "Partitioner",
    "check_partition",
    "parse_partitioner",
    "partition",
]
