"""Whether the load (load.py) notices what it is to notice: events that are lost, doubled or invented."""
import pytest

from load import Load, verify


@pytest.fixture
def sent(server):
    """A clean load that has ended."""
    with Load([server.url], n=2) as load:
        load.wait_acked(200)
    server.settle()
    assert (verdict := verify(server, load)).clean and verdict.acked == verdict.present > 200, str(verdict)
    return load


def last(load: Load):
    client = load.clients[0]
    return client, client.series[0]


def test_a_series_that_is_gone_is_lost(server, sent):
    client, series = last(sent)
    assert server.http.delete("/series", params={"series": series.name}).status_code == 204
    server.settle()
    found = verify(server, sent)
    assert found.lost == series.acked * client.per_batch and not found.clean


def test_a_batch_that_was_acknowledged_and_is_not_there_is_lost(server, sent):
    client, series = last(sent)
    series.sent, series.acked = series.sent + 2, series.acked + 1
    assert verify(server, sent).lost == client.per_batch
    # Also when one in doubt behind it has arrived, so that the count is right.
    server.post_batch(client.rows(series, series.sent - 1))
    server.settle()
    found = verify(server, sent)
    assert found.lost == client.per_batch and found.present == found.acked and found.differ


def test_one_in_doubt_may_be_there_or_not(server, sent):
    client, series = last(sent)
    series.sent += 1
    assert verify(server, sent).clean
    server.post_batch(client.rows(series, series.sent - 1))
    server.settle()
    found = verify(server, sent)
    assert found.clean and found.present == found.acked + client.per_batch, str(found)


def test_a_batch_that_is_there_twice_is_noticed(server, sent):
    client, series = last(sent)
    rows = client.rows(series, series.sent - 1)
    server.post_batch(rows)  # the ids are told apart
    server.settle()
    assert verify(server, sent).duplicates == len(rows)
    server.post_batch([{k: v for k, v in row.items() if k != "id"} for row in rows])
    server.settle()
    found = verify(server, sent)
    assert found.phantoms == len(rows) and found.differ


def test_a_part_of_a_batch_is_noticed(server, sent):
    client, series = last(sent)
    series.sent += 1
    server.post_batch(client.rows(series, series.sent - 1)[:5])
    server.settle()
    assert verify(server, sent).torn == 1
