from benchmarks.engines import percentile, text


def test_prompts_have_the_length_asked_for_and_no_two_begin_alike():
    prompts = [text(32, salt) for salt in (*range(200), 10_000, 10_100, 15_000)]
    assert {32} == {len(prompt) for prompt in prompts}
    assert len(prompts) == len({prompt[:4] for prompt in prompts})


def test_a_percentile_of_one_value_is_that_value_and_of_none_is_nothing():
    assert (0.0, 3.0, 99.0) == (percentile([], 99), percentile([3.0], 99), percentile(list(range(101)), 99))
