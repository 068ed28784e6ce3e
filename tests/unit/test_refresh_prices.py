"""The script that makes the snapshot of prices anew, on a catalogue made here."""

from dataclasses import dataclass
from datetime import date, datetime

import pytest

from harness.planning.cost import catalogue
from harness.planning.cost.catalogue import parse_prices
from scripts import refresh_prices


@dataclass
class MadeUpOffer:
    """As gpuhunt has them."""

    provider: str
    instance_name: str
    location: str
    price: float
    cpu: int = 2
    memory: float = 4.0
    gpu_count: int = 0
    gpu_name: str | None = None
    gpu_memory: float | None = None
    spot: bool = False


SNAPSHOT = f"""{",".join(catalogue.COLUMNS)}
aws,g5.xlarge,A10G,1,4,16,1.006,,us-east-1,2026-01-02,before
aws,c7i.large,,0,2,4,0.08925,0.03,us-east-1,2026-01-02,before
gcp,n1-standard-4,T4,1,4,15,0.54,,us-central1,2026-01-02,before
gcp,a2-ultragpu-1g,A100-80GB,1,12,170,5.0688,,us-central1,2026-01-02,before
azure,Standard_F2s_v2,,0,2,4,0.0846,,eastus,2026-01-02,before
"""
TODAY = date(2026, 12, 31)


class Clock(datetime):
    """The script's, on a day that no midnight ends."""

    @classmethod
    def now(cls, tz=None):
        return cls(TODAY.year, TODAY.month, TODAY.day, tzinfo=tz)


def gpu(cloud, name, location, price, kind, *, spot=False, shape=(4, 16.0)):
    return MadeUpOffer(cloud, name, location, price, *shape, 1, *kind, spot)


def cpu(cloud, name, location, price, *, spot=False):
    return MadeUpOffer(cloud, name, location, price, spot=spot)


OFFERS = [
    gpu("aws", "g5.xlarge", "us-east-1", 1.1, ("A10G", 22.4)),
    gpu("aws", "g5.xlarge", "eu-west-1", 1.3, ("A10G", 22.4)),
    gpu("aws", "g5.xlarge", "us-east-1a", 0.40, ("A10G", 22.4), spot=True),
    gpu("aws", "g5.xlarge", "us-east-1b", 0.50, ("A10G", 22.4), spot=True),
    gpu("aws", "g5.xlarge", "us-east-1c", 0.90, ("A10G", 22.4), spot=True),
    cpu("aws", "c7i.large", "us-east-1", 0.09),
    cpu("aws", "c7i.large", "us-east-1a", 0.0001, spot=True),
    cpu("gcp", "n1-standard-4", "us-central1", 0.19),
    gpu("gcp", "n1-standard-4", "us-central1", 0.55, ("T4", 16), shape=(4, 15.0)),
    gpu("gcp", "a2-ultragpu-1g", "us-central1", 3.67, ("A100", 40)),
    gpu("gcp", "a2-ultragpu-1g", "us-central1", 5.1, ("A100", 80), shape=(12, 180.0)),
    cpu("azure", "Standard_F2s_v2", "eastus", 0.0),
]


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    monkeypatch.delenv("GPUHUNT_CATALOG_DIR", raising=False)
    monkeypatch.setattr(refresh_prices, "datetime", Clock)
    monkeypatch.setattr(refresh_prices, "offers", lambda: OFFERS)
    path = tmp_path / "instances.csv"
    path.write_text(SNAPSHOT)
    return path


def test_prices_of_the_same_machine_in_the_same_region_are_taken(snapshot, capsys):
    assert refresh_prices.main(["--file", str(snapshot)]) == 1
    rows = {
        one.name: (one.on_demand_usd_per_hour, one.spot_usd_per_hour, one.date, one.source)
        for one in parse_prices(snapshot.read_text(), "new", today=TODAY)
    }
    source = "github.com/dstackai/gpuhunt"
    assert rows == {
        "g5.xlarge": (1.1, 0.5, TODAY, source),  # the zones' median
        "c7i.large": (0.09, None, TODAY, source),  # 0.0001 USD is a bid floor
        "n1-standard-4": (0.55, None, TODAY, source),  # that with the T4
        "a2-ultragpu-1g": (5.1, None, TODAY, source),  # that with 80 GB
        "Standard_F2s_v2": (0.0846, None, date(2026, 1, 2), "before"),  # zero is no price
    }
    told = capsys.readouterr().out
    assert "Standard_F2s_v2: no on-demand price above zero found; kept that of 2026-01-02" in told
    assert "c7i.large: spot price 0.0001 beside 0.09 on demand left out" in told
    assert f"4 of 5 prices are of {TODAY}" in told


def test_a_machine_that_has_changed_shape_is_named_and_its_new_shape_taken(snapshot, capsys):
    refresh_prices.main(["--file", str(snapshot)])
    rows = {one.name: one for one in parse_prices(snapshot.read_text(), "new", today=TODAY)}
    assert (rows["a2-ultragpu-1g"].vcpu, rows["a2-ultragpu-1g"].memory_gb) == (12, 180.0)
    said = "a2-ultragpu-1g: 12 vCPUs and 180 GB, where the file had 12 and 170"
    assert [line for line in capsys.readouterr().out.splitlines() if "vCPUs" in line] == [said]


def test_files_have_the_day_that_is_named_and_none_is_refused(snapshot, monkeypatch, capsys):
    monkeypatch.setenv("GPUHUNT_CATALOG_DIR", str(snapshot.parent))
    with pytest.raises(SystemExit, match="2"):
        refresh_prices.main(["--file", str(snapshot)])
    assert "do not say which day they are of" in capsys.readouterr().err
    assert snapshot.read_text() == SNAPSHOT
    refresh_prices.main(["--file", str(snapshot), "--date", "2026-08-19"])
    days = {one.date for one in parse_prices(snapshot.read_text(), "new", today=TODAY)}
    assert days == {date(2026, 8, 19), date(2026, 1, 2)}


def test_a_snapshot_that_would_not_read_is_not_written(snapshot, monkeypatch):
    dear = [gpu("aws", "g5.xlarge", "us-east-1", 700.0, ("A10G", 24))]
    monkeypatch.setattr(refresh_prices, "offers", lambda: dear)
    with pytest.raises(refresh_prices.UsageError, match="is 700 USD per accelerator and hour"):
        refresh_prices.main(["--file", str(snapshot)])
    assert snapshot.read_text() == SNAPSHOT


def test_the_shipped_snapshot_survives_being_written_again():
    text = refresh_prices.SNAPSHOT.read_text(encoding="utf-8")
    known = parse_prices(text, "instances.csv", today=TODAY)
    assert parse_prices(refresh_prices.as_csv(known), "again", today=TODAY) == known
