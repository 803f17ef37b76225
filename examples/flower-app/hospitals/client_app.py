"""A node: it answers for every strategy of fedcl-distill with its own data."""

from fedcl_distill.flower import make_client_app
from hospitals.task import load_data

app = make_client_app(load_data)
