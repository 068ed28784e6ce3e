"""The snapshot that ships, and a file of one's own."""

from datetime import date

import pytest

from harness.errors import UsageError
from harness.planning.cost.catalogue import age_notes, parse_prices, read_catalogue
from harness.planning.cost.scaling import accelerator_kinds

DAY = date(2026, 11, 29)
HEAD = "name,vcpu,on_demand_usd_per_hour,date"


@pytest.fixture
def shipped():
    return read_catalogue(today=DAY)


def prices(*rows, head=HEAD):
    return parse_prices("\n".join([head, *rows, ""]), "mine.csv", today=DAY)


@pytest.mark.parametrize(
    ("name", "accelerator", "count", "vcpu", "usd"),
    [
        ("g5.xlarge", "A10G", 1, 4, 1.006),
        ("g4dn.xlarge", "T4", 1, 4, 0.526),
        ("c7i.xlarge", "", 0, 4, 0.1785),
        ("Standard_NC4as_T4_v3", "T4", 1, 4, 0.526),
        ("g2-standard-4", "L4", 1, 4, 0.706832),
        ("a2-highgpu-1g", "A100-40GB", 1, 12, 3.673385),
    ],
)
def test_the_snapshot_has_the_published_prices(shipped, name, accelerator, count, vcpu, usd):
    one = shipped.named(name)
    found = (one.accelerator, one.accelerators, one.vcpu, one.on_demand_usd_per_hour)
    assert found == (accelerator, count, vcpu, usd)


def test_the_snapshot_has_every_kind_of_machine_with_date_region_and_source(shipped):
    assert len(shipped.types) >= 40
    assert {one.cloud for one in shipped.types} == {"aws", "azure", "gcp"}
    kinds = {one.accelerator.split("-")[0] for one in shipped.types}
    assert {"", "T4", "A10G", "L4", "A100", "H100"} <= kinds
    for one in shipped.types:
        assert all((one.region, one.source, one.memory_gb))
        assert not one.accelerator or one.accelerator in accelerator_kinds()
        assert one.source != "instances.csv"


def test_each_cloud_has_cpu_types_and_accelerators(shipped):
    for cloud in ("aws", "azure", "gcp"):
        of_it = [one for one in shipped.types if one.cloud == cloud]
        assert {bool(one.accelerator) for one in of_it} == {True, False}


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("g5.xlrge", "g5.xlarge"),
        ("NC4as_T4", "Standard_NC4as_T4_v3"),
        ("g2-standard4", "g2-standard-4"),
    ],
)
def test_an_unknown_type_gets_the_nearest_names(shipped, asked, nearest):
    with pytest.raises(UsageError) as caught:
        shipped.named(asked)
    assert f"unknown instance type '{asked}'" in str(caught.value)
    assert nearest in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_spot_price_that_is_not_known_is_no_price(shipped):
    assert shipped.named("g2-standard-4").usd_per_hour(spot=True) == 0.397336
    with pytest.raises(UsageError, match=r"spot price of g5.xlarge is not known"):
        shipped.named("g5.xlarge").usd_per_hour(spot=True)


def test_a_file_of_ones_own_overrides_by_name_and_adds(tmp_path, shipped):
    path = tmp_path / "mine.csv"
    path.write_text(f"{HEAD}\nG5.xlarge,,0.75,2026-11-01\nrack-1,16,0.4,2026-11-01\n")
    mine = read_catalogue(path, today=DAY)
    one, before = mine.named("g5.xlarge"), shipped.named("g5.xlarge")
    assert (one.on_demand_usd_per_hour, one.date) == (0.75, date(2026, 11, 1))
    assert (one.accelerator, one.accelerators, one.vcpu, one.cloud) == ("A10G", 1, 4, "aws")
    assert before.on_demand_usd_per_hour == 1.006
    assert mine.named("rack-1").source == str(path)
    assert len(mine.types) == len(shipped.types) + 1


@pytest.mark.parametrize(
    ("head", "row", "machine"),
    [
        # A file that says the CPUs of every row, and not the accelerator of a known type
        (HEAD, "g5.xlarge,4,0.75,2026-11-01", ("A10G", 1, 4, 16.0, "aws", "us-east-1")),
        (HEAD, "g5.xlarge,8,0.75,2026-11-01", ("A10G", 1, 8, 16.0, "aws", "us-east-1")),
        (
            "name,memory_gb,on_demand_usd_per_hour,date",
            "g5.xlarge,32,0.75,2026-11-01",
            ("A10G", 1, 4, 32.0, "aws", "us-east-1"),
        ),
        (
            "name,accelerator,on_demand_usd_per_hour,date",
            "g5.12xlarge,A10G,0.75,2026-11-01",
            ("A10G", 4, 48, 192.0, "aws", "us-east-1"),
        ),
        (
            "name,accelerator,accelerators,on_demand_usd_per_hour,date",
            "g5.12xlarge,L4,2,3,2026-11-01",
            ("L4", 2, 48, 192.0, "aws", "us-east-1"),
        ),
    ],
)
def test_what_a_row_does_not_say_of_a_known_machine_stays(tmp_path, head, row, machine):
    path = tmp_path / "mine.csv"
    path.write_text(f"{head}\n{row}\n")
    one = read_catalogue(path, today=DAY).named(row.partition(",")[0])
    found = (one.accelerator, one.accelerators, one.vcpu, one.memory_gb, one.cloud, one.region)
    assert found == machine


def test_a_type_that_nobody_knows_needs_its_cpus(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("name,on_demand_usd_per_hour,date\nrack-1,0.4,2026-11-01\n")
    with pytest.raises(UsageError, match="line 2: vcpu is '', which is no number"):
        read_catalogue(path, today=DAY)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("m,4,0,2026-01-01", "line 2: on_demand_usd_per_hour is 0: zero is no price"),
        ("m,4,-1,2026-01-01", "line 2: on_demand_usd_per_hour is -1: a price is not negative"),
        ("m,4,,2026-01-01", "line 2: on_demand_usd_per_hour is empty"),
        ("m,4,cheap,2026-01-01", "line 2: on_demand_usd_per_hour is 'cheap', which is no number"),
        ("m,4,nan,2026-01-01", "line 2: on_demand_usd_per_hour is 'nan', which is no number"),
        ("m,4,700,2026-01-01",
         ("line 2: on_demand_usd_per_hour of m is 175 USD per vCPU and hour, where 0.002 to 0.5 "
          "is plausible")),
        ("m,0,1,2026-01-01", "line 2: vcpu is 0, which is too small"),
        ("m,4.7,1,2026-01-01", "line 2: vcpu is 4.7, which is no whole number"),
        (",4,0.2,2026-01-01", "line 2: name is empty"),
        ("m,4,0.2,1.1.2026", "line 2: date is '1.1.2026', which is no date like 2026-07-20"),
        ("m,4,0.2,2027-01-01", "line 2: date is 2027-01-01, which is still to come"),
        ("m,4,0.2,2026-01-01,x", "line 2: more cells than columns"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_told_with_its_line(row, told):
    with pytest.raises(UsageError) as caught:
        prices(row)
    assert str(caught.value) == f"mine.csv: 1 problem\n  - {told}"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("m,T4,1,4,0.5,0.001,2026-01-01",
         ("spot_usd_per_hour of m is 0.001, less than 5% of on demand: that is a bid floor, not a "
          "price")),
        ("m,T4,1,4,0.5,0,2026-01-01", "spot_usd_per_hour is 0: zero is no price"),
        ("m,T4,1,4,0.5,0.6,2026-01-01", "spot_usd_per_hour of m is 0.6, more than on demand"),
        ("m,T4,1.5,4,0.5,,2026-01-01", "accelerators is 1.5, which is no whole number"),
        ("m,T4,0,4,0.5,,2026-01-01", "m has 0 accelerators of the kind 'T4': name both or neither"),
        ("m,T4,1,4,100,,2026-01-01",
         ("on_demand_usd_per_hour of m is 100 USD per accelerator and hour, where 0.05 to 40 is "
          "plausible")),
    ],
)  # fmt: skip
def test_a_bid_floor_is_no_price(row, told):
    head = "name,accelerator,accelerators,vcpu,on_demand_usd_per_hour,spot_usd_per_hour,date"
    with pytest.raises(UsageError) as caught:
        prices(row, head=head)
    assert f"line 2: {told}" in str(caught.value)


def test_every_problem_is_told_at_once():
    with pytest.raises(UsageError) as caught:
        prices("a,4,0,2026-01-01", "b,4,0.2,2026-01-01", "B,4,0.2,2026-01-01")
    assert "2 problems" in str(caught.value)
    assert "line 4: B stands in line 3 already" in str(caught.value)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("name,vcpu,date", "line 1: no column on_demand_usd_per_hour (it has name, vcpu, date)"),
        (f"{HEAD},price", "line 1: unknown column price; known are cloud, name"),
    ],
)
def test_a_wrong_head_is_told(head, told):
    with pytest.raises(UsageError) as caught:
        prices("m,4,0.2,2026-01-01", head=head)
    assert told in str(caught.value)


def test_an_empty_file_and_a_missing_one_are_told(tmp_path):
    with pytest.raises(UsageError, match="no row below the line of the columns"):
        prices()
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_catalogue(tmp_path / "none.csv", today=DAY)


def test_prices_older_than_180_days_are_noted():
    old, edge = prices("old,4,0.2,2026-06-01", "edge,4,0.2,2026-06-02")
    (note,) = age_notes([old, edge], DAY)  # 181 and 180 days
    assert note.startswith("the price of old is 181 days old (2026-06-01): look it up")
