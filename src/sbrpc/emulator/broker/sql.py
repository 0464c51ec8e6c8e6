"""The SQL of subscription rules: from text to a frozen tree, or to an error that points at the place.

Owns the grammar: tokens, precedence, limits, the names of system properties and LIKE patterns. Knows no
message and evaluates nothing. The grammar is the documented one (learn.microsoft.com, service-bus-messaging:
service-bus-messaging-sql-filter, service-bus-messaging-sql-rule-action, service-bus-quotas). Loosest first:

    OR   AND   NOT   comparisons, IS, IN, LIKE, EXISTS   + -   * / %   unary + -

Where there was a choice the documentation decides: a value alone, even a boolean one, is no condition (write
`flag = TRUE`), and the semicolon between the statements of an action may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

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

__all__ = [
    "MAX_DEPTH",
    "MAX_LENGTH",
    "MAX_STATEMENTS",
    "SETTABLE",
    "SYSTEM_PROPERTIES",
    "SqlError",
    "parse_action",
    "parse_filter",
    "split_pattern",
]

MAX_LENGTH = 1024
MAX_STATEMENTS = 32
MAX_DEPTH = 32
"""How deep parentheses, NOT, signs and function calls may nest. Chains of one operator do not nest."""

SYSTEM_PROPERTIES = {
    "contenttype": "content_type",
    "correlationid": "correlation_id",
    "deliverycount": "delivery_count",
    "enqueuedtimeutc": "enqueued_at",
    "expiresatutc": "expires_at",
    "label": "subject",
    "messageid": "message_id",
    "partitionkey": "partition_key",
    "replyto": "reply_to",
    "replytosessionid": "reply_to_session_id",
    # service-bus-filter-examples sends users to the names of the current SDK, which has no ...Utc
    "scheduledenqueuetime": "scheduled_at",
    "scheduledenqueuetimeutc": "scheduled_at",
    "sequencenumber": "sequence_number",
    "sessionid": "session_id",
    "size": "size",
    "subject": "subject",
    "timetolive": "time_to_live",
    "to": "to",
}
"""Lower-case name in the language -> name in the broker."""

SETTABLE = frozenset(
    {
        "content_type",
        "correlation_id",
        "message_id",
        "partition_key",
        "reply_to",
        "reply_to_session_id",
        "session_id",
        "subject",
        "time_to_live",
        "to",
    }
)
"""What an action may set: what a sender may set, except when the message is to appear."""

_INT64 = 2**63
_KEYWORDS = frozenset(
    ("AND", "ESCAPE", "EXISTS", "FALSE", "IN", "IS", "LIKE", "NOT", "NULL", "OR", "REMOVE", "SET", "TRUE")
)
_COMPARISONS = {"=": "=", "<>": "<>", "!=": "<>", ">": ">", ">=": ">=", "<": "<", "<=": "<="}


class SqlError(ValueError):
    """The text is not in the grammar. `position` counts from 0, `line` and `column` from 1."""

    def __init__(self, reason: str, text: str, position: int) -> None:
        self.reason = reason
        self.position = position
        self.line = text.count("\n", 0, position) + 1
        start = text.rfind("\n", 0, position) + 1
        self.column = position - start + 1
        end = text.find("\n", start)
        # Not the whole line when it is long: the excerpt is for a reader's eye.
        left = max(start, position - 50)
        right = min(len(text) if end < 0 else end, position + 30)
        shown = "".join(char if char.isprintable() else " " for char in text[left:right])
        super().__init__(
            f"{reason} (line {self.line}, column {self.column})\n    {shown}\n    {' ' * (position - left)}^"
        )


# -- the door ------------------------------------------------------------------------------------------


def parse_filter(text: str, parameters: Collection[str] = ()) -> Predicate:
    """The tree of a filter's condition.

    `parameters` are the names, lower case and without @, that have a value.

    Raises:
        SqlError: the text is not a condition, or exceeds a limit.
    """
    parser = _Parser(text, parameters)
    predicate = parser.condition(parser.disjunction)
    parser.expect_end("AND, OR or the end")
    return predicate


def parse_action(text: str, parameters: Collection[str] = ()) -> tuple[Statement, ...]:
    """The statements of an action, in their order.

    Raises:
        SqlError: the text is not a list of statements, or exceeds a limit.
    """
    return _Parser(text, parameters).statements()


def split_pattern(pattern: str, escape: str | None) -> tuple[tuple[str | None, ...], ...]:
    """A LIKE pattern as the pieces between its `%`; in a piece `None` stands for any one character.

    Raises:
        ValueError: the escape is not one character, or escapes nothing.
    """
    if escape is not None and len(escape) != 1:
        raise ValueError(f"the escape of LIKE must be one character, not {escape!r}")
    pieces: list[tuple[str | None, ...]] = []
    piece: list[str | None] = []
    chars = iter(pattern)
    for char in chars:
        if char == escape:
            escaped = next(chars, None)
            if escaped is None:
                raise ValueError(f"the pattern of LIKE ends with its escape character {escape!r}")
            piece.append(escaped)
        elif char == "%":
            pieces.append(tuple(piece))
            piece = []
        else:
            piece.append(None if char == "_" else char)
    return (*pieces, tuple(piece))


# -- tokens --------------------------------------------------------------------------------------------


class _Token(NamedTuple):
    kind: str
    """`name`, `delimited`, `parameter`, `integer`, `number`, `string` or `end`; keywords and symbols are
    their own kind."""
    value: str | int | float
    position: int
    end: int


_PATTERN = re.compile(
    r"""(?P<number> [0-9]+ (?:\.[0-9]+)? (?:[eE][+-]?[0-9]+)? )
      | (?P<string> ' (?:[^']|'')* ' )
      | (?P<bracket> \[ (?:[^\]]|\]\])+ \] )
      | (?P<quoted> " (?:[^"]|"")+ " )
      | (?P<word> @? [^\W\d_]\w* )
      | (?P<symbol> <> | != | >= | <= | [-=<>+*/%(),.;] )
    """,
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_OPENED = {
    "'": "the text opened here has no closing '",
    "[": "the name opened here is empty or has no closing ]",
    '"': 'the name opened here is empty or has no closing "',
    "@": "expected the name of a parameter after @",
    "_": "a name starts with a letter; write any other name in brackets, [_name]",
}


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_LENGTH:
        raise SqlError(
            f"the text has {len(text)} characters, the limit is {MAX_LENGTH}",
            text,
            min(MAX_LENGTH, len(text)),
        )
    tokens: list[_Token] = []
    position = _skip_space(text, 0)
    while position < len(text):
        match = _PATTERN.match(text, position)
        if match is None:
            char = text[position]
            raise SqlError(_OPENED.get(char, f"unexpected character {char!r}"), text, position)
        tokens.append(_token(text, match))
        position = _skip_space(text, match.end())
    tokens.append(_Token("end", "", position, position))
    return tokens


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _token(text: str, match: re.Match[str]) -> _Token:
    word, (start, end) = match[0], match.span()
    if match.lastgroup == "number":
        if word.isdecimal():
            return _Token("integer", int(word), start, end)
        number = float(word)
        if number in (float("inf"), float("-inf")):
            raise SqlError(f"{word} does not fit a double", text, start)
        return _Token("number", number, start, end)
    if match.lastgroup == "string":
        return _Token("string", word[1:-1].replace("''", "'"), start, end)
    if match.lastgroup == "bracket":
        return _Token("delimited", word[1:-1].replace("]]", "]"), start, end)
    if match.lastgroup == "quoted":
        return _Token("delimited", word[1:-1].replace('""', '"'), start, end)
    if match.lastgroup == "symbol":
        return _Token(word, word, start, end)
    # \w is wider than the documented letters (L*) and digits (Nd), as in the superscript 2.
    for offset, char in enumerate(word):
        if not (char.isalpha() or char.isdecimal() or char == "_" or (char == "@" and offset == 0)):
            raise SqlError(f"{char!r} cannot stand in a name without brackets", text, start + offset)
    if word[0] == "@":
        return _Token("parameter", word[1:].lower(), start, end)
    keyword = word.upper()
    return _Token(keyword if keyword in _KEYWORDS else "name", word, start, end)


# -- grammar -------------------------------------------------------------------------------------------


class _Parser:
    """Recursive descent, one method per level of precedence.

    A parenthesis may hold a value or a condition, known only when it has been read. So every level returns
    either, and who needs one kind asks for it by `condition` or `value`.
    """

    def __init__(self, text: str, parameters: Collection[str]) -> None:
        self.text = text
        self.parameters = parameters
        self.tokens = _tokens(text)
        self.index = 0
        self.depth = 0

    # - the cursor -

    @property
    def token(self) -> _Token:
        return self.tokens[self.index]

    def follows(self, kind: str) -> bool:
        # Only asked on a token that is not the end, so there is a next one.
        return self.tokens[self.index + 1].kind == kind

    def take(self) -> _Token:
        """The token, which the caller has seen not to be the end."""
        self.index += 1
        return self.tokens[self.index - 1]

    def accept(self, kind: str) -> bool:
        if self.token.kind != kind:
            return False
        self.index += 1
        return True

    def expect(self, kind: str, what: str | None = None) -> None:
        if not self.accept(kind):
            raise self.unexpected(what or (kind if kind.isalpha() else repr(kind)))

    def expect_end(self, what: str) -> None:
        if self.token.kind != "end":
            raise self.unexpected(what)

    def unexpected(self, expected: str) -> SqlError:
        token = self.token
        found = "the end" if token.kind == "end" else repr(self.text[token.position : token.end][:40])
        return self.refused(f"expected {expected}, found {found}", token)

    def refused(self, reason: str, token: _Token) -> SqlError:
        return SqlError(reason, self.text, token.position)

    def nested(self, parse: Callable[[], Value | Predicate]) -> Value | Predicate:
        if self.depth == MAX_DEPTH:
            # What opens the level has just been taken.
            raise self.refused(f"nested deeper than {MAX_DEPTH} levels", self.tokens[self.index - 1])
        self.depth += 1
        node = parse()
        self.depth -= 1
        return node

    # - conditions -

    def condition(self, parse: Callable[[], Value | Predicate]) -> Predicate:
        start = self.token
        return self.as_condition(parse(), start)

    def as_condition(self, node: Value | Predicate, start: _Token) -> Predicate:
        if isinstance(node, Predicate):
            return node
        if self.token.kind in ("end", ")", "AND", "OR"):
            raise self.refused("a value alone is not a condition; compare it, as in flag = TRUE", start)
        raise self.unexpected("an operator")

    def disjunction(self) -> Value | Predicate:
        start = self.token
        first = self.conjunction()
        if self.token.kind != "OR":
            return first
        terms = [self.as_condition(first, start)]
        while self.accept("OR"):
            terms.append(self.condition(self.conjunction))
        return Or(tuple(terms))

    def conjunction(self) -> Value | Predicate:
        start = self.token
        first = self.negation()
        if self.token.kind != "AND":
            return first
        terms = [self.as_condition(first, start)]
        while self.accept("AND"):
            terms.append(self.condition(self.negation))
        return And(tuple(terms))

    def negation(self) -> Value | Predicate:
        if self.accept("NOT"):
            return Not(self.condition(lambda: self.nested(self.negation)))
        return self.comparison()

    def comparison(self) -> Value | Predicate:
        start = self.token
        left = self.sum()
        token = self.token
        if token.kind in _COMPARISONS:
            operand = self.as_value(left, start)
            self.take()
            return Comparison(_COMPARISONS[token.kind], operand, self.value(self.sum))
        if self.accept("IS"):
            negated = self.accept("NOT")
            self.expect("NULL", "NULL" if negated else "NULL or NOT NULL")
            if not isinstance(left, Property):
                raise self.refused("only a property can be tested by IS NULL", start)
            return IsNull(left, negated)
        negated = self.accept("NOT")
        if self.accept("IN"):
            return self.membership(self.as_value(left, start), negated)
        if self.accept("LIKE"):
            return self.likeness(self.as_value(left, start), negated)
        if negated:
            raise self.unexpected("IN or LIKE after NOT")
        return left

    def membership(self, operand: Value, negated: bool) -> Predicate:
        self.expect("(")
        choices = [self.value(self.sum)]
        while self.accept(","):
            choices.append(self.value(self.sum))
        self.expect(")", "',' or ')'")
        return In(operand, tuple(choices), negated)

    def likeness(self, operand: Value, negated: bool) -> Predicate:
        at_pattern = self.token
        pattern = self.value(self.sum)
        if isinstance(pattern, Constant) and not isinstance(pattern.value, str | None):
            raise self.refused("the pattern of LIKE must be a text", at_pattern)
        if not self.accept("ESCAPE"):
            return Like(operand, pattern, None, negated)
        at_escape = self.token
        escape = self.value(self.sum)
        if isinstance(escape, Constant):
            if not isinstance(escape.value, str):
                raise self.refused("the escape of LIKE must be a text of one character", at_escape)
            known = pattern.value if isinstance(pattern, Constant) else None
            try:
                split_pattern(known if isinstance(known, str) else "", escape.value)
            except ValueError as exc:
                raise SqlError(str(exc), self.text, at_escape.position) from exc
        return Like(operand, pattern, escape, negated)

    # - values -

    def value(self, parse: Callable[[], Value | Predicate]) -> Value:
        start = self.token
        return self.as_value(parse(), start)

    def as_value(self, node: Value | Predicate, start: _Token) -> Value:
        if isinstance(node, Predicate):
            raise self.refused("expected a value, found a condition", start)
        return node

    def sum(self) -> Value | Predicate:
        return self.chain(("+", "-"), self.product)

    def product(self) -> Value | Predicate:
        return self.chain(("*", "/", "%"), self.signed)

    def chain(
        self, operators: tuple[str, ...], operand: Callable[[], Value | Predicate]
    ) -> Value | Predicate:
        start = self.token
        first = operand()
        if self.token.kind not in operators:
            return first
        rest = []
        while self.token.kind in operators:
            operator = self.take().kind
            rest.append((operator, self.value(operand)))
        return Arithmetic(self.as_value(first, start), tuple(rest))

    def signed(self) -> Value | Predicate:
        if self.token.kind not in ("+", "-"):
            return self.primary()
        operator = self.take().kind
        if operator == "-" and self.token.value == _INT64 and self.token.kind == "integer":
            # The one integer that exists only with its sign.
            self.take()
            return Constant(-_INT64)
        return Unary(operator, self.value(lambda: self.nested(self.signed)))

    def primary(self) -> Value | Predicate:
        token = self.token
        if token.kind in ("name", "delimited"):
            if token.kind == "name" and self.follows("("):
                return self.call()
            return self.named()
        if token.kind in ("integer", "number", "string"):
            if token.kind == "integer" and isinstance(token.value, int) and token.value >= _INT64:
                raise self.refused(f"{token.value} does not fit a 64-bit integer", token)
            self.take()
            return Constant(token.value)
        if token.kind in ("TRUE", "FALSE"):
            self.take()
            return Constant(token.kind == "TRUE")
        if self.accept("NULL"):
            return Constant(None)
        if self.accept("("):
            node = self.nested(self.disjunction)
            self.expect(")", "an operator or ')'")
            return node
        if self.accept("EXISTS"):
            self.expect("(")
            found = Exists(self.named())
            self.expect(")")
            return found
        if token.kind == "parameter":
            if token.value not in self.parameters:
                raise self.refused(f"the parameter @{token.value} has no value", token)
            self.take()
            return Parameter(str(token.value))
        raise self.unexpected("a value or a condition")

    def call(self) -> Value:
        token = self.take()
        name = str(token.value).lower()
        self.expect("(")
        if name == "newid":
            self.expect(")")
            return NewId()
        if name not in ("property", "p"):
            raise self.refused(
                f"there is no function {token.value!r}; there are newid(), property(name) and p(name)", token
            )
        argument = self.value(lambda: self.nested(self.sum))
        self.expect(")", "an operator or ')'")
        return PropertyCall(argument)

    def named(self) -> Property:
        token = self.token
        scope = ""
        if token.kind == "name" and self.follows("."):
            scope = str(token.value).lower()
            if scope not in ("sys", "user"):
                raise self.refused(f"unknown scope {token.value!r}; a scope is sys or user", token)
            self.take()
            self.take()
            token = self.token
        if token.kind in _KEYWORDS:
            word = self.text[token.position : token.end]
            raise self.refused(f"{word} is a keyword; write a property of that name [{word}]", token)
        if token.kind not in ("name", "delimited"):
            raise self.unexpected("the name of a property")
        self.take()
        name = str(token.value)
        if scope != "sys":
            return UserProperty(name)
        if name.lower() not in SYSTEM_PROPERTIES:
            known = ", ".join(sorted(SYSTEM_PROPERTIES))
            raise self.refused(
                f"there is no system property {name!r}; there are, in any case, {known}", token
            )
        return SystemProperty(SYSTEM_PROPERTIES[name.lower()])

    # - statements -

    def statements(self) -> tuple[Statement, ...]:
        found = [self.statement("SET or REMOVE")]
        while True:
            # "Semicolon is optional" (service-bus-messaging-sql-rule-action).
            expected = "SET, REMOVE or the end"
            if not self.accept(";"):
                expected = f"an operator, ';', {expected}"
            if self.token.kind == "end":
                return tuple(found)
            if len(found) == MAX_STATEMENTS:
                raise self.refused(f"an action has at most {MAX_STATEMENTS} statements", self.token)
            found.append(self.statement(expected))

    def statement(self, expected: str) -> Statement:
        if self.accept("SET"):
            at_property = self.token
            target = self.named()
            if isinstance(target, SystemProperty) and target.name not in SETTABLE:
                raise self.refused("this system property cannot be set", at_property)
            self.expect("=")
            return Set(target, self.value(self.sum))
        if self.accept("REMOVE"):
            at_property = self.token
            target = self.named()
            if isinstance(target, SystemProperty):
                raise self.refused("a system property cannot be removed; SET it to NULL", at_property)
            return Remove(target)
        raise self.unexpected(expected)
