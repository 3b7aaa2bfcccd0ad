from dataclasses import dataclass

import pytest

from cache.errors import InputError, UnknownNameError
from stages.registry import Registry


@pytest.fixture
def registry() -> Registry:
    made = Registry("dish")

    @made.register("soup")
    @dataclass(frozen=True, kw_only=True)
    class Soup:
        salt: float = 1.0
        spoons: int | None = None
        hot: bool = True

        def __post_init__(self) -> None:
            if self.salt < 0:
                raise ValueError("salt must not be negative")

    @made.register("plate")
    @dataclass(frozen=True, kw_only=True)
    class Plate:
        argument = "path"
        path: str

    return made


def test_a_spec_becomes_an_instance(registry: Registry) -> None:
    soup = registry.build("soup:salt=2:spoons=3:hot=false")
    assert (soup.salt, soup.spoons, soup.hot, soup.name) == (2.0, 3, False, "soup")
    assert registry.build("soup", salt=5).salt == 5
    assert registry.build("soup:salt=2", salt=5).salt == 2


def test_an_argument_takes_all_that_follows(registry: Registry) -> None:
    assert registry.build("plate:C:\\a=b").path == "C:\\a=b"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("soupe", "no dish named 'soupe': did you mean 'soup'"),
        ("zzz", "no dish named 'zzz'. Known: plate, soup"),
        ("soup:pepper=1", "no parameter 'pepper'; it has: salt, spoons, hot"),
        ("soup:salt=much", "salt='much' is not a valid float"),
        ("soup:hot=maybe", "hot='maybe' is not a valid bool"),
        ("soup:salt=-1", "salt must not be negative"),
        ("plate", "needs a value: write plate:PATH"),
    ],
)
def test_bad_specs_are_said_in_one_sentence(registry: Registry, spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.build(spec)


def test_unknown_and_duplicate_names_raise(registry: Registry) -> None:
    with pytest.raises(UnknownNameError):
        registry.get("tea")
    with pytest.raises(ValueError, match="two dishs are named 'soup'"):
        registry.register("soup")(type("Other", (), {}))
