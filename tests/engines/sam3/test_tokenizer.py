"""The tokenizer against CLIP's own, and what it refuses."""

import gzip
import json
from pathlib import Path

import pytest
import tokenizers
import torch
from transformers import CLIPTokenizer

from backend.engines.sam3.tokenizer import END, START, Tokenizer, clean_phrase
from backend.errors import BadRequest, SettingsError
from tests import bpe

FIRST, LAST = 49406, 49407


@pytest.fixture(scope="module")
def tokens() -> Tokenizer:
    return Tokenizer.from_bpe(bpe.path())


@pytest.fixture(scope="module")
def clip() -> dict[str, list[int]]:
    """CLIP's own ids (open_clip's tokenizer) of 1,000 phrases, without the start and the end."""
    return json.loads(gzip.decompress((Path(__file__).parent / "clip_ids.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def folder(tokens, tmp_path_factory) -> Path:
    """A folder with a tokenizer.json as the hub has it."""
    made = tmp_path_factory.mktemp("hub")
    vocabulary = tokens._tokens.get_vocab()
    merges = gzip.decompress(bpe.path().read_bytes()).decode().split("\n")[1:48895]
    hub = CLIPTokenizer(vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges], model_max_length=32)
    hub.save_pretrained(made)
    return made


@pytest.fixture
def small(tmp_path) -> Path:
    """A folder with a vocabulary of three letters in vocab.json and merges.txt."""
    words = ["a", "b", "c", "a</w>", "b</w>", "c</w>", "ab", "abc</w>", START, END]
    (tmp_path / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nab c</w>\n")
    return tmp_path


def agree(tokens: Tokenizer, clip: dict[str, list[int]]) -> list[str]:
    """The phrases on which a tokenizer and CLIP do not agree."""
    ids, mask = tokens.encode(list(clip))
    rows = zip(clip.items(), ids, mask, strict=True)
    return [phrase for (phrase, wanted), row, on in rows if row[on.bool()].tolist() != [FIRST, *wanted, LAST]]


def test_a_thousand_phrases_are_as_clip_has_them(clip):
    assert len(clip) == 1000
    assert agree(Tokenizer.from_bpe(bpe.path(), context=77), clip) == []


def test_a_folder_of_the_hub_has_them_too(folder, clip):
    assert agree(Tokenizer.from_folder(folder, context=77), clip) == []


def test_ids_and_mask_are_those_of_the_released_processor(folder):
    phrases = ["a person in a red coat", "dog", "traffic light, 3 of them"]
    wanted = CLIPTokenizer.from_pretrained(folder)(phrases, padding="max_length", max_length=32, return_tensors="pt")
    ids, mask = Tokenizer.from_folder(folder).encode(phrases)
    assert torch.equal(ids, wanted.input_ids)
    assert torch.equal(mask, wanted.attention_mask)
    assert ids.dtype == mask.dtype == torch.int64


def test_a_phrase_starts_ends_and_is_filled_up(tokens):
    ids, mask = tokens.encode(["dog", "two dogs"])
    assert ids.shape == mask.shape == (2, 32)
    assert ids[0, :4].tolist() == [FIRST, 1929, LAST, LAST]
    assert mask.sum(1).tolist() == [3, 4]
    assert mask[0].tolist() == [1, 1, 1] + [0] * 29
    assert tokens.size == 49408


def test_the_folder_says_what_fills_up(small):
    assert Tokenizer.from_folder(small, context=5).encode(["abc"])[0].tolist() == [[8, 7, 9, 9, 9]]
    (small / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "b"}}))
    assert Tokenizer.from_folder(small, context=5).encode(["abc"])[0].tolist() == [[8, 7, 9, 1, 1]]


def test_an_unpacked_vocabulary_will_do(tokens, tmp_path):
    plain = tmp_path / "bpe_simple_vocab_16e6.txt"
    plain.write_bytes(gzip.decompress(bpe.path().read_bytes()))
    assert torch.equal(Tokenizer.from_bpe(plain).encode(["a cat"])[0], tokens.encode(["a cat"])[0])


@pytest.mark.parametrize(
    ("phrase", "clean"),
    [
        ("  A \t Red\n\u00a0CAR ", "a red car"),
        ("cats &amp;amp; dogs", "cats & dogs"),
        ("cafÃ©", "café"),
        ("&nbsp;", ""),
        ("<e&#769;", "<e\u0301"),
    ],
)
def test_phrases_are_cleaned_as_clip_does(phrase, clean):
    assert clean_phrase(phrase) == clean


@pytest.mark.parametrize("phrase", ["", "  \n", "&nbsp;", "\u200b"[:0]])
def test_an_empty_phrase_is_refused(tokens, phrase):
    with pytest.raises(BadRequest, match="a phrase is empty: enter what to find"):
        tokens.encode(["dog", phrase])


def test_a_phrase_that_does_not_fit_is_refused_and_never_cut(tokens):
    ids, mask = tokens.encode(["dog " * 30])
    assert ids[0, -1] == LAST
    assert mask.all()
    with pytest.raises(BadRequest, match="has 31 tokens, and the maximum is 30: shorten it") as caught:
        tokens.encode(["dog " * 31])
    assert len(str(caught.value)) < 120


def test_no_phrases_are_no_rows(tokens):
    assert tokens.encode([])[0].shape == (0, 32)


def test_files_that_are_missing_are_named(tmp_path):
    with pytest.raises(SettingsError, match=r"no file bpe\.txt\.gz"):
        Tokenizer.from_bpe(tmp_path / "bpe.txt.gz")
    with pytest.raises(SettingsError, match=r"contains no tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x1f\x8bnot gzip", b"\xff\xfe", gzip.compress(b"one two\n" * 9, mtime=0), b"#v\nthree in line\n"],
)
def test_a_broken_vocabulary_is_named(tmp_path, content):
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"bpe_simple_vocab_16e6\.txt\.gz is broken") as caught:
        Tokenizer.from_bpe(path)
    assert str(tmp_path) not in str(caught.value)


def test_half_a_vocabulary_is_broken(tmp_path):
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(gzip.compress(gzip.decompress(bpe.path().read_bytes())[:100_000]))
    with pytest.raises(SettingsError, match="is broken"):
        Tokenizer.from_bpe(path)


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_broken_file_of_a_folder_is_named(small, file):
    (small / file).write_text("{ not json\n{ nor this one")
    with pytest.raises(SettingsError, match=rf"{file} is broken") as caught:
        Tokenizer.from_folder(small)
    assert str(small) not in str(caught.value)


def test_merges_of_another_vocabulary_are_refused(small):
    (small / "merges.txt").write_text("#version: 0.2\nx y\n")
    with pytest.raises(SettingsError, match="do not match"):
        Tokenizer.from_folder(small)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(SettingsError, match="not CLIP's"):
        Tokenizer.from_folder(tmp_path)


def test_the_vocabulary_that_the_tests_need_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(bpe, "PATH", tmp_path / bpe.NAME)
    with pytest.raises(FileNotFoundError, match=r"python -m tests\.bpe"):
        bpe.path()
