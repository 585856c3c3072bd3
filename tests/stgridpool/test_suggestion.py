"""Messages about unknown names."""

from stgridpool.suggestion import suggestion


def test_names_the_nearest_and_all():
    assert suggestion("nspp", ["nsp", "ptg"]) == ", did you mean 'nsp'? There are: nsp, ptg"
    assert suggestion("zzz", iter(["nsp", "ptg"])) == ". There are: nsp, ptg"
    assert suggestion("zzz", []) == ". There are: none"
