import hashlib
from datetime import timedelta

import numpy as np
import pytest

from gridsweep.carbon.solar_valley import (
    HIGHEST,
    HOURS,
    LOWEST,
    QUALITY,
    START,
    TITLE,
    ZONE,
    _hashed,
    _intensity,
    _noise,
    solar_valley,
)
from gridsweep.carbon.traces import HOUR

CALIFORNIA = {
    75: 0.033,
    100: 0.105,
    125: 0.182,
    150: 0.249,
    175: 0.327,
    200: 0.397,
    225: 0.472,
    250: 0.554,
    300: 0.731,
    350: 0.931,
}
"""Share of hours at or below a level in California, 2024."""


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return solar_valley().values


def local_days(values: np.ndarray) -> np.ndarray:
    """Shape (365, 24), by the valley's own clock."""
    return np.roll(values, -8).reshape(-1, 24)


def test_it_is_a_plain_year_of_hours(values):
    trace = solar_valley()
    assert (trace.start, trace.step, len(trace)) == (START, HOUR, 8760)
    assert trace.end - trace.start == timedelta(days=365)
    assert np.isfinite(values).all()
    assert np.array_equal(values, np.round(values, 1))
    assert (values >= LOWEST).all()
    assert (values <= HIGHEST).all()


def test_it_says_that_it_is_synthetic():
    assert QUALITY == "synthetic"
    assert "synthetic" in ZONE
    assert "synthetic" in TITLE


def test_it_is_made_once_and_cannot_be_changed(values):
    assert solar_valley() is solar_valley()
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1.0


def test_the_level_is_californias(values):
    assert values.mean() == pytest.approx(226, abs=2)
    assert values.std() == pytest.approx(89.5, abs=3)


def test_the_daily_swing_is_californias(values):
    days = values.reshape(-1, 24)
    assert (days.max(axis=1) / days.min(axis=1)).mean() == pytest.approx(2.6, abs=0.1)
    assert days.min(axis=1).mean() == pytest.approx(128, abs=8)
    assert days.max(axis=1).mean() == pytest.approx(302, abs=8)


@pytest.mark.parametrize(("level", "share"), CALIFORNIA.items())
def test_hours_below_a_level_are_as_many_as_in_california(values, level, share):
    assert (values <= level).mean() == pytest.approx(share, abs=0.025)


def test_about_half_of_the_days_have_an_hour_at_125_or_below_most_of_them_in_spring(values):
    clean = (values.reshape(-1, 24) <= 125).any(axis=1)
    spring, winter = clean[59:151], np.concatenate((clean[:31], clean[334:]))
    assert clean.mean() == pytest.approx(0.54, abs=0.06)
    assert spring.mean() > 0.8
    assert winter.mean() < 0.2


def test_noon_is_clean_the_evening_is_not_and_the_peak_comes_before_dawn(values):
    by_hour = local_days(values).mean(axis=0)
    assert by_hour[11:14].mean() < 0.5 * by_hour[19:22].mean()
    assert by_hour[19:22].mean() < by_hour[3:6].mean()
    assert 3 <= by_hour.argmax() <= 5
    assert 11 <= by_hour.argmin() <= 12


def test_spring_is_cleaner_than_summer_and_summer_than_winter(values):
    days = values.reshape(-1, 24)
    spring, summer = days[59:151].mean(), days[151:243].mean()
    winter = np.concatenate((days[:59], days[334:])).mean()
    assert spring < summer < winter


def test_weekends_are_cleaner(values):
    days = local_days(values)
    weekday = (np.arange(365) + START.weekday()) % 7
    assert days[weekday >= 5].mean() / days[weekday < 5].mean() == pytest.approx(0.94, abs=0.02)


def test_weather_lasts_hours_and_days_but_not_weeks(values):
    days = values.reshape(-1, 24)
    usual = np.array([days[max(0, i - 14) : i + 15].mean(axis=0) for i in range(365)])
    unusual = (days - usual).ravel()

    def alike_after(hours: int) -> float:
        return float(np.corrcoef(unusual[:-hours], unusual[hours:])[0, 1])

    assert unusual.std() > 20
    assert alike_after(1) > 0.9
    assert 0.4 < alike_after(24) < 0.7
    assert alike_after(24 * 5) < 0.2


def test_the_year_joins_onto_itself(values):
    hourly_steps = np.abs(np.diff(values))
    assert abs(values[0] - values[-1]) <= np.quantile(hourly_steps, 0.99)


def test_the_hash_is_splitmix64():
    # The first outputs of the generator seeded with 0, as its authors' reference program prints them.
    wanted = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    start = np.array([0, 0x9E3779B97F4A7C15, 2 * 0x9E3779B97F4A7C15 % 2**64], dtype=np.uint64)
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    numbers = np.array([int(s) * inverse % 2**64 for s in start], dtype=np.uint64)
    assert _hashed(numbers).tolist() == [(z >> 11) * 2.0**-52 - 1.0 for z in wanted]


@pytest.mark.parametrize("every", [6, 24, 60])
def test_noise_is_centred_and_stays_in_its_bounds(every):
    noise = _noise(every, stream=9)
    assert HOURS % every == 0
    assert noise.shape == (HOURS,)
    assert np.abs(noise).max() <= 1
    assert abs(noise.mean()) < 0.15


def test_every_platform_makes_the_same_year(values):
    tenths = np.round(values * 10).astype("<i4")
    assert hashlib.sha256(tenths.tobytes()).hexdigest() == (
        "9059852a1443f7ff809506ef86cd6f9b25d44dfa8adc700e64ea9e49faef5684"
    )
    # No value is so near the edge of its rounding that the last bits of cos or exp could move it over.
    tenths_before = _intensity() * 10
    assert np.abs(tenths_before - np.floor(tenths_before) - 0.5).min() > 1e-9
