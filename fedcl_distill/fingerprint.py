"""Names data and what is done with them, so that nothing is continued or reused with other data, settings or seed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fedcl_distill.data.labelled import LabelledData


def fingerprint(real: LabelledData, origin: Any) -> str:
    """SHA-256, in hexadecimal, over ``origin`` (settings, seed: JSON values), labels and samples."""
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode())
    for tensor in (real.labels, real.samples):
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
