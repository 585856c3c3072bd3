"""Published tables as runs: each cell has its settings, and every run can be built."""

import pytest

from lmms_eval_stgridpool.reproduction.tables import WHOLE, cells, cells_for, source_of, table_names
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.run.model_args import parse_model_args
from lmms_eval_stgridpool.run.native_arguments import NativeArguments
from lmms_eval_stgridpool.run.offline_tasks import task_manager
from stgridpool import build_compressor
from stgridpool.evidence import missing_part
from stgridpool.published import published


def find(name, row, benchmark, checkpoint="", **options):
    (cell,) = [
        one
        for one in cells(name, **options)
        if (one.row, one.benchmark) == (row, benchmark) and one.checkpoint.endswith(checkpoint)
    ]
    return cell


def test_the_main_table_of_st_gridpool_keeps_newlines_for_video_mme_alone():
    """Accuracies from the paper's table, settings from the released code: README.md, settings for each number."""
    cell = find("st_gridpool/main", "st_gridpool", "videomme", "LLaVA-Video-7B-Qwen2")
    assert (cell.checkpoint, cell.task, cell.published) == ("lmms-lab/LLaVA-Video-7B-Qwen2", "videomme", 64.2)
    assert (cell.compressor, cell.options, cell.words()) == ("st_gridpool", {}, ["max_frames_num=64"])
    cell = find("st_gridpool/main", "st_gridpool", "longvideobench", "llava-onevision-qwen2-7b-ov")
    assert (cell.task, cell.published) == ("longvideobench_val_v", 56.7)
    assert cell.words() == ["max_frames_num=64", "mm_newline_position=no_token"]
    cell = find("st_gridpool/main", WHOLE, "longvideobench", "LLaVA-Video-7B-Qwen2")
    assert (cell.compressor, cell.words(), cell.published) == ("average", ["max_frames_num=64"], 58.2)


def test_a_table_of_sttm_has_its_frames_its_presets_and_its_tasks():
    """Table 11; VNBench has 180 frames, 35,280 tokens."""
    cell = find("sttm/llava-video-7b", "sttm 30 %", "vnbench")
    assert (cell.checkpoint, cell.published) == ("lmms-lab/LLaVA-Video-7B-Qwen2-Video-Only", 76.0)
    assert (cell.task, cell.options) == ("vnbench_sttm", {"preset": "llava-video-7b/vnbench/30"})
    assert cell.arguments == {
        "max_frames_num": 180,
        "fps": 1,
        "mm_newline_position": "no_token",
        "add_time_instruction": True,
        "max_length": 65536,
        "torch_dtype": "bfloat16",
    }
    assert cell.words()[-1] == 'compressor_args={"preset":"llava-video-7b/vnbench/30"}'
    cell = find("sttm/llava-video-7b", "fastv 50 %", "mlvu")
    assert (cell.arguments["max_frames_num"], cell.options, cell.published) == (128, {"retention": 0.5}, 68.3)
    assert find("sttm/llava-video-7b", "dycoke_ttm 30 %", "nextqa").options == {"preset": "sttm", "prune": 0.925}
    merged = {"retention": 0.5, "scope": "video", "preset": "released"}  # as STTM's baseline merges
    for table in ("llava-video-7b", "llava-onevision-7b", "llava-video-72b", "qwen2-vl-7b"):
        assert find(f"sttm/{table}", "tome 50 %", "videomme").options == merged
        assert find(f"sttm/{table}", "tome 30 %", "videomme").options == {**merged, "retention": 0.3}
        assert {cell.arguments["torch_dtype"] for cell in cells(f"sttm/{table}")} == {"bfloat16"}
    for table in ("llava-video-7b", "llava-onevision-7b"):  # cost 0.5 and 0.3 of the released code
        for cost in (0.5, 0.3):
            options = find(f"sttm/{table}", f"framefusion {100 * cost:g} %", "nextqa").options
            assert options == {"layer_average": cost, "preset": "released"}
    assert find("sttm/llava-video-72b", "sttm 50 %", "videomme").published == 71.4
    cell = find("sttm/qwen2-vl-7b", "sttm 30 %", "vnbench")
    assert (cell.published, cell.options) == (66.7, {"preset": "qwen2-vl-7b/vnbench/30"})
    assert (cell.arguments["max_frames_num"], cell.arguments["fps"]) == (360, 2)
    seconds = 120  # seven of eight questions are about shorter videos
    most_pixels = min(768 * 28 * 28, 128_000 * 28 * 28 * 0.9 / (2 * seconds) * 2)
    assert (cell.arguments["min_pixels"], cell.arguments["max_pixels"]) == (128 * 28 * 28, most_pixels)


def test_a_method_gets_the_budget_as_its_source_counts_it():
    assert find("flashvid/llava-onevision-7b", "fastv 10 %", "mvbench").options == {"layer_average": 0.1}
    assert find("flashvid/llava-onevision-7b", "visionzip 10 %", "mvbench").options == {"retention": 0.1}
    cell = find("flashvid/llava-video-7b", "flashvid 20 %", "egoschema")
    assert (cell.compressor, cell.options) == (
        "average+flashvid",
        {"flashvid": {"layer_average": 0.2, "preset": "released"}},
    )


def test_the_method_of_a_source_runs_as_its_released_code():
    for table, row, method in (
        ("framefusion/llava-video-7b", "framefusion 30 %", "framefusion"),
        ("holitom/llava-onevision-7b", "holitom 25 %", "holitom"),
        ("holitom/llava-video-7b", "holitom 15 %", "average+holitom"),
        ("flashvid/llava-onevision-7b", "flashvid 25 %", "flashvid"),
    ):
        cell = find(table, row, "videomme")
        assert cell.compressor == method
        assert cell.options.get("holitom", cell.options)["preset"] == "released"
    assert "preset" not in find("framefusion/llava-video-7b", "fastv 30 %", "videomme").options


def test_holitom_has_its_published_threshold_at_a_tenth_of_the_tokens():
    found = {one.row: one.options for one in cells("holitom/llava-onevision-7b")}
    assert found["holitom 10 %"] == {"retention": 0.1, "threshold": 0.65, "preset": "released"}
    assert found["holitom 15 %"] == {"retention": 0.15, "preset": "released"}


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("holitom/llava-onevision-7b", "fastvid 10 %"),
        ("flashvid/llava-onevision-7b", "fastvid 25 %"),
        ("flashvid/llava-video-7b", "fastvid 20 %"),
    ],
)
def test_fastvid_gets_the_pooling_head_of_the_tower_that_both_checkpoints_name(table, row):
    head = "google/siglip-so400m-patch14-384"  # their mm_vision_tower; without its head FastVID is refused
    assert find(table, row, "videomme").arguments["pool_head"] == head
    assert "pool_head" not in find(table, row.replace("fastvid", "visionzip"), "videomme").arguments


def test_the_table_of_nvila_has_its_presets_and_the_pooling_of_the_checkpoint():
    """The paper's comparison at 30 % of the tokens."""
    cell = find("st_gridpool/nvila", "fastv 30 %", "longvideobench")
    assert (cell.checkpoint, cell.published) == ("Efficient-Large-Model/NVILA-8B-Video", 53.0)
    assert (cell.compressor, cell.options) == ("fastv", {"preset": "nvila/30"})
    cell = find("st_gridpool/nvila", WHOLE, "egoschema")
    assert (cell.compressor, cell.options, cell.published) == ("none", {"own_pooling": True}, 52.9)
    cell = find("st_gridpool/nvila", "st_gridpool", "videomme")
    assert (cell.options, cell.published, cell.words()) == ({}, 59.9, ["max_frames_num=64"])


def test_an_ablation_has_a_row_for_each_preset_and_no_number_that_we_know():
    found = cells("st_gridpool/ablation-kernel")
    assert [(one.row, one.options, one.published) for one in found] == [
        (f"ablation/kernel_{size}", {"preset": f"ablation/kernel_{size}"}, None) for size in (1, 2, 3, 4)
    ]
    # 64 * 27 * 27 = 46656 tokens without pooling, 64 * 13 * 13 = 10816 with windows of 2.
    assert [one.arguments.get("max_length") for one in found] == [65536, None, None, None]
    parts = [(one.row, one.compressor) for one in cells("st_gridpool/ablation-parts")]
    assert parts[0] == (WHOLE, "bilinear")
    assert [name for _, name in parts[1:]] == ["st_gridpool"] * 3


@pytest.mark.parametrize("name", table_names())
def test_every_run_of_a_table_can_be_built_and_every_number_is_there(name):
    found = cells(name)
    for cell in found:
        given = [f"pretrained={cell.checkpoint}", f"compressor={cell.compressor}", *cell.words()]
        kind = NativeArguments if cell.checkpoint.startswith("Qwen/") else LlavaArguments
        arguments = kind.parse(parse_model_args(",".join(given)))
        compressor = build_compressor(cell.compressor, **cell.options)
        assert arguments.build_compressor() == compressor
        parts = {missing_part(need) for need in compressor.needs} - {None}
        assert parts <= cell.arguments.keys()
    if source_of(name):
        models = {cell.checkpoint.split("/")[1] for cell in found}
        numbers = [one for one in published() if one.source == source_of(name) and one.checkpoint in models]
        wholes = {(one.checkpoint, one.benchmark) for one in numbers}
        assert numbers
        assert len(found) == len(numbers) + len(wholes)


def test_tasks_on_disk_stand_in_for_those_of_lmms_eval():
    names = {cell.benchmark: cell.task for cell in cells("st_gridpool/main", on_disk=True)}
    assert names == {
        "videomme": "videomme_local",
        "longvideobench": "longvideobench_val_v_local",
        "egoschema": "egoschema_submission",
        "nextqa": "nextqa_mc_test_local",
        "mvbench": "mvbench_local",
    }
    ours = {cell.task for cell in cells("sttm/llava-video-7b")} | set(names.values())
    assert ours <= set(task_manager(ours).all_tasks)


def test_another_checkpoint_takes_the_cells_of_its_name_or_the_first():
    found = cells("st_gridpool/main")
    for folder, name in (
        ("models/llava-onevision-qwen2-7b-ov", "lmms-lab/llava-onevision-qwen2-7b-ov"),
        ("scripts/nano/checkpoint", "lmms-lab/LLaVA-Video-7B-Qwen2"),
    ):
        chosen = cells_for(folder, found)
        assert len(chosen) == 10
        assert {cell.checkpoint for cell in chosen} == {name}


def test_a_table_that_does_not_exist_is_suggested():
    with pytest.raises(ValueError, match=r"no table 'sttm/llava-video-7'.*sttm/llava-video-7b"):
        cells("sttm/llava-video-7")
