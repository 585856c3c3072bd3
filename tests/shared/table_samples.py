"""Samples of the task `my_videos`, made up for tests."""


def sample(number, video, answer="B", score=1.0, seconds=1.0, kept=10, failed=False, metric="accuracy"):
    """A sample as lmms-eval writes it: a prompt of 5 text tokens, and visual tokens of which `kept` stay on average."""
    facts = {
        "failed": failed,
        "input_tokens": 25,
        "visual_tokens": 16,
        "newline_tokens": 4,
        "kept_tokens": {"layer_average_with_newlines": kept},
        "seconds": {"decode": 100.0, "compress": 0.25, "prefill": seconds - 0.25},
    }
    entry = {"videoID": video, "pred_answer": answer} | ({} if metric == "not_scored" else {"score": score})
    return {"doc_id": number, "filtered_resps": answer, "token_counts": [facts], metric: entry}
