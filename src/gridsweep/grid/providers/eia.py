"""The US Energy Information Administration's hourly fuel mix of a balancing authority, with emission factors per fuel.

The API is free, with a key. Data arrive hours late, so only the past is known. Generation counts; imports do not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from gridsweep.carbon.readings import Basis, Provenance, Reading
from gridsweep.carbon.traces import DAY, HOUR, floor_to, utc
from gridsweep.errors import AnswerError, SpecError
from gridsweep.grid.http import parsing
from gridsweep.grid.http.parsing import Point
from gridsweep.grid.source import Fetched, Means, Zone
from gridsweep.sweep.sweep import CarbonSource

BASE_URL = "https://api.eia.gov"
PATH = "/v2/electricity/rto/fuel-type-data/data/"
TOKEN = "env:EIA_API_KEY"

HISTORY = timedelta(days=28)
PAGE = 5000
MOST_ROWS = 40_000
MOST_MWH = 2e6
"""An hour of all the US is about 0.5 TWh."""

STORAGE = frozenset({"BAT", "OES", "PS", "UES"})
"""Batteries and pumped storage: their output was generated, and counted, before."""
SMALL = 0.01
"""A missing fuel below this share does not matter; a larger missing one makes the hour unknown."""
NEAR = timedelta(hours=24)

POUND_A_KWH = 453.59237  # in g/kWh

# Medians over the life of a plant: IPCC, Fifth Assessment Report (2014), working group III, annex III, table A.III.2.
LIFECYCLE: dict[str, float] = {
    "COL": 820.0,  # coal, pulverised
    "NG": 490.0,  # gas, combined cycle
    "NUC": 12.0,
    "WAT": 24.0,  # hydropower
    "WND": 11.0,  # onshore
    "WNB": 11.0,  # wind with a battery, as wind
    "SUN": 48.0,  # photovoltaics, utility
    "SNB": 48.0,  # solar with a battery, as solar
    "GEO": 38.0,
    "BIO": 230.0,  # biomass, dedicated
    "OIL": 650.0,  # not in that table; UK Parliamentary Office of Science and Technology, POSTnote 268 (2006)
    "OTH": 700.0,  # no published factor; Electricity Maps' value for thermal plants of unknown fuel
}
# CO2 from the stack: EIA, State Electricity Profiles 2022, US profile, tables 5 and 7; pounds per kWh by fuel. EIA
# counts water, wind, sun, uranium and biomass as zero.
DIRECT: dict[str, float] = {
    "COL": 2.30 * POUND_A_KWH,
    "NG": 0.97 * POUND_A_KWH,
    "OIL": 2.38 * POUND_A_KWH,
    "NUC": 0.0,
    "WAT": 0.0,
    "WND": 0.0,
    "WNB": 0.0,
    "SUN": 0.0,
    "SNB": 0.0,
    "GEO": 0.0,  # EIA counts small emissions for some plants, but publishes no factor
    "BIO": 0.0,
    "OTH": 0.97 * POUND_A_KWH,  # no published factor; same as gas
}
FACTORS: dict[Basis, tuple[dict[str, float], str]] = {
    "lifecycle": (LIFECYCLE, "IPCC 2014 lifecycle factors"),
    "direct": (DIRECT, "EIA's CO2 factors of 2022"),
}

_HOUR = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}", re.ASCII)


class EIA:
    """A provider whose zone is an EIA respondent, such as `CISO`; `basis` is `lifecycle` (the default) or `direct`.

    The key is read from the reference `carbon.token`, or else from EIA_API_KEY. Raises `SpecError` for an unknown zone
    or basis; without a zone, the zones can be listed but nothing can be read.
    """

    keys: ClassVar[frozenset[str]] = frozenset({"token", "basis", "base_url"})
    secrets: ClassVar[dict[str, str]] = {"token": TOKEN}
    live: ClassVar[bool] = True

    def __init__(self, settings: CarbonSource, means: Means) -> None:
        self._zone = settings.zone
        if self._zone and self._zone not in RESPONDENTS:
            raise SpecError(_unknown(self._zone))
        if settings.basis not in (None, *FACTORS):
            raise SpecError(f"carbon.basis: eia has lifecycle and direct, not {settings.basis!r}")
        self._basis: Basis = "direct" if settings.basis == "direct" else "lifecycle"
        self._factors, named = FACTORS[self._basis]
        self._title = f"EIA hourly fuel mix of {self._zone} with {named}; generation only, imports are not counted"
        self._token = settings.token or TOKEN
        self._secret = means.secret
        self._http = means.http(settings.base_url or BASE_URL)
        self._shown: tuple[object, Reading] | None = None  # cached, as the same answers make the same reading

    def read(self, now: datetime) -> Reading:
        """Return up to 28 days of hourly values, the latest 1 to 24 hours old; no forecast."""
        now = utc(now)
        return self._reading(floor_to(now, DAY) - HISTORY, floor_to(now, HOUR), now)

    def past(self, start: datetime, end: datetime) -> Reading:
        """Return the current values of the hours that begin in `[start, end)`."""
        start, end = utc(start), utc(end)
        return self._reading(start - (start - floor_to(start, HOUR)), end, end)

    def zones(self) -> Sequence[Zone]:
        return [Zone(code, title, "history only, hours late") for code, title in RESPONDENTS.items()]

    def _reading(self, start: datetime, end: datetime, now: datetime) -> Reading:
        pages = self._pages(start, end)
        key = (start, end, *(page.fetched_at for page in pages))
        if self._shown is None or self._shown[0] != key:
            self._shown = (key, self._composed(pages, start, end, now))
        return self._shown[1]

    def _composed(self, pages: Sequence[Fetched], start: datetime, end: datetime, now: datetime) -> Reading:
        amounts = [amount for page in pages for amount in self._amounts(page)]
        if amounts:
            parsing.fresh(max(amount.start for amount in amounts), HOUR, now, "eia: the latest hour")
        points = intensities([a for a in amounts if start <= a.start < end], self._factors)
        if not any(point.value is not None for point in points):
            raise AnswerError(
                f"eia: of no hour from {start:%Y-%m-%d %H:%M} UTC on the whole fuel mix of {self._zone} "
                "is known; take another zone, or another provider"
            )
        fetched_at = max(page.fetched_at for page in pages)
        provenance = Provenance(
            self._title, "estimated", "eia", self._zone, "average", self._basis, fetched_at=fetched_at
        )
        history, stretches = parsing.history_of(points, HOUR, provenance)
        return Reading(history, None, stretches)

    def _pages(self, start: datetime, end: datetime) -> list[Fetched]:
        """Return the answers with the rows of the hours that begin in `[start, end)`; EIA names an hour by its end."""
        pages: list[Fetched] = []
        total = 1
        while len(pages) * PAGE < total:
            params = [
                ("frequency", "hourly"),
                ("data[0]", "value"),
                ("facets[respondent][]", self._zone),
                ("start", f"{start + HOUR:%Y-%m-%dT%H}"),
                ("end", f"{end:%Y-%m-%dT%H}"),
                ("sort[0][column]", "period"),
                ("sort[0][direction]", "asc"),
                ("sort[1][column]", "fueltype"),
                ("sort[1][direction]", "asc"),
                ("offset", str(len(pages) * PAGE)),
                ("length", str(PAGE)),
            ]
            # Each hour makes a new request; within an hour, the cached answer is used.
            page = self._http.get(PATH, params, headers={"X-Api-Key": self._secret(self._token)}, keep=HOUR)
            response = parsing.field(page.body, "response", dict, "eia: the answer")
            total = int(parsing.number(response.get("total"), "eia: response.total", text=True, most=MOST_ROWS))
            rows = len(parsing.field(response, "data", list, "eia: response"))
            if rows < min(PAGE, total - len(pages) * PAGE):
                raise AnswerError(f"eia: a page has {rows} rows, and of {total} more should be on it; ask again later")
            pages.append(page)
        return pages

    def _amounts(self, page: Fetched) -> Iterator[Amount]:
        response = parsing.field(page.body, "response", dict, "eia: the answer")
        for i, row in enumerate(parsing.objects(response["data"], "eia: response.data")):
            at = f"eia: response.data[{i}]"
            parsing.same_zone(self._zone, row.get("respondent"), f"{at}.respondent")
            if row.get("value-units", "megawatthours") != "megawatthours":
                raise AnswerError(f"{at} is in {row['value-units']!r} where megawatthours were expected")
            if "value" not in row:
                raise AnswerError(f"{at} has no 'value'; it has {sorted(row)}")
            mwh = parsing.nullable_number(row["value"], f"{at}.value", text=True, least=-MOST_MWH, most=MOST_MWH)
            fuel = parsing.field(row, "fueltype", str, at)
            yield Amount(_start(row.get("period"), f"{at}.period"), fuel, mwh)


@dataclass(frozen=True, slots=True)
class Amount:
    """The generation of a fuel in the hour that begins at `start`: MWh, or None if EIA reports null."""

    start: datetime
    fuel: str
    mwh: float | None


def intensities(amounts: Sequence[Amount], factors: dict[str, float]) -> list[Point]:
    """Return the mean emission factor of each hour's generation in gCO2eq/kWh.

    `factors` holds the factor of each fuel; fuels without one use `OTH`. Negative generation (a plant's own use) counts
    as zero, and storage is ignored. An hour is unknown if nothing is generated, if EIA reports null for a fuel, or if a
    fuel is missing that has a share of at least `SMALL` in the hours nearby.
    """
    mixes: dict[datetime, dict[str, float | None]] = {}
    for one in amounts:
        mix = mixes.setdefault(one.start, {})
        if one.fuel not in STORAGE and (one.mwh is not None or one.fuel not in mix):
            mix[one.fuel] = None if one.mwh is None else max(0.0, one.mwh)
    hours = sorted(mixes)
    missed = {hour for fuel in {f for mix in mixes.values() for f in mix} for hour in _missed(fuel, hours, mixes)}
    points = []
    for hour in hours:
        known = {fuel: mwh for fuel, mwh in mixes[hour].items() if mwh}
        total = sum(known.values())
        emitted = sum(factors.get(fuel, factors["OTH"]) * mwh for fuel, mwh in known.items())
        points.append(Point(hour, emitted / total if total and hour not in missed else None, "estimated"))
    return points


def _missed(fuel: str, hours: Sequence[datetime], mixes: dict[datetime, dict[str, float | None]]) -> Iterator[datetime]:
    """Yield the hours in which a fuel is null, or is missing despite a share in the nearest hour that reports it."""
    before, after = _last_shares(fuel, hours, mixes), _last_shares(fuel, hours[::-1], mixes)[::-1]
    for hour, *near in zip(hours, before, after, strict=True):
        if mixes[hour].get(fuel) is not None:
            continue
        shares = [share for seen in near if seen and abs(seen[0] - hour) <= NEAR for share in seen[1:]]
        if fuel in mixes[hour] or any(share >= SMALL for share in shares):
            yield hour


def _last_shares(
    fuel: str, hours: Sequence[datetime], mixes: dict[datetime, dict[str, float | None]]
) -> list[tuple[datetime, float] | None]:
    """Return for each hour, in the given order, the last one up to it with a known value of the fuel, and its share."""
    found: list[tuple[datetime, float] | None] = []
    last = None
    for hour in hours:
        mwh = mixes[hour].get(fuel)
        if mwh is not None:
            total = sum(other for other in mixes[hour].values() if other)
            last = (hour, mwh / total if total else 0.0)
        found.append(last)
    return found


def _start(period: object, what: str) -> datetime:
    """Return the start of an hour that EIA names by its end, in UTC: `2026-05-01T05` is 04:00 to 05:00."""
    if not isinstance(period, str) or not _HOUR.fullmatch(period):
        raise AnswerError(f"{what} is {str(period)[:40]!r}, which is no hour of the form 2026-05-01T05")
    end = parsing.moment(f"{period}:00Z", what)
    if end.year < 2000:
        raise AnswerError(f"{what} is {period}, from before there was such data")
    return end - HOUR


def _unknown(zone: str) -> str:
    codes = {code.lower(): code for code in RESPONDENTS} | {t.lower(): code for code, t in RESPONDENTS.items()}
    near = difflib.get_close_matches(zone.lower().rpartition("-")[2], codes, n=1, cutoff=0.7)
    meant = f"; did you mean {codes[near[0]]} ({RESPONDENTS[codes[near[0]]]})?" if near else ""
    return f"carbon.zone: eia has no respondent {zone!r}{meant}; `gridsweep zones --provider eia` lists them"


# fmt: off
RESPONDENTS: dict[str, str] = {
    "AEC": "PowerSouth Energy Cooperative", "AECI": "Associated Electric Cooperative", "AVA": "Avista",
    "AVRN": "Avangrid Renewables", "AZPS": "Arizona Public Service",
    "BANC": "Balancing Authority of Northern California", "BPAT": "Bonneville Power Administration",
    "CHPD": "Chelan County Public Utility District", "CISO": "California Independent System Operator",
    "CPLE": "Duke Energy Progress East", "CPLW": "Duke Energy Progress West", "DEAA": "Arlington Valley",
    "DOPD": "Douglas County Public Utility District", "DUK": "Duke Energy Carolinas", "EPE": "El Paso Electric",
    "ERCO": "Electric Reliability Council of Texas", "FMPP": "Florida Municipal Power Pool",
    "FPC": "Duke Energy Florida", "FPL": "Florida Power and Light", "GCPD": "Grant County Public Utility District",
    "GLHB": "GridLiance", "GRID": "Gridforce Energy Management", "GRIF": "Griffith Energy",
    "GVL": "Gainesville Regional Utilities", "GWA": "NaturEner Power Watch", "HGMA": "New Harquahala",
    "HST": "City of Homestead", "IID": "Imperial Irrigation District", "IPCO": "Idaho Power", "ISNE": "ISO New England",
    "JEA": "JEA, Jacksonville", "LDWP": "Los Angeles Department of Water and Power",
    "LGEE": "Louisville Gas and Electric, Kentucky Utilities", "MISO": "Midcontinent Independent System Operator",
    "NEVP": "Nevada Power", "NWMT": "NorthWestern Energy", "NYIS": "New York Independent System Operator",
    "PACE": "PacifiCorp East", "PACW": "PacifiCorp West", "PGE": "Portland General Electric",
    "PJM": "PJM Interconnection", "PNM": "Public Service Company of New Mexico",
    "PSCO": "Public Service Company of Colorado", "PSEI": "Puget Sound Energy",
    "SC": "South Carolina Public Service Authority", "SCEG": "Dominion Energy South Carolina",
    "SCL": "Seattle City Light", "SEC": "Seminole Electric Cooperative", "SEPA": "Southeastern Power Administration",
    "SOCO": "Southern Company", "SPA": "Southwestern Power Administration", "SRP": "Salt River Project",
    "SWPP": "Southwest Power Pool", "TAL": "City of Tallahassee", "TEC": "Tampa Electric",
    "TEPC": "Tucson Electric Power", "TIDC": "Turlock Irrigation District", "TPWR": "Tacoma Power",
    "TVA": "Tennessee Valley Authority", "WACM": "Western Area Power Administration, Rocky Mountain",
    "WALC": "Western Area Power Administration, Desert Southwest",
    "WAUW": "Western Area Power Administration, Upper Great Plains West", "WWA": "NaturEner Wind Watch",
    "YAD": "Alcoa Power Generating, Yadkin", "CAL": "California (region)", "CAR": "Carolinas (region)",
    "CENT": "Central (region)", "FLA": "Florida (region)", "MIDA": "Mid-Atlantic (region)", "MIDW": "Midwest (region)",
    "NE": "New England (region)", "NW": "Northwest (region)", "NY": "New York (region)", "SE": "Southeast (region)",
    "SW": "Southwest (region)", "TEN": "Tennessee (region)", "TEX": "Texas (region)", "US48": "Lower 48 states",
}
"""Balancing authorities of the lower 48 states, and EIA's regions, by their codes."""
# fmt: on
