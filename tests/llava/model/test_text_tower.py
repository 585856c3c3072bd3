"""The text half of a vision tower against transformers' own, loaded beside a checkpoint that lacks it."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
)

from llava.model.builder import load_pretrained_model
from llava.model.text_tower import pieces
from llava.model.tower import VisionTower
from llava.video_model import LlavaVideoModel
from stgridpool import Scorer
from stgridpool.evidence import FrameVectors, JointPatches, Question
from stgridpool.timing import StageTimer

GEOMETRY = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 7,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 9,
    "max_position_embeddings": 6,
    "eos_token_id": 7,
}
WORDS = ["what", "is", "red", "blue", "here", "?", "[start]", "[end]", "[pad]"]
PIXELS = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def tokenizer_of(template):
    """A word is a token; `template` says what stands around a text."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(word, WORDS.index(word)) for word in ("[start]", "[end]")]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[pad]", eos_token="[end]")


def randomised(model):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model.eval()


@pytest.fixture
def clip(tmp_path):
    """A whole CLIP model and its folder."""
    text, vision = {**TEXT, "projection_dim": 10}, {**GEOMETRY, "projection_dim": 10}
    whole = randomised(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=10)))
    whole.save_pretrained(tmp_path / "clip")
    tokenizer_of("[start] $A [end]").save_pretrained(tmp_path / "clip")
    return whole, tmp_path / "clip"


@pytest.fixture
def siglip(tmp_path):
    """A whole SigLIP model and its folder."""
    whole = randomised(SiglipModel(SiglipConfig(text_config={**TEXT, "projection_size": 24}, vision_config=GEOMETRY)))
    whole.save_pretrained(tmp_path / "siglip")
    tokenizer_of("$A [end]").save_pretrained(tmp_path / "siglip")
    return whole, tmp_path / "siglip"


@pytest.fixture(scope="module")
def checkpoint_of(write_checkpoint, tmp_path_factory):
    """Function that writes a LLaVA checkpoint whose tower is half of a whole model, once for CLIP and for SigLIP."""
    folders = {}

    def checkpoint_of(whole):
        half = CLIPVisionModel if isinstance(whole, CLIPModel) else SiglipVisionModel
        if half in folders:
            return folders[half]
        tower = tmp_path_factory.mktemp("half") / "tower"
        half(whole.config.vision_config).save_pretrained(tower)
        prefix = "vision_model."
        weights = {name: value for name, value in whole.state_dict().items() if name.startswith(prefix)}
        weights = {name.removeprefix(prefix): value.contiguous() for name, value in weights.items()}
        save_file(weights, tower / "model.safetensors", metadata={"format": "pt"})
        folders[half], _ = write_checkpoint(
            tower.parent / "checkpoint",
            without="model.vision_tower",
            mm_vision_tower=str(tower),
            mm_hidden_size=24,
            mm_tunable_parts="mm_mlp_adapter",
            image_aspect_ratio="pad",
        )
        return folders[half]

    return checkpoint_of


@pytest.fixture
def load(checkpoint_of):
    """Loads the checkpoint of a whole model, whose weights are the same in all tests."""

    def load(whole, **options):
        options = {"torch_dtype": "float32", "attn_implementation": "sdpa"} | options
        tokenizer, model, processor, _ = load_pretrained_model(str(checkpoint_of(whole)), None, "x", **options)
        return LlavaVideoModel(model, tokenizer, processor)

    return load


@dataclass(frozen=True)
class Asked(Scorer):
    """CDPruner's relevance: the patches least like the question."""

    @property
    def needs(self):
        return frozenset({Question("tower"), JointPatches()})

    def score(self, tokens, evidence):
        words, patches = evidence[Question("tower")], evidence[JointPatches()]
        assert len(patches) == len(tokens)
        return -torch.cosine_similarity(patches[:, None], words[None], dim=-1).mean(dim=1)


def test_clip_puts_patches_and_the_question_into_one_space(load, clip):
    whole, folder = clip
    model = load(whole, text_tower=str(folder), compressor=Asked(tokens=2))  # it may ask as soon as it is there
    features, evidence = model.encode(PIXELS, [JointPatches()], StageTimer("cpu"))
    with torch.no_grad():
        vision = whole.vision_model
        hidden = vision(PIXELS, output_hidden_states=True).hidden_states[-2]
        expected = whole.visual_projection(vision.post_layernorm(hidden))[:, 1:].flatten(0, 1)  # (2 * 16, 10)
        ids = torch.tensor([[6, 0, 1, 3, 7, 8]])
        text = whole.text_projection(whole.text_model(ids[:, :5]).pooler_output)
    torch.testing.assert_close(features, hidden[:, 1:])
    torch.testing.assert_close(evidence[JointPatches()], expected, atol=1e-5, rtol=1e-5)
    question = model.evidence("what is blue", [Question("tower")])[Question("tower")]
    torch.testing.assert_close(question, text, atol=1e-5, rtol=1e-5)
    video = model.compress(features, {**evidence, Question("tower"): question}, StageTimer("cpu"))
    assert video.num_tokens == 2


def test_siglip_puts_frames_and_the_question_into_one_space(load, siglip):
    whole, folder = siglip
    model = load(whole, text_tower=str(folder), pool_head=str(folder))
    _, evidence = model.encode(PIXELS, [FrameVectors("pool_head")], StageTimer("cpu"))
    question = model.evidence("what is red", {Question("tower")})[Question("tower")]
    with torch.no_grad():
        ids = torch.tensor([[0, 1, 2, 7, 8, 8]])  # the vector is that of the last place, so that padding counts
        expected = whole(input_ids=ids, pixel_values=PIXELS)
    normalised = torch.nn.functional.normalize
    torch.testing.assert_close(normalised(question, dim=-1), expected.text_embeds, atol=1e-5, rtol=1e-5)
    frames = normalised(evidence[FrameVectors("pool_head")], dim=-1)
    torch.testing.assert_close(frames, expected.image_embeds, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("[start] $A [end]", "is red", [[6, 1, 2, 7, 8]]),
        ("[start] $A [end]", "is red blue is here", [[6, 1, 2, 3, 7], [6, 1, 4, 7, 8]]),
        ("[start] $A [end]", "is red blue", [[6, 1, 2, 3, 7]]),
        ("[start] $A [end]", "", [[6, 7, 8, 8, 8]]),
        ("$A [end]", "is red blue is here", [[1, 2, 3, 1, 7], [4, 7, 8, 8, 8]]),
        ("$A [end]", "", [[7, 8, 8, 8, 8]]),
        ("$A", "is is is is is is", [[1, 1, 1, 1, 1], [1, 8, 8, 8, 8]]),
    ],
)
def test_long_texts_are_cut_into_pieces_that_begin_and_end_as_texts_do(template, text, expected):
    assert pieces(tokenizer_of(template), text, 5) == expected


def test_every_piece_of_a_question_has_a_vector(load, clip):
    whole, folder = clip
    model = load(whole, text_tower=str(folder), torch_dtype="bfloat16")
    long, short = (model.evidence(text, [Question("tower")]) for text in ("red " * 9, "red red red red"))
    assert long[Question("tower")].dtype == torch.float32
    assert long[Question("tower")].shape == (3, 10)
    torch.testing.assert_close(long[Question("tower")][:1], short[Question("tower")])
    assert not any("text" in name for name in model.language_model.state_dict())


def test_both_halves_are_told_apart_by_their_weights(load, clip, tmp_path):
    whole, folder = clip
    one = load(whole, text_tower=str(folder)).identity()
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"] = weights["text_projection.weight"] + 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    other = load(whole, text_tower=str(folder)).identity()
    assert {name for name in one if one[name] != other[name]} == {"text_tower"}
    assert load(whole).identity()["text_tower"] is None


def test_a_method_that_asks_without_it_is_refused(load, clip, siglip):
    model = load(clip[0])
    message = "asks for the text half of the vision tower .*tower, which LLaVA's checkpoints leave out: load the model "
    for need in (Question("tower"), JointPatches()):
        with pytest.raises(ValueError, match=rf"{need!r}".replace("(", r"\(").replace(")", r"\)") + f" {message}"):
            model.language_model.get_vision_tower().check_needs([need])
    with pytest.raises(ValueError, match=message):
        model.compressor = Asked(tokens=2)
    with pytest.raises(ValueError, match=r"Question\(space='tower'\) asks for the text half"):
        model.evidence("what", [Question("tower")])
    with pytest.raises(ValueError, match=r"Asked\(.* needs JointPatches\(\); this model offers AllFrames"):
        load(siglip[0], text_tower=str(siglip[1])).compressor = Asked(tokens=2)


def test_other_models_are_refused(load, clip, siglip, tmp_path):
    with pytest.raises(ValueError, match="text_tower='/nowhere/clip' names a folder that is not there: put the model"):
        load(clip[0], text_tower="/nowhere/clip")
    narrow = randomised(CLIPModel(CLIPConfig(text_config=TEXT, vision_config={**GEOMETRY, "hidden_size": 12})))
    narrow.save_pretrained(tmp_path / "narrow")
    with pytest.raises(
        ValueError, match=r"narrow' does not fit .* have width 24: its image encoder has width 12; name"
    ):
        load(clip[0], text_tower=str(tmp_path / "narrow"))
    with pytest.raises(ValueError, match="text_tower='x': only SigLIP and CLIP towers may have a text half, not hub"):
        VisionTower.load_text_tower(SimpleNamespace(name="hub"), "x")
    with pytest.raises(ValueError, match="lacks weights of"):
        load(clip[0], text_tower=str(siglip[1]))
    (clip[1] / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"the tokenizer of text_tower=.*clip' cannot be read"):
        load(clip[0], text_tower=str(clip[1]))
