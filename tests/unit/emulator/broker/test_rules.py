"""Filters and actions evaluated for messages."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbrpc.emulator.broker.rules import (
    Changes,
    CompiledAction,
    FilterError,
    SqlError,
    compile_action,
    compile_filter,
)
from sbrpc.topology import CorrelationFilter, FalseFilter, SqlFilter, TrueFilter

ID = UUID(int=7)


class Message:
    """A message as a sender wrote it: system properties by keyword, user properties as a dict."""

    def __init__(self, user: Mapping[Any, object] | None = None, **system: object) -> None:
        self._user = user or {}
        self._system = system

    def system(self, name: str) -> object:
        return self._system.get(name)

    def user(self) -> Mapping[str, object]:
        return self._user


def matches(expression: str, message: Message, **parameters: object) -> bool:
    """Whether the SQL filter lets the message through."""
    return compile_filter(SqlFilter(expression), parameters=parameters).matches(message)


def outcome(expression: str, message: Message) -> bool | None:
    """What the condition is: when neither it nor its negation matches, it is unknown."""
    if matches(expression, message):
        return True
    return False if matches(f"NOT ({expression})", message) else None


def action(text: str, **parameters: object) -> CompiledAction:
    """The compiled action, with ids that can be predicted."""
    return compile_action(text, parameters=parameters, new_id=lambda: ID)


# -- SQL filters ---------------------------------------------------------------------------------------

ORDER = Message(
    {"color": "Red", "quantity": 10, "price": 2.5, "urgent": True, "nothing": None, "id": ID, "HR-Id": 1},
    subject="omnibus",
    message_id="m1",
    correlation_id="abc-1",
    to="Store5",
    sequence_number=3,
    delivery_count=0,
    size=300,
    time_to_live=60.0,
    enqueued_at=1_704_110_400.0,
)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1=1", True),
        ("1=0", False),
        ("color = 'Red'", True),
        ("COLOR = 'Red'", True),
        ("user.Color = 'Red'", True),
        ("color = 'red'", False),
        ("color <> 'Blue' AND quantity = 10", True),
        ("quantity > 2.08", True),
        ("quantity / 4 = 2", True),
        ("quantity / 4.0 = 2.5", True),
        ("price * 4 = quantity", True),
        ("-quantity < +1", True),
        ("quantity = '10'", None),
        ("quantity <> '10'", None),
        ("urgent = TRUE", True),
        ("urgent = 1", None),
        ("urgent <> 1", None),
        ("[HR-Id] = 1", True),
        ('"HR-Id" = 1', True),
        ("sys.Label LIKE '%bus%'", True),
        ("sys.subject = 'omnibus'", True),
        ("sys.messageid = 'm1'", True),
        ("sys.correlationid LIKE 'abc-%'", True),
        ("sys.To IN ('Store5','Store6') OR StoreId = 'Store8'", True),
        ("sys.Size >= 300 AND sys.SequenceNumber = 3 AND sys.DeliveryCount = 0", True),
        ("Label = 'omnibus'", None),
        ("sys.SessionId = 'a'", None),
        ("sys.SessionId IS NULL", True),
        ("sys.To IS NOT NULL", True),
        ("EXISTS(sys.To)", True),
        ("EXISTS(sys.ReplyTo)", False),
        ("EXISTS(Color)", True),
        ("EXISTS(missing)", False),
        ("EXISTS(nothing)", True),
        ("nothing IS NULL", True),
        ("missing IS NULL", True),
        ("color IS NULL", False),
        ("missing IS NOT NULL", False),
        ("nothing = NULL", None),
        ("color = NULL", None),
        ("missing = 1", None),
        ("missing + 1 = 1", None),
        ("-missing = 1", None),
        ("color LIKE 'R_d'", True),
        ("color NOT LIKE 'B%'", True),
        ("color LIKE 'r%'", False),
        ("quantity LIKE '1%'", None),
        ("missing LIKE '%'", None),
        ("missing NOT LIKE '%'", None),
        ("color LIKE missing", None),
        ("color LIKE NULL", None),
        ("color LIKE 'R' + '%'", True),
        ("color LIKE 'R%' ESCAPE missing", None),
        ("color IN ('Blue', 'Red')", True),
        ("color NOT IN ('Blue', 'Green')", True),
        ("missing IN ('a')", None),
        ("missing NOT IN ('a')", None),
        ("color IN ('Blue', missing)", None),
        ("color IN (missing, 'Red')", True),
        ("property('co' + 'lor') = 'Red'", True),
        ("p('COLOR') = 'Red'", True),
        ("p('sys.Label') = 'omnibus'", None),
        ("p(missing) = 1", None),
        ("id = newid()", True),
        ("color + quantity = 'Red10'", True),
        # AND does not look at what can no longer change its result, so nothing fails here.
        ("1=0 AND quantity / 0 = 1", False),
        ("1=1 OR quantity / 0 = 1", True),
    ],
)
def test_sql_filters(expression: str, result: bool | None) -> None:
    """A condition is true, false or unknown, and only true matches."""

    def one(text: str) -> bool:
        return compile_filter(SqlFilter(text), new_id=lambda: ID).matches(ORDER)

    assert one(expression) is (result is True)
    assert one(f"NOT ({expression})") is (result is False)


TRUTH = {"T": "1=1", "F": "1=0", "U": "missing=1"}
NAMED = {True: "T", False: "F", None: "U"}


@pytest.mark.parametrize(
    ("operator", "table"),
    [
        ("AND", {"TT": "T", "TF": "F", "TU": "U", "FF": "F", "FU": "F", "UU": "U"}),
        ("OR", {"TT": "T", "TF": "T", "TU": "T", "FF": "F", "FU": "U", "UU": "U"}),
    ],
)
def test_truth_tables(operator: str, table: dict[str, str]) -> None:
    """AND and OR follow the documented tables, from either side."""
    for pair, result in table.items():
        for first, second in ((pair[0], pair[1]), (pair[1], pair[0])):
            found = outcome(f"({TRUTH[first]}) {operator} ({TRUTH[second]})", ORDER)
            assert NAMED[found] == result, (first, operator, second)


def test_not_unknown_is_unknown() -> None:
    """NOT leaves unknown as it is."""
    assert outcome("NOT missing = 1", ORDER) is None
    assert outcome("NOT 1 = 1", ORDER) is False


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("quantity / 0 = 1", "by zero"),
        ("color - 1 = 1", "not defined for text and number"),
        ("-color = 'a'", "not defined for text"),
        ("quantity * 9223372036854775807 = 1", "64-bit"),
        ("p(quantity) = 1", "needs the name as text"),
        ("color LIKE quantity", "must be texts"),
        ("color LIKE 'a' ESCAPE quantity", "must be texts"),
        ("color LIKE 'a' ESCAPE color", "one character"),
        ("color LIKE 'a' + 'b' ESCAPE 'b'", "ends with its escape"),
    ],
)
def test_evaluation_errors(expression: str, reason: str) -> None:
    """A condition that cannot be evaluated for a message is a FilterError, not a match."""
    with pytest.raises(FilterError, match=reason):
        matches(expression, ORDER)


def test_an_infinite_time_to_live_is_a_filter_error() -> None:
    """A system time beyond the range of time is an evaluation error."""
    for message in (Message(time_to_live=float("inf")), Message(time_to_live=float("nan"))):
        with pytest.raises(FilterError, match="out of the range of time"):
            matches("sys.TimeToLive = 1", message)
    with pytest.raises(FilterError, match="out of the range of time"):
        matches("sys.EnqueuedTimeUtc = 1", Message(enqueued_at=1e13))


def test_times_have_their_documented_types() -> None:
    """Times compare with instants, the time to live with durations, as parameters or as differences."""
    noon = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    minute = timedelta(minutes=1)
    assert matches("sys.EnqueuedTimeUtc = @noon", ORDER, noon=noon)
    assert matches("sys.EnqueuedTimeUtc < @later", ORDER, later=noon + minute)
    assert matches("sys.EnqueuedTimeUtc - sent <= @span", Message({"sent": noon}, enqueued_at=0), span=minute)
    assert matches("sys.TimeToLive = @span", ORDER, span=minute)
    assert not matches("sys.TimeToLive = 60", ORDER)
    assert not matches("sys.ScheduledEnqueueTime = @noon", ORDER, noon=noon)


def test_parameters_are_found_in_any_case_and_with_their_at_sign() -> None:
    """SDKs name parameters with the @, and case does not matter."""
    given = {"@Color": "Red"}
    compiled = compile_filter(SqlFilter("color = @color AND color = @COLOR"), parameters=given)
    assert compiled.matches(ORDER)
    with pytest.raises(SqlError, match="the parameter @colour has no value"):
        compile_filter(SqlFilter("color = @colour"), parameters=given)


def test_keys_in_bytes_and_subclasses_of_str() -> None:
    """Messages whose keys are bytes and whose texts are subclasses of str are read like others."""

    class Text(str):
        pass

    message = Message({"Größe".encode(): Text("L"), b"n": 1}, subject=Text("a"))
    assert matches("größe = 'L' AND größe LIKE '_' AND größe IN ('L') AND n = 1", message)
    assert matches("EXISTS(GRÖSSE) OR EXISTS(N)", message)
    assert matches("sys.Label = 'a' AND p('N') = 1", message)


def test_ids_of_other_types_are_text() -> None:
    """Message and correlation ids that are UUIDs or numbers on the wire are text in the language."""
    message = Message(message_id=ID, correlation_id=12)
    assert matches(f"sys.MessageId = '{ID}' AND sys.CorrelationId LIKE '1%'", message)
    wanted = CorrelationFilter(message_id=str(ID), correlation_id="12")
    assert compile_filter(wanted).matches(message)


def test_the_exact_spelling_of_a_name_comes_first() -> None:
    """Among names that differ only in case the one that was written wins."""
    message = Message({"Color": "red", "color": "blue"})
    assert matches("color = 'blue' AND Color = 'red'", message)


# -- other filters -------------------------------------------------------------------------------------


def test_constant_filters() -> None:
    """The true filter matches everything, the false filter nothing."""
    assert compile_filter(TrueFilter()).matches(Message())
    assert not compile_filter(FalseFilter()).matches(Message())


@pytest.mark.parametrize(
    ("wanted", "result"),
    [
        (CorrelationFilter(), True),
        (CorrelationFilter(subject="omnibus"), True),
        (CorrelationFilter(subject="Omnibus"), False),
        (CorrelationFilter(subject="omnibus", to="Store5", correlation_id="abc-1", message_id="m1"), True),
        (CorrelationFilter(subject="omnibus", to="Store6"), False),
        (CorrelationFilter(session_id="a"), False),
        (CorrelationFilter(content_type="a"), False),
        (CorrelationFilter(reply_to="a"), False),
        (CorrelationFilter(reply_to_session_id="a"), False),
        (CorrelationFilter(properties={"COLOR": "Red", "quantity": 10}), True),
        (CorrelationFilter(properties={"quantity": 10.0}), True),
        (CorrelationFilter(properties={"quantity": "10"}), False),
        (CorrelationFilter(properties={"urgent": True}), True),
        (CorrelationFilter(properties={"urgent": 1}), False),
        (CorrelationFilter(properties={"color": "red"}), False),
        (CorrelationFilter(properties={"missing": ""}), False),
        (CorrelationFilter(properties={"nothing": None}), True),
        (CorrelationFilter(properties={"color": None}), False),
        (CorrelationFilter(subject="omnibus", properties={"color": "Blue"}), False),
    ],
)
def test_correlation_filters(wanted: CorrelationFilter, result: bool) -> None:
    """All given properties must be equal, in kind, value and case."""
    assert compile_filter(wanted).matches(ORDER) is result


def test_refusals_at_compile_time() -> None:
    """What cannot be a filter or an action is refused before any message comes."""
    with pytest.raises(SqlError, match="there is no system property 'Colour'"):
        compile_filter(SqlFilter("sys.Colour = 1"))
    with pytest.raises(SqlError, match="expected SET or REMOVE"):
        compile_action("color = 'red'")
    with pytest.raises(TypeError, match="is not a filter"):
        compile_filter("1=1")  # type: ignore[arg-type]


def test_new_ids_are_random_by_default() -> None:
    """Without an injected factory newid() gives a new id each time."""
    made = compile_action("SET a = newid() SET b = newid()").apply(Message()).user
    assert isinstance(made["a"], UUID)
    assert made["a"] != made["b"]


# -- actions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (
            "SET quantity = quantity / 2; REMOVE urgent;SET sys.CorrelationId = 'low';",
            Changes({"correlation_id": "low"}, {"quantity": 5}, {"urgent"}),
        ),
        ("SET added = 1", Changes(user={"added": 1})),
        ("SET COLOR = 'Blue'", Changes(user={"color": "Blue"})),
        ("SET color = 5", Changes(user={"color": "5"})),
        ("SET quantity = '7'", Changes(user={"quantity": 7})),
        ("SET quantity = 'many'", Changes(user={"quantity": "many"})),
        ("SET a = missing", Changes(user={"a": None})),
        ("SET a = 1 SET b = a + 1", Changes(user={"a": 1, "b": 2})),
        ("SET a = 1 REMOVE A", Changes()),
        ("REMOVE COLOR", Changes(removed={"color"})),
        ("REMOVE missing", Changes()),
        ("REMOVE color SET COLOR = 1", Changes(user={"color": 1})),
        ("REMOVE color SET a = color", Changes(user={"a": None}, removed={"color"})),
        ("SET sys.To = 'Entity'", Changes({"to": "Entity"})),
        ("SET sys.SessionId = color", Changes({"session_id": "Red"})),
        ("SET sys.SessionId = quantity", Changes({"session_id": "10"})),
        ("SET sys.SessionId = color + newid()", Changes({"session_id": f"Red{ID}"})),
        ("SET sys.MessageId = newid()", Changes({"message_id": str(ID)})),
        ("SET sys.Label = sys.Label + '.x' SET a = sys.Subject", None),
        ("SET sys.Label = NULL SET a = sys.Label", Changes({"subject": None}, {"a": None})),
        ("SET sys.TimeToLive = '00:05:00'", Changes({"time_to_live": 300.0})),
        ("SET sys.TimeToLive = sys.TimeToLive + sys.TimeToLive", Changes({"time_to_live": 120.0})),
        ("SET sys.TimeToLive = NULL", Changes({"time_to_live": None})),
        ("SET a = @p", Changes(user={"a": "given"})),
    ],
)
def test_actions(text: str, changes: Changes | None) -> None:
    """An action yields exactly its changes; later statements see what earlier ones did."""
    if changes is None:
        changes = Changes({"subject": "omnibus.x"}, {"a": "omnibus.x"})
    assert action(text, p="given").apply(ORDER) == changes


def test_an_action_leaves_the_message_alone() -> None:
    """Applying an action changes neither the message nor the next application."""
    given: dict[Any, object] = {b"Color": "red"}
    message = Message(dict(given))
    compiled = action("SET color = color + '!'; REMOVE color; SET n = 1")
    assert compiled.apply(message) == compiled.apply(message) == Changes(user={"n": 1}, removed={"Color"})
    assert dict(message.user().items()) == given


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SET a = quantity / 0", "by zero"),
        ("SET sys.TimeToLive = 60", "needs a time span such as '00:05:00', not int"),
        ("SET sys.TimeToLive = 'soon'", "needs a time span"),
        ("SET sys.TimeToLive = '00:00'", "must be positive"),
        ("SET sys.Label = bytes", "bytes cannot be written as text"),
    ],
)
def test_action_errors(text: str, reason: str) -> None:
    """An action that cannot be applied to a message is a FilterError."""
    with pytest.raises(FilterError, match=reason):
        action(text).apply(Message({"quantity": 1, "bytes": b"x"}))


# -- properties ----------------------------------------------------------------------------------------

properties = st.sampled_from(
    ["a", "b", "c", "sys.Label", "sys.TimeToLive", "sys.EnqueuedTimeUtc", "sys.MessageId"]
)
operands = properties | st.sampled_from(
    ["1", "0", "2.5", "'x'", "'%'", "TRUE", "NULL", "9223372036854775807", "newid()", "p(a)", "-a", "+b"]
)
computed = st.builds("({} {} {})".format, operands, st.sampled_from("+-*/%"), operands)
terms = operands | computed
tests = (
    st.builds("{} {} {}".format, terms, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), terms)
    | st.builds("{} IN ({}, {})".format, terms, terms, terms)
    | st.builds("{} LIKE ({} + '') ESCAPE {}".format, terms, terms, st.sampled_from(["a", "'!'"]))
    | st.sampled_from(["a IS NULL", "EXISTS(b)", "sys.To IS NOT NULL"])
)
contents = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.uuids()
messages = st.builds(
    Message,
    st.dictionaries(
        st.sampled_from(["a", "B", b"c"]), contents | st.datetimes() | st.timedeltas() | st.decimals()
    ),
    subject=contents,
    message_id=contents,
    time_to_live=st.none() | st.floats(),
    enqueued_at=st.none() | st.floats(),
)


@settings(deadline=None)
@given(tests, tests, st.sampled_from(["AND", "OR"]), messages)
def test_filters_only_raise_filter_errors(left: str, right: str, operator: str, message: Message) -> None:
    """No message makes a filter raise anything but a FilterError; a condition and its negation never match
    both."""
    expression = f"({left}) {operator} ({right})"
    with suppress(FilterError):
        outcomes = [matches(expression, message), matches(f"NOT ({expression})", message)]
        assert outcomes != [True, True] or "newid()" in expression


@settings(deadline=None)
@given(terms, st.sampled_from(["a", "new", "sys.Label", "sys.TimeToLive"]), messages)
def test_actions_only_raise_filter_errors(value: str, target: str, message: Message) -> None:
    """No message makes an action raise anything but a FilterError, and what is set is not removed."""
    with suppress(FilterError):
        changes = action(f"REMOVE b SET {target} = {value} REMOVE c").apply(message)
        assert not changes.removed & changes.user.keys()
