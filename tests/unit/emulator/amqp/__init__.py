"""Tests of the AMQP engine: pure, two real ends and a fake wire."""
