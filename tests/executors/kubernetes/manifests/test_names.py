"""Names: allowed everywhere, and never the same for two."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.executors.kubernetes.manifests.names import (
    dns_label,
    go_duration,
    job_name,
    label_value,
    object_name,
    store_of,
)
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.identity import experiment_id

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")

words = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80) | st.from_regex(
    r"[a-z0-9][a-z0-9.-]{0,70}", fullmatch=True
)
params = st.builds(
    LoraParams,
    st.integers(1, 512),
    st.floats(1, 4096),
    st.floats(1e-7, 1e-1),
    st.floats(0, 0.99),
)


@given(words, words, words)
def test_any_job_name_is_what_kuberay_takes(sweep, attempt, experiment):
    name = job_name(sweep, attempt, experiment)
    assert len(name) <= 47
    assert DNS_1035.fullmatch(name)


@given(params, st.integers(0, 2**31))
def test_the_readable_part_of_an_experiment_stays(point, seed):
    id = experiment_id(point, seed, Model("m"), Dataset("d"), Recipe())
    name = job_name("sweep", "s-0123456789ab/1", id)
    assert len(name) <= 47
    assert name.startswith(id.rpartition("-")[0][:30])


@given(st.lists(st.tuples(words, words), min_size=2, max_size=20, unique=True))
def test_two_attempts_or_two_sweeps_have_two_names(pairs):
    assert len({job_name(sweep, attempt, "r16-a32-lr1e-4-d0p1-acfabd2a") for sweep, attempt in pairs}) == len(pairs)


@given(st.lists(words.filter(bool), min_size=2, max_size=20, unique=True))
def test_what_is_made_of_two_texts_stays_two(texts):
    for make in (dns_label, label_value, store_of, lambda text: object_name(text, "controller")):
        assert len({make(text) for text in texts}) == len(texts)


@given(words)
def test_labels_are_allowed(text):
    assert LABEL.fullmatch(label_value(text))
    assert DNS_1035.fullmatch(dns_label(text)) and len(dns_label(text)) <= 63
    assert DNS_1035.fullmatch(object_name(text, "controller")) and len(object_name(text, "controller")) <= 63


def test_what_is_allowed_stays_as_it_is():
    assert label_value("Tier_1.a") == "Tier_1.a"
    assert dns_label("published") == "published"
    assert object_name("published", "journal") == "published-journal"


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(days=4), "96h"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(seconds=59, milliseconds=1), "1m"),
        (timedelta(seconds=1), "1s"),
        (timedelta(0), "0s"),
    ],
)
def test_go_durations(span, text):
    assert go_duration(span) == text


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=4000)))
def test_go_durations_round_up_to_seconds_and_know_no_days(span):
    text = go_duration(span)
    assert re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?", text) and text
    parts = {unit: int(n) for n, unit in re.findall(r"(\d+)([hms])", text)}
    read = timedelta(hours=parts.get("h", 0), minutes=parts.get("m", 0), seconds=parts.get("s", 0))
    assert timedelta(0) <= read - span < timedelta(seconds=1)


def test_a_negative_duration_is_refused():
    with pytest.raises(ValueError, match="negative"):
        go_duration(timedelta(seconds=-1))
