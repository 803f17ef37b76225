"""Synthetic sets: what they hold, how they are encoded, stored and exported."""

from fedcl_distill.synthetic.codec import (
    Encoding,
    PayloadBytes,
    decode,
    encode,
    encoded_bytes,
    load,
    payload_bytes,
    quantisation_error,
    save,
)
from fedcl_distill.synthetic.container import Limits
from fedcl_distill.synthetic.export import (
    export_folder,
    image_grid,
    save_dd_ranking,
    save_npz,
    save_png,
    to_arrays,
    to_dataframe,
)
from fedcl_distill.synthetic.foreign import read_foreign
from fedcl_distill.synthetic.quantise import BITS, check_bits
from fedcl_distill.synthetic.recipe import recipe
from fedcl_distill.synthetic.set import SyntheticSet, union
from fedcl_distill.synthetic.validation import Expectation

__all__ = [
    "BITS",
    "Encoding",
    "Expectation",
    "Limits",
    "PayloadBytes",
    "SyntheticSet",
    "check_bits",
    "decode",
    "encode",
    "encoded_bytes",
    "export_folder",
    "image_grid",
    "load",
    "payload_bytes",
    "quantisation_error",
    "read_foreign",
    "recipe",
    "save",
    "save_dd_ranking",
    "save_npz",
    "save_png",
    "to_arrays",
    "to_dataframe",
    "union",
]
