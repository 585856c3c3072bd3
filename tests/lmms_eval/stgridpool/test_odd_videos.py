"""A run over a folder of odd files: what can be read is answered, the rest is reported with its reason."""

import re

from lmms_eval.api.instance import unwrap_generation_output


def facts_of(result):
    return unwrap_generation_output(result)[1].to_dict()


def test_odd_videos_are_answered_or_reported(make_model, ask, odd_videos):
    names = [*odd_videos.readable, *odd_videos.unreadable]
    model = make_model(force_sample=True)
    results = ask(model, "generate_until", [{"visuals": [odd_videos.folder / name]} for name in names])
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


def test_a_stuck_video_fails_after_its_time_and_the_run_goes_on(make_model, ask, odd_videos):
    model = make_model(decode_timeout_s=5, decode_threads=1)
    names = ["stuck.mp4", "one_frame.mp4"]
    stuck, after = ask(model, "generate_until", [{"visuals": [odd_videos.folder / name]} for name in names])
    assert "stuck.mp4: reading took longer than 5 s" in facts_of(stuck)["failure"]
    assert (facts_of(after)["failure"], facts_of(after)["frames"]) == (None, 1)
