"""A run over a folder of odd files: what can be read is answered, the rest is reported with its reason."""

import re

import pytest
from lmms_eval.api.instance import unwrap_generation_output


def facts_of(result):
    return unwrap_generation_output(result)[1].to_dict()


def test_odd_videos_are_answered_or_reported(make_model, ask, odd_videos):
    names = [*odd_videos.readable, *odd_videos.unreadable]
    model = make_model(force_sample=True)
    settings = {"gen_kwargs": {"max_new_tokens": 1}}
    results = ask(model, "generate_until", [{"visuals": [odd_videos.folder / name]} | settings for name in names])
    facts = {name: facts_of(result) for name, result in zip(names, results, strict=True)}
    for name in odd_videos.readable:
        assert (facts[name]["failed"], facts[name]["failure"]) == (False, None), name
        assert facts[name]["visual_tokens"] > 0
    model.clean()
    reported = model.run_record["failed_videos"]
    for name, reason in odd_videos.unreadable.items():
        assert facts[name]["failed"]
        assert re.search(rf"{name}: {reason}", facts[name]["failure"])
        assert re.search(reason, reported[str(odd_videos.folder / name)])
    assert model.run_record["requests"] == len(names)
    assert model.run_record["failed_requests"] == len(reported) == len(odd_videos.unreadable)


def test_a_run_goes_on_after_videos_that_hang_crash_or_take_too_much_memory(make_model, ask, misbehave, tmp_path):
    misbehave()
    reasons = {
        "crash.mp4": "the decoder crashed with SIGSEGV",
        "greedy.mp4": "reading takes more than 0.5 GB of memory",
        "missing.mp4": "no such file",
    }
    documents = [{"visuals": [tmp_path / name]} for name in ["stopped.mp4", *reasons]]
    stopped = ask(make_model(decode_timeout_s=0.5), "generate_until", documents[:1])
    others = ask(make_model(decode_memory_gb=0.5), "generate_until", documents[1:])
    reasons = {"stopped.mp4": "reading took longer than 0.5 s"} | reasons
    for result, (name, reason) in zip([*stopped, *others], reasons.items(), strict=True):
        assert facts_of(result)["failed"]
        assert f"{name}: {reason}" in facts_of(result)["failure"]


def test_what_is_not_a_fault_of_a_video_ends_the_run(make_model, ask, misbehave, tmp_path):
    misbehave()
    for name in ("import.mp4", "killed.mp4"):
        with pytest.raises(SystemExit) as ending:
            ask(make_model(), "generate_until", [{"visuals": [tmp_path / name]}])
        assert ending.value.code == 1


@pytest.mark.slow
def test_two_processes_survive_files_that_take_all_memory_or_never_open(evaluate):
    """Ranks that opened the files themselves hung or were killed before the first answer."""
    done = evaluate("traps", 2, decode_memory_gb=0.3)
    assert done.statuses == [0, 0], done.messages
    failures = [done.samples["traps", row]["token_counts"][0]["failure"] for row in range(5)]
    assert [failure is None for failure in failures] == [True, False, True, False, True]
    assert "huge.mp4: damaged: it lists 10000000 frames and has " in failures[1]
    assert "waiting.mp4: not a video container" in failures[3]
