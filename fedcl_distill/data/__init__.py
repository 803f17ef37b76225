"""Labelled data in memory, where it comes from, and how it is divided over clients."""

from fedcl_distill.data.dataset import DataLike, from_arrays, from_dataset
from fedcl_distill.data.files import load_npz, read_idx
from fedcl_distill.data.folders import load_image_folder
from fedcl_distill.data.frame import FrameEncoder, from_dataframe
from fedcl_distill.data.labelled import LabelledData, Splits, as_labelled, conform
from fedcl_distill.data.partition import (
    IID,
    PARTITIONERS,
    ClassesPerClient,
    Dirichlet,
    FlowerDatasetsPartitioner,
    Natural,
    Partitioner,
    parse_partitioner,
    partition,
    register_partitioner,
)
from fedcl_distill.data.sources import list_sources, load, load_digits
from fedcl_distill.data.spec import DataSpec, Normalisation, spec_of
from fedcl_distill.data.tables import load_csv

__all__ = [
    "IID",
    "PARTITIONERS",
    "ClassesPerClient",
    "DataLike",
    "DataSpec",
    "Dirichlet",
    "FlowerDatasetsPartitioner",
    "FrameEncoder",
    "LabelledData",
    "Natural",
    "Normalisation",
    "Partitioner",
    "Splits",
    "as_labelled",
    "conform",
    "from_arrays",
    "from_dataframe",
    "from_dataset",
    "list_sources",
    "load",
    "load_csv",
    "load_digits",
    "load_image_folder",
    "load_npz",
    "parse_partitioner",
    "partition",
    "read_idx",
    "register_partitioner",
    "spec_of",
]
