"""Names that are listed apart from the families are theirs."""

from stgridpool.adapters.families import FAMILIES
from stgridpool.adapters.names import MODEL_TYPES


def test_every_family_is_listed():
    assert sorted(MODEL_TYPES) == sorted(kind for family in FAMILIES for kind in family.model_types)
