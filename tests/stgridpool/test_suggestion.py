"""Messages about unknown names."""

from stgridpool.suggestion import suggestion


def test_names_the_nearest_and_all():
    assert suggestion("nspp", ["nsp", "ptg"]) == ", did you mean 'nsp'? Available: nsp, ptg"
    assert suggestion("zzz", iter(["nsp", "ptg"])) == ". Available: nsp, ptg"
    assert suggestion("zzz", []) == ". Available: none"
