import pytest

from gridsweep.errors import SpecError
from gridsweep.sweep.constants import check_constant, differences

DATA, OTHER = "a" * 64, "b" * 64


def test_only_what_both_know_can_differ():
    assert differences({}, {"training data": DATA}) == []
    assert differences({"training data": DATA}, {}) == []
    assert differences({"training data": DATA, "dtype": "float32"}, {"training data": DATA, "dtype": "float32"}) == []


def test_a_difference_names_the_thing_before_and_after():
    before = {"training data": DATA, "model commit": "main-was-here", "dtype": "float32"}
    found = differences(before, before | {"training data": OTHER, "dtype": "bfloat16"})
    assert found == [
        f"the training data was {'a' * 12} and is now {'b' * 12}",
        "the dtype was float32 and is now bfloat16",
    ]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("training data", "restore the data"),
        ("model weights", "restore the files of the model"),
        ("chat template", "restore the files of the model"),
        ("model commit", "name this commit in model.revision"),
        ("dtype", "train on devices that compute in one data type"),
    ],
)
def test_what_has_changed_is_refused_with_a_remedy_of_its_own(name, remedy):
    with pytest.raises(SpecError) as told:
        check_constant({name: "before"}, {name: "after"})
    assert f"the {name} was before and is now after" in told.value.what
    assert told.value.remedy.startswith(remedy) and "--folder" in told.value.remedy
    check_constant({name: "before"}, {name: "before"})
