"""What of the loop's environment a worker gets."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_sweep
from gridsweep.errors import SpecError
from gridsweep.executors.environment import passed, secret_names, withheld
from gridsweep.sweep.clusters import RayCluster
from gridsweep.sweep.sweep import CarbonSource

SWEEP = make_sweep(1)
NEEDED = {
    "PATH": "/bin", "HOME": "/home/me", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "CUDA_HOME": "/cuda", "HF_HOME": "/hf",
    "https_proxy": "http://p", "HTTPS_PROXY": "http://p", "SLURM_JOB_ID": "7", "GRIDSWEEP_STEP_SECONDS": "1",
    "SSL_CERT_FILE": "/x", "PYTHONPATH": "/src",
}  # fmt: skip
OTHERS = {
    "EIA_API_KEY": "s",
    "WATTTIME_PASSWORD": "s",
    "AWS_SECRET_ACCESS_KEY": "s",
    "PATHS": "x",
    "HFX": "x",
    "cuda_x": "",
}


def test_what_is_needed_passes_and_the_rest_is_named() -> None:
    assert passed(NEEDED | OTHERS, SWEEP) == NEEDED
    assert withheld(NEEDED | OTHERS, SWEEP) == sorted(OTHERS)


@pytest.mark.parametrize(
    "name",
    [
        "GRIDSWEEP_API_KEY", "GRIDSWEEP_API_KEY_FILE", "GRIDSWEEP_ANYTHING_ELSE", "PYTHONSTARTUP", "PYTHONBREAKPOINT",
        "PYTHONINSPECT", "PYTHONWARNINGS", "PYTHONEXECUTABLE", "PYTHONPERFSUPPORT", "PYTHONX",
    ],
)  # fmt: skip
def test_keys_of_a_server_and_variables_that_run_code_do_not_pass(name: str) -> None:
    assert passed({name: "x", "PYTHONPATH": "/src"}, SWEEP) == {"PYTHONPATH": "/src"}
    assert withheld({name: "x"}, SWEEP) == [name]


def test_a_secret_of_the_spec_does_not_pass_whatever_its_name() -> None:
    carbon = CarbonSource("watttime", username="env:HF_USER", password="env:GRIDSWEEP_WORD")
    cluster = RayCluster("http://127.0.0.1:8265", token="env:RAY_TOKEN")
    sweep = replace(SWEEP, carbon=carbon, executor=cluster)
    assert secret_names(sweep) == {"HF_USER", "GRIDSWEEP_WORD", "RAY_TOKEN"}
    assert passed(dict.fromkeys(("HF_USER", "GRIDSWEEP_WORD", "RAY_TOKEN", "HF_TOKEN"), "s"), sweep) == {
        "HF_TOKEN": "s"
    }


def test_the_spec_adds_variables() -> None:
    sweep = replace(SWEEP, env=(("A", "1"), ("B", "env:EIA_API_KEY"), ("PATH", "/mine")))
    assert passed({"PATH": "/bin", "EIA_API_KEY": "s"}, sweep) == {"PATH": "/mine", "A": "1", "B": "s"}
    with pytest.raises(SpecError, match=r"env\.B: refers to the variable EIA_API_KEY, which is not set; set it"):
        passed({}, sweep)


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=3)))
def test_every_variable_passes_or_is_named(environ: dict[str, str]) -> None:
    assert {*passed(environ, SWEEP), *withheld(environ, SWEEP)} == environ.keys()
