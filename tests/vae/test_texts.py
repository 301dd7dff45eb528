"""The sparse VAE for texts: pieces and words, the recurrent layers, what is learnt, and all that is done with it."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vae
from data.errors import ModelError
from data.grid import ColumnGrid, TableGrid
from data.schema import Schema
from data.textgrid import END, text_symbols, texts_of
from vae import evaluate, judging, lesson, pipeline, traversal
from vae.codes import encode_rows, encode_size, encode_symbols, rows_from_codes
from vae.generate import rows_between, sample_rows
from vae.pieces import cut_all, frequent, joined
from vae.recurrent import RecurrentDecoder, RecurrentEncoder, by_length, in_order
from vae.settings import Codes, Family, ModelSettings, TrainSettings
from vae.store import TrainedModel, load, save
from vae.texts import TextVAE, explained, make_layout, share_read, text_arrays
from vae.whole import latents_of_wholes
from vae.words import packed_words, told_apart, unpacked

TEXTS = 600
SMALL = ModelSettings(latents=4, width=24, encoder_width=16)
QUICK = TrainSettings(steps=60, threads=1, batch_rows=32)
SUBJECTS, VERBS = ("the old king", "a farmer", "her ship", "the north wind"), ("sleeps", "came home", "sings")
PLACES = ("by the sea", "at the gate", "on the hill", "in the town", "under the moon")


def sayings(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [
        f"{SUBJECTS[random.integers(4)]} {VERBS[random.integers(3)]} {PLACES[random.integers(5)]}"
        + f", {random.integers(1_000)} years." * int(random.integers(2))
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.table({"text": pa.array(sayings(TEXTS)), "same": pa.array(["x"] * TEXTS)})


@pytest.fixture(scope="module")
def split() -> np.ndarray:
    return (np.arange(TEXTS) % 10 == 0).astype(np.uint8) * 2


@pytest.fixture(scope="module")
def trained(table: pa.Table, split: np.ndarray) -> TrainedModel:
    longer = QUICK.model_copy(update={"steps": 300})
    return pipeline.fit(table, Schema.from_arrow(table.schema), model=SMALL, training=longer, split=split)


def module_of(trained: TrainedModel) -> TextVAE:
    assert isinstance(trained.module, TextVAE)
    return trained.module


# ----------------------------------------------------------------------------------------------- bytes and pieces


@given(st.lists(st.none() | st.text(), max_size=12), st.integers(1, 40))
def test_texts_come_back_from_rows_of_bytes_up_to_their_length(texts: list[str | None], length: int) -> None:
    grid = ColumnGrid(name="t", kind="text", length=length)
    coded = grid.encode(pa.array(texts, pa.string()))
    back = grid.decode(coded.symbols, coded.state, coded.escapes).to_pylist()
    for text, again in zip(texts, back, strict=True):
        whole = None if text is None else text.encode()[:length].decode("utf-8", "ignore")
        assert again == whole


def test_a_slice_of_texts_is_read_from_where_it_begins() -> None:
    array = pa.array(["zero", "one", None, "three"], pa.large_string())
    symbols, missing = text_symbols(array.slice(1), 5)
    assert texts_of(symbols) == ["one", "", "three"]
    assert missing.tolist() == [False, True, False]


@given(st.lists(st.text(), min_size=1, max_size=12))
def test_pieces_join_to_the_texts_they_were_cut_from(texts: list[str]) -> None:
    words = frequent(texts * 3)
    length = max(len(text.encode()) for text in texts) + 1
    back = joined(cut_all(texts, words, length), words, length)
    assert texts_of(back) == texts


def test_a_frequent_word_is_one_piece_and_a_rare_one_its_bytes() -> None:
    words = frequent(sayings(200))
    (pieces,) = cut_all(["the old king's cat"], words, 16)
    assert " king" in words
    assert pieces.tolist()[:3] == [256 + words.index(word) for word in ("the", " old", " king")]
    assert bytes(pieces[3:9].astype(np.uint8).tolist()) == b"'s cat"
    assert pieces[9] == END


def test_words_are_those_that_tell_texts_apart() -> None:
    words = told_apart(sayings(500))
    assert {"king", "farmer", "sleeps", "sea"} <= set(words)
    packed = packed_words(["The KING sleeps.", "nothing"], words)
    there = unpacked(torch.from_numpy(packed), len(words))
    assert {words[k] for k in torch.nonzero(there[0])[:, 0].tolist()} == {"king", "sleeps"}
    assert "the" not in words  # it is in all of them
    assert not there[1].any()


def test_where_no_word_comes_twice_pairs_of_characters_stand_in() -> None:
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("abcd"), 12)) for _ in range(200)]
    words = told_apart(texts)
    assert set(map(len, words)) == {2}
    there = unpacked(torch.from_numpy(packed_words(texts, words)), len(words))
    assert bool(there[0, words.index(texts[0][:2])])


# ------------------------------------------------------------------------------------------------ recurrent layers


def texts_in_rows(rows: int = 9, length: int = 12, seed: int = 0) -> torch.Tensor:
    """Rows of pieces of all lengths, an empty one and one that fills its row among them."""
    random = np.random.default_rng(seed)
    texts = np.full((rows, length), END)
    for row, count in enumerate([0, length, *random.integers(1, length, rows - 2)]):
        texts[row, :count] = random.integers(0, 200, count)
    return torch.from_numpy(texts.astype(np.int16))


def test_what_fills_a_row_changes_no_code() -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(256, 8, 3, 2, gain=1.0)
    texts = texts_in_rows()
    whole = encoder(texts, torch.ones(()))
    wider = torch.cat([texts, torch.full_like(texts, END)], 1)
    torch.testing.assert_close(encoder(wider, torch.ones(())), whole)
    rows, parts = zip(*by_length(texts), strict=True)
    assert parts[0].shape[1] < texts.shape[1]
    torch.testing.assert_close(in_order(list(rows), [encoder(part, torch.ones(())) for part in parts]), whole)


def test_the_nats_of_a_text_are_those_of_its_pieces_one_by_one() -> None:
    torch.manual_seed(0)
    decoder = RecurrentDecoder(256, 8, 2)
    for layer in (decoder.begin, decoder.shown, decoder.favoured):
        torch.nn.init.normal_(layer.weight)  # they begin at 0
    texts, code = texts_in_rows(), torch.randn(9, 4)
    found = decoder.nats(texts, code)
    for row in range(9):
        state = torch.tanh(decoder.begin(code[row : row + 1])).unsqueeze(0).detach()
        last, nats = END, 0.0
        for piece in texts[row].tolist():
            inputs = decoder.embedding[last] + decoder.shown(code[row])
            states, state = decoder.gru(inputs.view(1, 1, -1), state)
            logits = decoder.head(states[0, 0]) + decoder.favoured(code[row])
            nats -= torch.log_softmax(logits, 0)[piece].item()
            last = piece
            if piece == END:
                break
        assert found[row].item() == pytest.approx(nats, rel=1e-5)


def test_probabilities_of_all_short_texts_sum_to_one() -> None:
    torch.manual_seed(0)
    decoder = RecurrentDecoder(257, 8, 0)
    with torch.no_grad():
        decoder.head.bias[2:END] = -60.0  # as good as three pieces: two, and the end
        decoder.head.bias[256] = -60.0
    every = [[END, END, END], [0, END, END], [1, END, END]]
    every += [[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1, END)]
    nats = decoder.nats(torch.tensor(every, dtype=torch.int16), None)
    assert (-nats).exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_the_likeliest_text_is_said_without_a_generator_and_drawn_ones_follow_the_odds() -> None:
    torch.manual_seed(0)
    decoder = RecurrentDecoder(256, 8, 0)
    with torch.no_grad():
        decoder.head.weight.zero_()
        decoder.head.bias.fill_(-60.0)
        decoder.head.bias[[7, END]] = torch.tensor([math.log(0.75), math.log(0.25)])
    assert decoder.spoken(None, 1, 4, None).tolist() == [[7, 7, 7, 7]]
    drawn = decoder.spoken(None, 4_000, 1, torch.Generator().manual_seed(0))
    assert float((drawn == 7).double().mean()) == pytest.approx(0.75, abs=0.03)


def test_explained_is_r2_of_words() -> None:
    there = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert float(explained(there, there)) == 1.0
    assert float(explained(there, there.mean(0).expand_as(there))) == 0.0
    assert float(explained(there, 1 - there)) == 0.0


# --------------------------------------------------------------------------------------------- what is learnt


def test_texts_are_learnt_and_the_code_knows_their_words(trained: TrainedModel, table: pa.Table) -> None:
    record = trained.record
    assert record["code_score"] > 0.15
    assert record["code"]["dead_latents"] < 4
    assert record["train_rows"] == TEXTS * 9 // 10
    history = record["history"]
    assert history[-1]["column_bits"] < 0.5 * history[0]["column_bits"]
    # the decoder makes use of the code: another text's says less
    module = module_of(trained)
    batch = {k: torch.from_numpy(v) for k, v in arrays(trained, table).items()}
    with torch.no_grad():
        code = module.encode(batch).float()
        own, other = (module.held_nats(batch, each).mean() for each in (code, code.roll(1, 0)))
    assert float(own) < 0.95 * float(other)


def arrays(trained: TrainedModel, table: pa.Table) -> dict[str, np.ndarray]:
    module = module_of(trained)
    coded = trained.grid["text"].encode(table["text"])
    return text_arrays(coded.symbols.astype(np.uint8), module.layout)


def test_codes_are_the_same_whatever_the_batch(trained: TrainedModel, table: pa.Table) -> None:
    whole = encode_rows(trained, table)
    assert encode_size(trained) >= 1
    some = np.concatenate([encode_rows(trained, table.slice(k, 1)) for k in range(40)])
    np.testing.assert_array_equal(some, whole[:40])
    symbols, missing = text_symbols(table["text"].combine_chunks(), trained.grid["text"].length)
    again = encode_symbols(trained, symbols, missing.astype(np.uint8)[:, None])
    np.testing.assert_array_equal(again, whole)


def test_bits_by_the_model_are_those_of_code_and_texts(trained: TrainedModel, table: pa.Table) -> None:
    module = module_of(trained)
    from vae.codes import coded_columns

    bits = evaluate.model_bits(trained, coded_columns(trained, table), np.arange(50))
    batch = {k: torch.from_numpy(v[:50]) for k, v in arrays(trained, table).items()}
    found = {name: float(value.mean()) for name, value in module.validation_bits(batch).items()}
    assert bits["columns"]["text"] == pytest.approx(found["column_bits"], rel=1e-5)
    assert bits["code"] == pytest.approx(found["code_bits"], rel=1e-5)
    some = evaluate.coded_among(trained, table, np.arange(0, 100, 2))
    assert len(some[0]["text"].state) == 50  # texts that are not asked for are not spread out as bytes
    assert evaluate.model_bits(trained, *some) == evaluate.model_bits(
        trained, coded_columns(trained, table), np.arange(0, 100, 2)
    )


def test_a_model_of_texts_is_saved_and_read_back(
    trained: TrainedModel, table: pa.Table, tmp_path: Path
) -> None:
    again = load(save(trained, tmp_path / "model"))
    assert again.digest == trained.digest
    np.testing.assert_array_equal(encode_rows(again, table), encode_rows(trained, table))
    with pytest.raises(ModelError, match="model of texts; it has no columns"):
        _ = again.of_columns


@pytest.mark.parametrize(
    ("piece", "length", "words"),
    [
        ("\ud800", None, "damaged: its content is not what its digest names"),
        ("x" * 2_000, None, "not a model that this program can use: pieces.0"),
        (None, 7, "layout and grid do not read the same bytes of a text"),
    ],
    ids=["half a character", "a long piece", "another length"],
)
def test_a_forged_model_of_texts_is_refused(
    piece: str | None, length: int | None, words: str, trained: TrainedModel, tmp_path: Path
) -> None:
    path = save(trained, tmp_path / "model") / "model.json"
    document = json.loads(path.read_bytes())
    if piece is not None:
        document["layout"]["pieces"][0] = piece
    if length is not None:
        document["grid"]["columns"][0]["length"] = length
    content = {key: value for key, value in document.items() if key != "digest"}
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    document["digest"] = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=words):
        load(path.parent)


def test_texts_are_rebuilt_drawn_and_on_the_way_between_two(trained: TrainedModel, table: pa.Table) -> None:
    rebuilt = rows_from_codes(trained, encode_rows(trained, table.slice(0, 20)))
    assert rebuilt.schema.field("text").type == pa.string()
    words = {word for text in table["text"].to_pylist() for word in text.split()}
    drawn = sample_rows(trained, 40, seed=3)
    assert drawn.equals(sample_rows(trained, 40, seed=3))
    assert not drawn.equals(sample_rows(trained, 40, seed=4))
    said = [word for text in drawn["text"].to_pylist() for word in text.split()]
    assert np.mean([word in words for word in said]) > 0.6
    way = rows_between(trained, table.slice(0, 2), 5)
    assert way.num_rows == 5
    assert way["text"][0].as_py() == rebuilt["text"][0].as_py()


def test_the_score_on_rows_is_that_of_the_words(trained: TrainedModel, table: pa.Table) -> None:
    held = table.slice(0, 200)
    module = module_of(trained)
    batch = {k: torch.from_numpy(v[:200]) for k, v in arrays(trained, table).items()}
    code = module.encode(batch).float()
    with torch.no_grad():
        found = module.score(batch, module.codes_only(code), torch.zeros(()))
    assert judging.alone(trained, held) == pytest.approx(float(found), rel=1e-4)


def test_a_model_of_texts_is_judged_beside_those_of_the_same_texts_only(trained: TrainedModel) -> None:
    numbers = pa.table({"n": np.arange(300) % 7})
    other = pipeline.fit(numbers, Schema.from_arrow(numbers.schema), model=SMALL, training=QUICK)
    assert judging.judged_columns(trained, trained).names == ("text",)
    for pair in ((trained, other), (other, trained)):
        with pytest.raises(ModelError, match="is of the texts of 'text' alone, the other is not"):
            judging.judged_columns(*pair)


def test_evaluation_and_page_of_texts(
    trained: TrainedModel, table: pa.Table, split: np.ndarray, tmp_path: Path
) -> None:
    vae.compress(table, tmp_path / "t.svae", model=trained)
    found = evaluate.evaluate(trained, table, tmp_path, split=split, archive_path=tmp_path / "t.svae")
    assert 0 < found.numbers["codes_only"]["score"] <= 1
    assert found.numbers["bits"]["columns"]["text"] > 0
    assert {path.name for path in found.figures} >= {"training.png", "codes.png"}
    latents = traversal.traverse(trained, table)
    assert latents is not None
    assert traversal.latents_section(latents)[0].title


@pytest.mark.parametrize("family", list(Family))
def test_every_family_learns_texts(family: Family, table: pa.Table) -> None:
    schema = Schema.from_arrow(table.schema)
    found = pipeline.fit(table, schema, model=SMALL.model_copy(update={"family": family}), training=QUICK)
    codes = encode_rows(found, table.slice(0, 8))
    assert codes.shape == (8, 4)
    assert math.isfinite(found.record["history"][-1]["bits"])
    assert sample_rows(found, 3)["text"].null_count == 0


def test_a_code_is_calibrated_to_a_number_of_latents(table: pa.Table) -> None:
    wanted = SMALL.model_copy(update={"target": "nonzeros=2"})
    longer = QUICK.model_copy(update={"steps": 300})
    found = pipeline.fit(table, Schema.from_arrow(table.schema), model=wanted, training=longer)
    assert (encode_rows(found, table) != 0).sum(1).mean() == pytest.approx(2.0, abs=0.4)


def test_without_a_code_texts_are_drawn_and_no_code_is_made(table: pa.Table) -> None:
    plain = SMALL.model_copy(update={"codes": Codes.none})
    found = pipeline.fit(table, Schema.from_arrow(table.schema), model=plain, training=QUICK)
    assert encode_rows(found, table).shape == (TEXTS, 0)
    assert sample_rows(found, 3).num_rows == 3
    assert latents_of_wholes(plain) == 0
    with pytest.raises(ModelError, match="no sparse codes"):
        rows_between(found, table.slice(0, 2), 3)


# -------------------------------------------------------------------------------------- what is modelled, and when


def test_an_archive_of_texts_trains_no_model_and_holds_none(table: pa.Table, tmp_path: Path) -> None:
    report = vae.compress(table, tmp_path / "t.svae")
    assert (report.bytes.model, report.without_model) == (0, "nothing to model")
    with vae.open(tmp_path / "t.svae") as archive:
        assert archive.read().equals(table)


def test_texts_beside_numbers_are_modelled_if_they_are_named() -> None:
    count = 300
    both = pa.table({"n": np.arange(count) % 7, "text": sayings(count)})
    schema = Schema.from_arrow(both.schema)
    usual = pipeline.fit(both, schema, model=ModelSettings(latents=2), training=TrainSettings(steps=20))
    assert usual.layout.plan.names == ["n"]
    named = pipeline.fit(both, schema, model=SMALL.model_copy(update={"column": "text"}), training=QUICK)
    assert named.layout.plan.names == ["text"]
    for column, words in (("n", "not of images or texts"), ("nobody", "no column 'nobody'")):
        with pytest.raises(ModelError, match=words):
            pipeline.fit(both, schema, model=ModelSettings(column=column), training=QUICK)


def test_nulls_and_empty_texts_have_codes_and_are_not_learnt() -> None:
    texts = [*sayings(200), None, "", None]
    table = pa.table({"text": pa.array(texts)})
    found = pipeline.fit(table, Schema.from_arrow(table.schema), model=SMALL, training=QUICK)
    assert found.record["train_rows"] == 201
    codes = encode_rows(found, table)
    np.testing.assert_array_equal(codes[200], codes[201])


def test_what_follows_from_texts_is_left_alone_where_texts_are_modelled() -> None:
    distinct = [f"{text} ({k})" for k, text in enumerate(sayings(100))]
    which = np.random.default_rng(0).integers(0, 100, 1_000)
    table = pa.table({"text": [distinct[k] for k in which], "number": which * 13 % 101})
    named = SMALL.model_copy(update={"column": "text"})
    found = pipeline.fit(table, Schema.from_arrow(table.schema), model=named, training=QUICK)
    assert found.layout.derived == ()
    rebuilt = rows_from_codes(found, encode_rows(found, table.slice(0, 5)))
    assert (rebuilt["text"].null_count, rebuilt["number"].null_count) == (0, 5)


def test_texts_of_a_dictionary_come_back_as_one() -> None:
    table = pa.table({"text": pa.array(sayings(200)).dictionary_encode()})
    found = pipeline.fit(table, Schema.from_arrow(table.schema), model=SMALL, training=QUICK)
    rebuilt = rows_from_codes(found, encode_rows(found, table.slice(0, 5)))
    assert rebuilt.schema.field("text").type == table.schema.field("text").type


@pytest.mark.parametrize("split", [None, np.arange(300) % 3])
def test_what_is_learnt_does_not_depend_on_how_many_texts_are_read_at_once(
    split: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = pa.table({"text": [None if k % 7 == 0 else text for k, text in enumerate(sayings(300))]})
    whole = lesson.lesson_of(texts, None, SMALL, split)
    monkeypatch.setattr(lesson, "TEXT_ROWS", 64)
    parts = lesson.lesson_of(texts, None, SMALL, split)
    assert (parts.layout, parts.grid) == (whole.layout, whole.grid)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(parts.arrays[name], array)


def test_a_forged_grid_of_texts_is_refused() -> None:
    for wrong in (
        {"kind": "text"},
        {"kind": "number", "length": 3},
        {"kind": "text", "length": 3, "scale": "step"},
    ):
        with pytest.raises(ValueError, match=r"texts without a length|images|no grid"):
            TableGrid.from_json({"columns": [{"name": "t", **wrong}]})


def test_the_layout_of_no_texts_is_sound() -> None:
    layout = make_layout("t", np.full((0, 5), END, np.uint8), ModelSettings())
    assert (layout.plan.pieces, layout.words, layout.mean) == (1, ("",), 1.0)


def test_a_model_that_reads_less_of_a_text_does_not_pay_less_for_it(trained: TrainedModel) -> None:
    module = module_of(trained)
    known, foreign = "the old king sleeps by the sea", "zyx wvu tsr qpo nml kji hgf edc"
    assert share_read([known, None], module.layout) == 1.0
    read = module.layout.plan.pieces
    assert share_read([foreign], module.layout) == (read + 1) / (len(foreign) + 1) < 1
    assert share_read(["the old king", "", None], module.layout) == 1.0


def test_texts_without_words_are_learnt() -> None:
    table = pa.table({"text": pa.array([chr(0x1F600 + k % 80) for k in range(200)])})
    schema = Schema.from_arrow(table.schema)
    found = pipeline.fit(table, schema, model=SMALL.model_copy(update={"column": "text"}), training=QUICK)
    assert encode_rows(found, table).shape == (200, 4)


def test_an_archive_by_a_model_of_texts_takes_its_bounds(tmp_path: Path) -> None:
    table = pa.table({"text": sayings(200), "at": np.linspace(0.0, 9.0, 200)})
    schema = Schema.from_arrow(table.schema)
    named = SMALL.model_copy(update={"column": "text"})
    found = pipeline.fit(table, schema, bounds={"at": 0.5}, model=named, training=QUICK)
    report = vae.compress(table, tmp_path / "t.svae", model=found)
    assert {column.name: column.bound for column in report.per_column}["at"] == 0.5
    assert report.without_model == "texts"
    with vae.open(tmp_path / "t.svae") as archive:
        archive.verify(table)
