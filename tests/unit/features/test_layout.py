"""Every byte is the one that Feast's own functions write. Importing Feast takes seconds."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from musicrec.features import layout, values
from musicrec.features.views import STORED

pytestmark = pytest.mark.slow

texts = st.text(st.characters(codec="utf-8"), max_size=30)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)
joins = st.dictionaries(st.sampled_from(["user_id", "track_id"]), texts, min_size=1)


@pytest.fixture(scope="module")
def feast():
    from feast.infra.online_stores import helpers
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Null, Value

    return SimpleNamespace(helpers=helpers, EntityKey=EntityKey, Value=Value, Null=Null)


@given(ids=joins, project=texts)
def test_a_key_is_feasts(feast, ids, project):
    entity = feast.EntityKey(
        join_keys=list(ids), entity_values=[feast.Value(string_val=each) for each in ids.values()]
    )
    in_order = tuple(ids[name] for name in sorted(ids))
    ours = layout.key(layout.key_prefix(tuple(ids)), in_order, project.encode())
    assert ours == feast.helpers._redis_key(project, entity)


@given(names=joins.map(list))
def test_a_keys_prefix_is_feasts(feast, names):
    assert layout.key_prefix(tuple(names)) == feast.helpers._redis_key_prefix(names)


@given(view=texts, feature=texts)
def test_a_field_is_feasts(feast, view, feature):
    assert layout.field(view, feature) == feast.helpers._mmh3(f"{view}:{feature}")


def test_no_two_fields_of_one_hash_are_the_same():
    fields = [field for view in STORED for field in layout.fields(view)]
    assert len(set(fields)) == len(fields)


@given(number=st.floats(width=32))
def test_a_value_is_feasts(feast, number):
    assert layout.value(number) == feast.Value(float_val=number).SerializeToString()


def test_null_is_feasts(feast):
    assert layout.value(None) == feast.Value().SerializeToString()


@given(moment=moments)
def test_a_timestamp_is_feasts(moment):
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    assert layout.timestamp(moment) == stamp.SerializeToString()


@given(seconds=st.integers(0, 2**33), nanos=st.integers(0, 999_999_999))
def test_a_timestamp_of_anybody_is_read_to_the_nanosecond(seconds, nanos):
    coded = Timestamp(seconds=seconds, nanos=nanos).SerializeToString()
    assert layout.nanoseconds(coded) == seconds * 1_000_000_000 + nanos


@pytest.mark.parametrize("torn", [b"\x08", b"\x08\xff\xff", b"\x08\x01\x10"])
def test_a_timestamp_that_is_cut_off_is_none(torn):
    assert layout.nanoseconds(torn) == 0


@given(data=st.data())
def test_every_type_of_number_is_read(feast, data):
    integers = {bits: st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (32, 64)}
    kind, number = data.draw(
        st.one_of(
            st.tuples(st.just("int32_val"), integers[32]),
            st.tuples(st.just("int64_val"), integers[64]),
            st.tuples(st.just("double_val"), st.floats()),
            st.tuples(st.just("float_val"), st.floats(width=32)),
            st.tuples(st.just("bool_val"), st.booleans()),
        )
    )
    read = values.number(feast.Value(**{kind: number}).SerializeToString())
    assert read == float(number) or (math.isnan(read) and math.isnan(number))


def test_both_ways_of_saying_null_are_read(feast):
    assert math.isnan(values.number(feast.Value().SerializeToString()))
    assert math.isnan(values.number(feast.Value(null_val=feast.Null.NULL).SerializeToString()))


@pytest.mark.parametrize("kind", ["string_val", "bytes_val", "unix_timestamp_val", "json_val"])
def test_what_is_no_number_is_refused(feast, kind):
    content = {"bytes_val": b"12", "unix_timestamp_val": 12}.get(kind, "12")
    with pytest.raises(ValueError, match="no number"):
        values.number(feast.Value(**{kind: content}).SerializeToString())
