from gridsweep.sweep.counting import counted, remaining


def test_one_is_no_plural():
    assert [counted(n, "device") for n in (0, 1, 2)] == ["0 devices", "1 device", "2 devices"]
    assert [remaining(n) for n in (1, 3)] == ["1 experiment remains", "3 experiments remain"]
