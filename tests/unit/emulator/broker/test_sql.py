"""The grammar of rule SQL: what it accepts, what it makes of it, and where it points when it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbrpc.emulator.broker import sql
from sbrpc.emulator.broker.sql import SqlError, parse_action, parse_filter, split_pattern
from sbrpc.emulator.broker.tree import (
    And,
    Arithmetic,
    Comparison,
    Constant,
    Exists,
    In,
    IsNull,
    Like,
    NewId,
    Not,
    Or,
    Parameter,
    Predicate,
    Property,
    PropertyCall,
    Remove,
    Set,
    Statement,
    SystemProperty,
    Unary,
    UserProperty,
    Value,
)

A, B, C = UserProperty("a"), UserProperty("b"), UserProperty("c")
ONE, TWO, THREE = Constant(1), Constant(2), Constant(3)
A1, B2, C3 = Comparison("=", A, ONE), Comparison("=", B, TWO), Comparison("=", C, THREE)


def value_of(text: str) -> Value:
    """The tree of a value."""
    comparison = parse_filter(f"x = {text}", {"p", "größe"})
    assert isinstance(comparison, Comparison)
    return comparison.right


# -- values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1894", 1894),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1894.1204", 1894.1204),
        ("2.0", 2.0),
        ("101.5E5", 101.5e5),
        ("0.5e-2", 0.005),
        ("1E+3", 1000.0),
        ("TRUE", True),
        ("false", False),
        ("Null", None),
        ("''", ""),
        ("'it''s'", "it's"),
        ("''''", "'"),
        ("'two\nlines %_ \"[]'", 'two\nlines %_ "[]'),
    ],
)
def test_constants(text: str, value: object) -> None:
    """Constants have the documented value and type."""
    constant = value_of(text)
    assert isinstance(constant, Constant)
    assert (type(constant.value), constant.value) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("color", UserProperty("color")),
        ("Größe_2", UserProperty("Größe_2")),
        ("user.color", UserProperty("color")),
        ("USER . color", UserProperty("color")),
        ("[Property With Space]", UserProperty("Property With Space")),
        ("[a]]b]", UserProperty("a]b")),
        ('"Contoso & Northwind"', UserProperty("Contoso & Northwind")),
        ('"a""b"', UserProperty('a"b')),
        ("user.[set]", UserProperty("set")),
        ('"NULL"', UserProperty("NULL")),
        ("sys.Label", SystemProperty("subject")),
        ("sys.subject", SystemProperty("subject")),
        ("SYS.MESSAGEID", SystemProperty("message_id")),
        ("sys.[To]", SystemProperty("to")),
        ("sys", UserProperty("sys")),
        ("[sys]", UserProperty("sys")),
        ("newid()", NewId()),
        ("NEWID ( )", NewId()),
        ("property('a' + b)", PropertyCall(Arithmetic(Constant("a"), (("+", B),)))),
        ("P(a)", PropertyCall(A)),
        ("p", UserProperty("p")),
        ("property", UserProperty("property")),
        ("@p", Parameter("p")),
        ("@GRÖSSE", Parameter("grösse")),
    ],
)
def test_operands(text: str, tree: Value) -> None:
    """Properties, functions and parameters are recognised in every documented spelling."""
    comparison = parse_filter(f"1 = {text}", {"p", "grösse"})
    assert comparison == Comparison("=", ONE, tree)


@pytest.mark.parametrize("name", sorted(sql.SYSTEM_PROPERTIES))
def test_every_system_property_is_known(name: str) -> None:
    """All system properties can be tested, in any case."""
    expected = Exists(SystemProperty(sql.SYSTEM_PROPERTIES[name]))
    assert parse_filter(f"EXISTS(sys.{name.upper()})") == expected


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b - c", Arithmetic(A, (("+", B), ("-", C)))),
        ("a + b * c", Arithmetic(A, (("+", Arithmetic(B, (("*", C),))),))),
        ("a / b % c + 1", Arithmetic(Arithmetic(A, (("/", B), ("%", C))), (("+", ONE),))),
        ("(a + b) * c", Arithmetic(Arithmetic(A, (("+", B),)), (("*", C),))),
        ("-a * b", Arithmetic(Unary("-", A), (("*", B),))),
        ("a - -b", Arithmetic(A, (("-", Unary("-", B)),))),
        ("+-1", Unary("+", Unary("-", ONE))),
        ("((1))", ONE),
    ],
)
def test_arithmetic_precedence(text: str, tree: Value) -> None:
    """Signs bind before * / %, these before + -, and equals go from left to right."""
    assert value_of(text) == tree


# -- conditions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a=1", A1),
        ("a<>1", Comparison("<>", A, ONE)),
        ("a != 1", Comparison("<>", A, ONE)),
        ("a > 1", Comparison(">", A, ONE)),
        ("a >= 1", Comparison(">=", A, ONE)),
        ("a < 1", Comparison("<", A, ONE)),
        ("a <= 1", Comparison("<=", A, ONE)),
        ("1=1", Comparison("=", ONE, ONE)),
        ("a IS NULL", IsNull(A, False)),
        ("sys.To is not null", IsNull(SystemProperty("to"), True)),
        ("EXISTS(a)", Exists(A)),
        ("exists ( user.[a] )", Exists(A)),
        ("a IN(1)", In(A, (ONE,), False)),
        ("a + 1 NOT IN (1, b, 2 + 3)", None),
        ("a LIKE 'x%'", Like(A, Constant("x%"), None, False)),
        ("a NOT LIKE b + '%' ESCAPE '\\'", None),
        (r"property LIKE 'ABC\%' ESCAPE '\'", None),
        ("NOT a = 1", Not(A1)),
        ("NOT NOT a = 1", Not(Not(A1))),
        ("a = 1 OR b = 2 AND c = 3", Or((A1, And((B2, C3))))),
        ("a = 1 AND b = 2 OR c = 3", Or((And((A1, B2)), C3))),
        ("NOT a = 1 AND b = 2", And((Not(A1), B2))),
        ("NOT (a = 1 AND b = 2)", Not(And((A1, B2)))),
        ("(a = 1 OR b = 2) AND c = 3", And((Or((A1, B2)), C3))),
        ("(((a = 1)))", A1),
        ("((a)) = ((1))", A1),
        ("a = 1 OR b = 2 OR c = 3", Or((A1, B2, C3))),
        ("a = 1 OR (b = 2 OR c = 3)", Or((A1, Or((B2, C3))))),
    ],
)
def test_conditions(text: str, tree: Predicate | None) -> None:
    """Every form of condition is accepted, with the documented precedence."""
    parsed = parse_filter(text)
    if tree is not None:
        assert parsed == tree
    assert parse_filter(f" \r\n\t({text}) ") == parsed


def test_in_and_like_take_expressions() -> None:
    """The operand, the choices, the pattern and the escape are expressions, not only names and constants."""
    assert parse_filter("a+1 NOT IN (1, b, 2+3)") == In(
        Arithmetic(A, (("+", ONE),)), (ONE, B, Arithmetic(TWO, (("+", THREE),))), True
    )
    assert parse_filter("a NOT LIKE b + '%' ESCAPE c") == Like(
        A, Arithmetic(B, (("+", Constant("%")),)), C, True
    )


# -- refusals ------------------------------------------------------------------------------------------

DEEPEST = "(" * sql.MAX_DEPTH + "a" + ")" * sql.MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "expected a value or a condition, found the end"),
        ("   ", 3, "expected a value or a condition, found the end"),
        ("a = ", 4, "expected a value or a condition, found the end"),
        ("a = )", 4, "expected a value or a condition, found ')'"),
        ("a", 0, "a value alone is not a condition"),
        ("TRUE", 0, "a value alone is not a condition"),
        ("a = 1 AND flag", 10, "a value alone is not a condition"),
        ("flag OR a = 1", 0, "a value alone is not a condition"),
        ("NOT (flag)", 4, "a value alone is not a condition"),
        ("a b", 2, "expected an operator, found 'b'"),
        ("a = 1 b", 6, "expected AND, OR or the end, found 'b'"),
        ("a = b = c", 6, "expected AND, OR or the end, found '='"),
        ("a == 1", 3, "expected a value or a condition, found '='"),
        ("(a = 1) = (b = 1)", 0, "expected a value, found a condition"),
        ("1 + (a = 1) = 2", 4, "expected a value, found a condition"),
        ("(a = 1) + 1 = 2", 0, "expected a value, found a condition"),
        ("-(a = 1) = 2", 1, "expected a value, found a condition"),
        ("a IN ((a = 1))", 6, "expected a value, found a condition"),
        ("a IN ()", 6, "expected a value or a condition, found ')'"),
        ("a IN (1", 7, "expected ',' or ')', found the end"),
        ("a IN 1", 5, "expected '(', found '1'"),
        ("(a = 1", 6, "expected an operator or ')', found the end"),
        ("a NOT = 1", 6, "expected IN or LIKE after NOT, found '='"),
        ("a IS 1", 5, "expected NULL or NOT NULL, found '1'"),
        ("a IS NOT TRUE", 9, "expected NULL, found 'TRUE'"),
        ("a + 1 IS NULL", 0, "only a property can be tested by IS NULL"),
        ("EXISTS(1)", 7, "expected the name of a property, found '1'"),
        ("EXISTS a", 7, "expected '(', found 'a'"),
        ("a = 'open", 4, "the text opened here has no closing '"),
        ("[open = 1", 0, "has no closing ]"),
        ("[] = 1", 0, "the name opened here is empty"),
        ('"open = 1', 0, 'has no closing "'),
        ("_a = 1", 0, "a name starts with a letter"),
        ("a² = 1", 1, "'²' cannot stand in a name without brackets"),
        ("a = 1 & b = 1", 6, "unexpected character '&'"),
        ("a = @", 4, "expected the name of a parameter after @"),
        ("a = @nobody", 4, "the parameter @nobody has no value"),
        ("a = 9223372036854775808", 4, "does not fit a 64-bit integer"),
        ("a = -9223372036854775809", 5, "does not fit a 64-bit integer"),
        ("a = 1e999", 4, "1e999 does not fit a double"),
        ("sys.Nothing = 1", 4, "there is no system property 'Nothing'"),
        ("sys. = 1", 5, "expected the name of a property, found '='"),
        ("app.color = 1", 0, "unknown scope 'app'; a scope is sys or user"),
        ("[sys].Label = 'a'", 5, "expected an operator, found '.'"),
        ("user.set = 1", 5, "set is a keyword; write a property of that name [set]"),
        ("lower(a) = 'b'", 0, "there is no function 'lower'"),
        ("newid(1) = a", 6, "expected ')', found '1'"),
        ("p() = a", 2, "expected a value or a condition, found ')'"),
        ("a LIKE 1", 7, "the pattern of LIKE must be a text"),
        ("a LIKE 'x' ESCAPE 'ab'", 18, "must be one character, not 'ab'"),
        ("a LIKE 'x' ESCAPE ''", 18, "must be one character, not ''"),
        ("a LIKE b ESCAPE 'ab'", 16, "must be one character"),
        ("a LIKE 'x!' ESCAPE '!'", 19, "ends with its escape character '!'"),
        ("a LIKE 'x' ESCAPE NULL", 18, "the escape of LIKE must be a text"),
        (f"{DEEPEST} = 1 AND ({DEEPEST} = 1)", 106, "nested deeper than 32 levels"),
        (f"{'NOT ' * 33}a = 1", 128, "nested deeper than 32 levels"),
        (f"a = {'-' * 33}1", 36, "nested deeper than 32 levels"),
        (f"a = '{'x' * 1020}'", 1024, "the text has 1026 characters, the limit is 1024"),
    ],
)
def test_refused_filters(text: str, position: int, reason: str) -> None:
    """A text outside the grammar is refused with the position and what was expected there."""
    with pytest.raises(SqlError) as caught:
        parse_filter(text)
    assert reason in caught.value.reason
    assert caught.value.position == position


def test_error_shows_the_place() -> None:
    """The message names line and column and draws a caret below the character."""
    with pytest.raises(SqlError) as caught:
        parse_filter("a = 1\n  AND\tb = )\nOR c = 2")
    error = caught.value
    assert (error.line, error.column, error.position) == (2, 11, 16)
    first, excerpt, caret = str(error).split("\n")
    assert first == "expected a value or a condition, found ')' (line 2, column 11)"
    assert excerpt == "      AND b = )"
    assert excerpt[caret.index("^")] == ")"


def test_error_in_a_long_line_shows_a_part() -> None:
    """The excerpt of a long line is cut, and the caret still stands below the character."""
    text = " OR ".join(["color = 'red'"] * 40) + " ? "
    with pytest.raises(SqlError) as caught:
        parse_filter(text)
    _, excerpt, caret = str(caught.value).split("\n")
    assert excerpt[caret.index("^")] == "?"
    assert len(excerpt) < 100


def test_the_limits_are_inclusive() -> None:
    """1,024 characters and 32 levels are still accepted; long chains do not count as depth."""
    text = f"a = '{'x' * 1018}'"
    assert len(text) == sql.MAX_LENGTH
    parse_filter(text)
    assert parse_filter(f"{DEEPEST} = 1") == A1
    assert len(parse_filter(" OR ".join(["a = 1"] * 100)).terms) == 100  # type: ignore[union-attr]
    parse_filter("a=" + "+".join("a" * 500))


# -- actions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SET a = 1", (Set(A, ONE),)),
        ("set a = 1;", (Set(A, ONE),)),
        ("SET a = 1; SET b = 2; REMOVE c", (Set(A, ONE), Set(B, TWO), Remove(C))),
        ("SET a = 1 SET b = 2 REMOVE c", (Set(A, ONE), Set(B, TWO), Remove(C))),
        ("REMOVE user.a;", (Remove(A),)),
        ("SET sys.Label = NULL", (Set(SystemProperty("subject"), Constant(None)),)),
        ("SET a=b+1", (Set(A, Arithmetic(B, (("+", ONE),))),)),
    ],
)
def test_actions(text: str, statements: tuple[Statement, ...]) -> None:
    """SET and REMOVE follow each other with or without a semicolon."""
    assert parse_action(text) == statements


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "expected SET or REMOVE, found the end"),
        (";", 0, "expected SET or REMOVE, found ';'"),
        ("a = 1", 0, "expected SET or REMOVE, found 'a'"),
        ("SET a = 1;;", 10, "expected SET, REMOVE or the end, found ';'"),
        ("SET a = 1 = 2", 10, "expected an operator, ';', SET, REMOVE or the end, found '='"),
        ("SET a = (b = 1)", 8, "expected a value, found a condition"),
        ("SET a 1", 6, "expected '=', found '1'"),
        ("SET 1 = 1", 4, "expected the name of a property, found '1'"),
        ("REMOVE", 6, "expected the name of a property, found the end"),
        ("REMOVE sys.To", 7, "a system property cannot be removed"),
        ("SET sys.Size = 1", 4, "this system property cannot be set"),
        ("SET sys.EnqueuedTimeUtc = 1", 4, "this system property cannot be set"),
        ("SET sys.Nothing = 1", 8, "there is no system property 'Nothing'"),
        ("REMOVE a " * 33, 288, "an action has at most 32 statements"),
    ],
)
def test_refused_actions(text: str, position: int, reason: str) -> None:
    """A text that is no list of statements is refused with the position and what was expected there."""
    with pytest.raises(SqlError) as caught:
        parse_action(text)
    assert reason in caught.value.reason
    assert caught.value.position == position


# -- LIKE patterns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "escape", "pieces"),
    [
        ("", None, ((),)),
        ("ab", None, (("a", "b"),)),
        ("%", None, ((), ())),
        ("a%_b", None, (("a",), (None, "b"))),
        ("a!%!_!!", "!", (("a", "%", "_", "!"),)),
        ("a!b", "!", (("a", "b"),)),
        ("%%", "%", (("%",),)),
    ],
)
def test_patterns(pattern: str, escape: str | None, pieces: tuple[tuple[str | None, ...], ...]) -> None:
    """A pattern is cut at its unescaped per cent signs."""
    assert split_pattern(pattern, escape) == pieces


# -- properties ----------------------------------------------------------------------------------------


def printed(node: Value | Predicate) -> str:
    """A tree as text, in as many parentheses as it takes to be sure."""
    match node:
        case Constant(bool(value)):
            return str(value).upper()
        case Constant(str(value)):
            return "'" + value.replace("'", "''") + "'"
        case Constant(None):
            return "NULL"
        case Constant(float(value)):
            text = repr(value)
            return text if "." in text or "e" in text else f"{text}.0"
        case Constant(value):
            return str(value)
        case UserProperty(name):
            return "[" + name.replace("]", "]]") + "]"
        case SystemProperty(name):
            return "sys." + next(key for key, value in sql.SYSTEM_PROPERTIES.items() if value == name)
        case Parameter(name):
            return f"@{name}"
        case NewId():
            return "newid()"
        case PropertyCall(name):
            return f"p({printed(name)})"
        case Unary(operator, operand):
            return f"{operator}({printed(operand)})"
        case Arithmetic(first, rest):
            return f"({printed(first)})" + "".join(
                f"{symbol}({printed(operand)})" for symbol, operand in rest
            )
        case Comparison(operator, left, right):
            return f"{printed(left)} {operator} {printed(right)}"
        case IsNull(name, negated):
            return f"{printed(name)} IS {'NOT ' * negated}NULL"
        case In(operand, choices, negated):
            return f"{printed(operand)} {'NOT ' * negated}IN ({','.join(map(printed, choices))})"
        case Like(operand, pattern, escape, negated):
            text = f"{printed(operand)} {'NOT ' * negated}LIKE {printed(pattern)}"
            return text if escape is None else f"{text} ESCAPE {printed(escape)}"
        case Exists(name):
            return f"EXISTS({printed(name)})"
        case Not(operand):
            return f"NOT ({printed(operand)})"
        case And(terms):
            return " AND ".join(f"({printed(term)})" for term in terms)
        case Or(terms):
            return " OR ".join(f"({printed(term)})" for term in terms)
    raise TypeError(node)


def written(statement: Statement) -> str:
    """A statement as text."""
    if isinstance(statement, Remove):
        return f"REMOVE {printed(statement.property)}"
    return f"SET {printed(statement.property)} = {printed(statement.value)}"


names = st.text(min_size=1, max_size=5)
user_properties = st.builds(UserProperty, names)
properties: st.SearchStrategy[Property] = user_properties | st.builds(
    SystemProperty, st.sampled_from(sorted(set(sql.SYSTEM_PROPERTIES.values())))
)
constants = st.builds(
    Constant,
    st.none()
    | st.booleans()
    | st.integers(0, 2**63 - 1)
    | st.just(-(2**63))
    | st.floats(0, allow_nan=False, allow_infinity=False).map(abs)
    | st.text(max_size=5),
)
leaves = constants | properties | st.just(NewId()) | st.builds(Parameter, st.sampled_from(["p", "q"]))
values: st.SearchStrategy[Value] = st.recursive(
    leaves,
    lambda inner: (
        st.builds(PropertyCall, inner)
        | st.builds(Unary, st.sampled_from("+-"), inner)
        | st.builds(
            Arithmetic, inner, st.lists(st.tuples(st.sampled_from("+-"), inner), min_size=1).map(tuple)
        )
        | st.builds(
            Arithmetic, inner, st.lists(st.tuples(st.sampled_from("*/%"), inner), min_size=1).map(tuple)
        )
    ),
    max_leaves=4,
)
patterns = values.filter(lambda value: not isinstance(value, Constant) or isinstance(value.value, str))
escapes = st.none() | properties | st.just(Constant("!"))
conditions: st.SearchStrategy[Predicate] = st.recursive(
    st.builds(Comparison, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), values, values)
    | st.builds(IsNull, properties, st.booleans())
    | st.builds(Exists, properties)
    | st.builds(In, values, st.lists(values, min_size=1, max_size=3).map(tuple), st.booleans())
    | st.builds(Like, values, patterns, escapes, st.booleans()).filter(
        lambda like: not isinstance(like.pattern, Constant) or not str(like.pattern.value).endswith("!")
    ),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, min_size=2, max_size=4).map(tuple))
        | st.builds(Or, st.lists(inner, min_size=2, max_size=4).map(tuple))
    ),
    max_leaves=4,
)
statements = st.builds(Remove, user_properties) | st.builds(
    Set, user_properties | st.builds(SystemProperty, st.sampled_from(sorted(sql.SETTABLE))), values
)
WORDS = """a [b] "c" sys. user. Label 1 2.5 'x' '' NULL TRUE AND OR NOT IS IN LIKE ESCAPE EXISTS ( ) , ; = <>
< > + - * / % @p newid() p( SET REMOVE ? ' ["""
fragments = st.lists(st.sampled_from(WORDS.split()), max_size=20).map(" ".join)


def refusal(parse: Callable[[str], object], text: str) -> SqlError | None:
    """The error the parser gives for a text, if it does."""
    try:
        parse(text)
    except SqlError as error:
        return error
    return None


@settings(deadline=None)
@given(conditions)
def test_printed_conditions_parse_to_the_same_tree(tree: Predicate) -> None:
    """Any condition, written out, is read as the same tree, constants with their types."""
    text = printed(tree)
    if len(text) <= sql.MAX_LENGTH:
        assert repr(parse_filter(text, {"p", "q"})) == repr(tree)


@settings(deadline=None)
@given(st.lists(statements, min_size=1, max_size=4), st.sampled_from([" ", ";", " ; "]))
def test_printed_actions_parse_to_the_same_statements(tree: list[Statement], separator: str) -> None:
    """Any action, written out, is read as the same statements."""
    text = separator.join(map(written, tree))
    if len(text) <= sql.MAX_LENGTH:
        assert repr(parse_action(text, {"p", "q"})) == repr(tuple(tree))


@settings(deadline=None)
@given(st.text() | fragments)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text makes the parser raise anything but a SqlError inside the text."""
    for error in (refusal(parse_filter, text), refusal(parse_action, text)):
        if error is not None:
            assert 0 <= error.position <= len(text)
            assert str(error).endswith("^")
