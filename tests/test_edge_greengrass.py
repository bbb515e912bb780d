"""The real Greengrass client against a double of the nucleus with nucleus lite's limits."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("awsiot", reason="this environment has no awsiotsdk")

from ipc_double import MAX_IN_FLIGHT, IpcDouble
from sending import TOPICS, until

from edge.errors import NotAuthorizedError, NucleusError, RefusedError, TransportError
from edge.transports.greengrass import GreengrassTransport
from edge.transports.nucleus import Nucleus

LOCAL = {TOPICS.trigger: TOPICS.local_trigger, TOPICS.output: TOPICS.local_output}


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IpcDouble]:
    with IpcDouble(tmp_path, {"line": "cookies", "deadline_ms": "500"}) as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def nucleus(double: IpcDouble) -> Iterator[Nucleus]:
    connected = Nucleus.connect()
    yield connected
    connected.close()


@pytest.fixture
def transport(nucleus: Nucleus) -> Iterator[GreengrassTransport]:
    started = GreengrassTransport(nucleus, LOCAL)
    started.start()
    yield started
    started.close()


def test_a_message_is_taken_by_iot_core_before_publish_returns(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    transport.publish(TOPICS.results, b'{"a":1}', 10)
    assert double.published == [(TOPICS.results, b'{"a":1}')]
    assert transport.state().connected
    assert not transport.state().fatal


def test_many_threads_never_have_more_than_one_message_in_flight(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    double.answer_delay_s = 0.005
    threads = [
        threading.Thread(target=transport.publish, args=(TOPICS.results, b"x" * 4000, 30))
        for _ in range(2 * MAX_IN_FLIGHT)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(double.published) == 2 * MAX_IN_FLIGHT
    assert double.most_in_flight == 1


def test_the_double_has_the_limits_of_nucleus_lite(double: IpcDouble, nucleus: Nucleus) -> None:
    double.answer_delay_s = 0.2
    futures = [
        nucleus.client.publish_to_iot_core_async(topic_name="t", qos="1", payload=b"x")
        for _ in range(MAX_IN_FLIGHT + 3)
    ]
    failed = [future for future in futures if future.exception(10) is not None]
    assert len(failed) == 3
    double.answer_delay_s = 0.1
    futures = [nucleus.client.publish_to_iot_core_async(topic_name="t", qos="1", payload=b"x" * 6000) for _ in range(3)]
    assert sum(future.exception(10) is not None for future in futures) == 1
    with pytest.raises(TransportError):
        nucleus.call(
            "x", lambda: nucleus.client.publish_to_iot_core_async(topic_name="t", qos="1", payload=b"x" * 7500)
        )
    until(lambda: nucleus.lost)


def test_a_message_that_would_close_the_connection_is_refused_before_it_leaves(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    with pytest.raises(RefusedError, match="want at most 5000 bytes"):
        transport.publish(TOPICS.results, b"x" * 5001, 10)
    transport.publish(TOPICS.results, b"x" * 5000, 10)
    assert [len(payload) for _, payload in double.published] == [5000]


def test_offline_is_an_error_that_may_pass_and_the_state_tells_it(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    double.online = False
    with pytest.raises(TransportError, match="offline"):
        transport.publish(TOPICS.results, b"{}", 10)
    assert "offline" in transport.state().message
    assert not transport.state().fatal
    double.online = True
    transport.publish(TOPICS.results, b"{}", 10)
    assert transport.state().message == "connected to the nucleus"


def test_a_nucleus_that_does_not_answer_is_given_up_after_the_timeout(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    double.silent = True
    with pytest.raises(TransportError, match=r"no answer in 0\.2 s"):
        transport.publish(TOPICS.results, b"{}", 0.2)
    double.silent = False
    transport.publish(TOPICS.results, b"{}", 10)


def test_a_topic_that_the_recipe_does_not_allow_is_told_apart(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    double.access_control = {}
    with pytest.raises(NotAuthorizedError, match="accessControl"):
        transport.publish(TOPICS.results, b"{}", 10)
    with pytest.raises(NotAuthorizedError, match="accessControl"):
        transport.publish(TOPICS.output, b"{}", 10)


def test_a_restarted_nucleus_is_fatal_and_the_old_token_is_refused(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    transport.publish(TOPICS.results, b"{}", 10)
    double.restart()
    until(lambda: transport.state().fatal)
    assert not transport.state().connected
    assert "only a new process" in transport.state().message
    with pytest.raises(NucleusError):
        transport.publish(TOPICS.results, b"{}", 10)
    with pytest.raises(NucleusError, match="SVCUID holds only"):
        Nucleus.connect(timeout_s=5)


def test_a_nucleus_that_goes_in_the_middle_of_a_message_is_fatal(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    double.answer_delay_s = 30
    threading.Timer(0.2, double.restart).start()
    with pytest.raises(NucleusError):
        transport.publish(TOPICS.results, b"{}", 20)
    assert transport.state().fatal


def test_a_wrong_token_is_refused(double: IpcDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVCUID", "somebody-else")
    with pytest.raises(NucleusError, match="does not accept this process"):
        Nucleus.connect(timeout_s=5)


def test_a_socket_that_nobody_listens_on_is_refused(double: IpcDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", "/nowhere/ipc.socket")
    with pytest.raises(NucleusError, match=r"/nowhere/ipc\.socket"):
        Nucleus.connect(timeout_s=5)


def test_outside_a_component_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SVCUID", raising=False)
    with pytest.raises(NucleusError, match="works only in a component"):
        Nucleus.connect()


def test_the_configuration_is_read_without_the_access_control(double: IpcDouble, nucleus: Nucleus) -> None:
    double.configuration["accessControl"] = {"aws.greengrass.ipc.mqttproxy": {}}
    assert nucleus.read_configuration() == {"line": "cookies", "deadline_ms": "500"}


def test_a_scalar_comes_wrapped_from_the_nucleus(double: IpcDouble, nucleus: Nucleus) -> None:
    answer = nucleus.client.get_configuration(key_path=["deadline_ms"])
    assert answer.value == {"deadline_ms": "500"}


def test_a_change_of_configuration_reaches_the_component_once(double: IpcDouble, nucleus: Nucleus) -> None:
    seen: list[dict] = []
    nucleus.on_configuration_change(seen.append, nucleus.read_configuration())
    double.update_configuration(deadline_ms=900)
    until(lambda: seen)
    double.update_configuration(deadline_ms=900)  # an event without a change
    double.update_configuration(threads="2")
    until(lambda: len(seen) == 2)
    assert seen == [
        {"line": "cookies", "deadline_ms": 900},
        {"line": "cookies", "deadline_ms": 900, "threads": "2"},
    ]


def test_a_change_between_reading_and_subscribing_is_told(double: IpcDouble, nucleus: Nucleus) -> None:
    known = nucleus.read_configuration()
    double.update_configuration(deadline_ms=900)
    seen: list[dict] = []
    nucleus.on_configuration_change(seen.append, known)
    until(lambda: seen)
    assert seen[0]["deadline_ms"] == 900


def test_a_callback_that_fails_does_not_silence_later_changes(double: IpcDouble, nucleus: Nucleus) -> None:
    seen: list[dict] = []

    def callback(configuration: dict) -> None:
        seen.append(configuration)
        raise ValueError("want a number")

    nucleus.on_configuration_change(callback, nucleus.read_configuration())
    double.update_configuration(deadline_ms="soon")
    until(lambda: len(seen) == 1)
    double.update_configuration(deadline_ms=100)
    until(lambda: len(seen) == 2)


def test_the_state_is_reported_where_the_nucleus_takes_it(
    double: IpcDouble, nucleus: Nucleus, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nucleus.report_state("RUNNING")
    assert double.states == ["RUNNING"]
    monkeypatch.setattr(double.server, "_on_UpdateState", None)
    assert not nucleus.report_state("ERRORED")


def test_triggers_come_from_iot_core_and_from_the_bus_of_the_device(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    heard: list[bytes] = []
    transport.subscribe(TOPICS.trigger, lambda topic, payload: heard.append(payload))
    until(lambda: double.subscribed("SubscribeToIoTCore") and double.subscribed("SubscribeToTopic"))
    double.send_core(TOPICS.trigger, b'{"part_id":"1"}')
    double.send_local(TOPICS.local_trigger, b'{"part_id":"2"}')
    double.send_local(TOPICS.local_trigger, {"part_id": "3"})
    double.send_core(TOPICS.trigger, b"x" * 4901)  # nucleus lite never delivers this
    until(lambda: len(heard) == 3)
    assert [json.loads(payload)["part_id"] for payload in heard] == ["1", "2", "3"]


def test_what_comes_from_iot_core_may_have_been_kept_by_the_session_of_the_nucleus(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    live: list[bytes] = []
    kept: list[bytes] = []
    transport.subscribe(
        TOPICS.trigger, lambda topic, payload: live.append(payload), lambda topic, payload: kept.append(payload)
    )
    until(lambda: double.subscribed("SubscribeToIoTCore") and double.subscribed("SubscribeToTopic"))
    double.send_core(TOPICS.trigger, b"core")
    double.send_local(TOPICS.local_trigger, b"bus")
    until(lambda: live and kept)
    assert (live, kept) == ([b"bus"], [b"core"])


def test_a_subscription_made_while_offline_stands_when_the_network_is_back(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    double.online = False
    heard: list[bytes] = []
    transport.subscribe(TOPICS.trigger, lambda topic, payload: heard.append(payload))
    until(lambda: "not subscribed" in transport.state().message)
    double.online = True
    until(lambda: double.subscribed("SubscribeToIoTCore"))
    double.send_core(TOPICS.trigger, b"{}")
    until(lambda: heard)
    until(lambda: transport.state().message == "connected to the nucleus")


def test_subscriptions_lost_without_a_word_are_renewed_after_an_outage(
    double: IpcDouble, transport: GreengrassTransport
) -> None:
    heard: list[bytes] = []
    transport.subscribe(TOPICS.trigger, lambda topic, payload: heard.append(payload))
    until(lambda: double.subscribed("SubscribeToIoTCore"))
    double.online = False
    with pytest.raises(TransportError):
        transport.publish(TOPICS.results, b"{}", 10)
    double.lose_subscriptions()
    double.online = True
    transport.publish(TOPICS.results, b"{}", 10)
    until(lambda: double.subscribed("SubscribeToIoTCore"))
    double.send_core(TOPICS.trigger, b"{}")
    until(lambda: heard)


def test_a_signal_for_the_line_stays_on_the_device(double: IpcDouble, transport: GreengrassTransport) -> None:
    transport.publish(TOPICS.output, b'{"action":"reject"}', 10)
    assert double.published_locally == [(TOPICS.local_output, b'{"action":"reject"}')]
    assert double.published == []
