"""What decides whether two cells are compared: what moves a validated score does, what cannot does not."""

from sahub.config.cell import compose_cell
from sahub.results.protocol import protocol_of


def test_what_moves_no_validated_score_keeps_nothing_from_being_compared() -> None:
    other = ["measure_error=off", "replay_rows=all", "trace_mib=64"]
    assert protocol_of(compose_cell([f"protocol.{one}" for one in other])) == protocol_of(compose_cell([]))


def test_what_moves_a_score_is_in_it() -> None:
    one, other = (
        protocol_of(compose_cell([])),
        protocol_of(compose_cell(["protocol.query_aware=true", "search.seed=7"])),
    )
    assert {key for key in one if one[key] != other[key]} == {"protocol.query_aware", "search.seed"}
