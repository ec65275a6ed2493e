"""Reading metrics pages: of engines, and of peers that send anything."""

import time

import pytest

from garrison.engines import registry
from garrison.engines.metrics import MetricsPage, Reading, Throughput, read_metrics, throughput


def page_of(name: str) -> MetricsPage:
    page = registry.engine(name).metrics_page()
    assert page is not None
    return page


VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="acme/tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="acme/tiny"} 1.0
vllm:num_requests_waiting{engine="0",model_name="a} 9 \\"b\\" {c"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 77.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5 1700000000000
vllm:prompt_tokens_total{engine="0"} 100.0
vllm:prompt_tokens_created{engine="0"} 1.7e+09
vllm:generation_tokens_total{engine="0"} 1.5e+06
process_start_time_seconds 1790000000.25
process_start_time_seconds 1790000003.5
"""


def test_samples_of_several_engine_cores_are_put_together() -> None:
    assert read_metrics(VLLM, page_of("vllm")) == Reading(
        running=3,
        waiting=4,
        kv_cache=0.5,
        prompt_tokens=100.0,
        generated_tokens=1_500_000.0,
        started_at=1790000003.5,
    )


def test_the_older_name_of_the_cache() -> None:
    page = page_of("vllm")
    assert read_metrics('vllm:gpu_cache_usage_perc{m="a"} 0.75\n', page).kv_cache == 0.75
    both = "vllm:gpu_cache_usage_perc 0.75\nvllm:kv_cache_usage_perc 0.5\n"
    assert read_metrics(both, page).kv_cache == 0.5


def test_what_llama_cpp_says() -> None:
    text = (
        "# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 12\n"
        "llamacpp:tokens_predicted_total 1.23457e+06\nllamacpp:requests_processing 1\nllamacpp:requests_deferred 3\n"
    )
    expected = Reading(running=1, waiting=3, prompt_tokens=12.0, generated_tokens=1_234_570.0)
    assert read_metrics(text, page_of("llama_cpp")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>vllm:num_requests_running 3</html>",
        "vllm:num_requests_running NaN\n",
        "vllm:num_requests_running +Inf\n",
        "vllm:num_requests_running -1\n",
        "vllm:num_requests_running 1e300\n",
        "vllm:num_requests_running many\n",
        "vllm:num_requests_running\n",
        "vllm:num_requests_running_now 3\n",
        "Xvllm:num_requests_running 3\n",
        '# vllm:num_requests_running{m="a"} 3\n',
        "vllm:kv_cache_usage_perc 1.5\n",
        "process_start_time_seconds 1e12\n",
    ],
)
def test_what_cannot_be_right_is_missing(text: str) -> None:
    assert read_metrics(text, page_of("vllm")) == Reading()


def test_a_page_without_names_reads_nothing() -> None:
    assert read_metrics(VLLM, MetricsPage()) == Reading()


@pytest.mark.parametrize("piece", ["vllm:num_requests_running{", "}", "{}", "vllm:num_requests_running{a} \n", "} 1 "])
def test_the_time_to_read_grows_with_the_length_only(piece: str) -> None:
    text = "vllm:num_requests_running{" + piece * (4_000_000 // len(piece))
    since = time.process_time()
    read_metrics(text, page_of("vllm"))
    assert time.process_time() - since < 5.0


class TestThroughput:
    BEFORE = Reading(prompt_tokens=100.0, generated_tokens=50.0, started_at=1.0)

    def test_it_is_the_growth_of_the_counters(self) -> None:
        after = Reading(prompt_tokens=300.0, generated_tokens=150.0, started_at=1.0)
        assert throughput(self.BEFORE, after, 2.0) == Throughput(100.0, 50.0)

    def test_it_is_unknown_across_a_restart(self) -> None:
        after = Reading(prompt_tokens=300.0, generated_tokens=150.0, started_at=2.0)
        assert throughput(self.BEFORE, after, 2.0) == Throughput(None, None)

    def test_a_counter_that_fell_is_a_restart_that_was_not_told(self) -> None:
        before, after = Reading(generated_tokens=50.0), Reading(generated_tokens=20.0)
        assert throughput(before, after, 2.0) == Throughput(None, None)

    def test_no_time_is_no_rate(self) -> None:
        assert throughput(self.BEFORE, self.BEFORE, 0.0) == Throughput(None, None)
