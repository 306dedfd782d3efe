//! Reading by rows, and what is refused of a folder and of a header.
#![expect(clippy::float_cmp, reason = "small whole numbers are exact")]

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::folder::{self, INDEX_NAME};
use super::{TensorFacts, WeightError, Weights, check_finite, safetensors};
use crate::gguf::{GgufWriter, TensorType, Value};

/// A safetensors file of f32 tensors; each number is its index.
fn file_of(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let begin = data.len();
        let count: usize = shape.iter().product();
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        data.extend((0..count).flat_map(|index| (index as f32).to_le_bytes()));
        let offsets = [begin, data.len()];
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
        header.insert((*name).to_owned(), entry);
    }
    with_header(&Json::Object(header).to_string(), &data)
}

fn with_header(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
}

/// The smallest llama: one layer of width 4.
fn tensors() -> Vec<(&'static str, &'static [usize])> {
    vec![
        ("lm_head.weight", &[8, 4]),
        ("model.embed_tokens.weight", &[8, 4]),
        ("model.layers.0.input_layernorm.weight", &[4]),
        ("model.layers.0.mlp.down_proj.weight", &[4, 6]),
        ("model.layers.0.mlp.gate_proj.weight", &[6, 4]),
        ("model.layers.0.mlp.up_proj.weight", &[6, 4]),
        ("model.layers.0.post_attention_layernorm.weight", &[4]),
        ("model.layers.0.self_attn.k_proj.weight", &[2, 4]),
        ("model.layers.0.self_attn.o_proj.weight", &[4, 4]),
        ("model.layers.0.self_attn.q_proj.weight", &[4, 4]),
        ("model.layers.0.self_attn.v_proj.weight", &[2, 4]),
        ("model.norm.weight", &[4]),
    ]
}

fn config(model_type: &str) -> Json {
    json!({
        "model_type": model_type, "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2,
        "max_position_embeddings": 16
    })
}

/// A folder of these files.
fn folder_of(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("writes");
    }
    folder
}

/// A whole model whose tensors and settings were changed.
fn model(
    change: impl FnOnce(&mut Vec<(&'static str, &'static [usize])>, &mut Json),
) -> tempfile::TempDir {
    let (mut tensors, mut config) = (tensors(), config("llama"));
    change(&mut tensors, &mut config);
    let config = config.to_string();
    folder_of(&[("config.json", config.as_bytes()), ("model.safetensors", &file_of(&tensors))])
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map_or(String::new(), |source| format!(": {}", chain(source)));
    format!("{error}{source}")
}

fn refuse(folder: &Path, wanted: &str) {
    let text = chain(&Weights::open(folder).expect_err("is refused"));
    assert!(text.contains(wanted), "{text:?} does not say {wanted:?}");
}

#[test]
fn a_folder_shows_its_tensors_under_canonical_names() {
    let folder = model(|_, _| {});
    let weights = Weights::open(folder.path()).expect("opens");
    let facts = TensorFacts { kind: TensorType::F32, rows: 2, columns: 4 };
    assert_eq!(weights.tensor("blk.0.attn_k.weight"), Some(facts));
    let mut bytes = vec![0; 16];
    weights.read_rows("blk.0.attn_k.weight", 1..2, &mut bytes).expect("reads");
    assert_eq!(bytes, [4f32, 5.0, 6.0, 7.0].map(f32::to_le_bytes).concat());
    assert_eq!(weights.vector("output_norm.weight", 4).expect("reads"), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(weights.optional_vector("blk.0.attn_q.bias", 4).expect("is no error"), None);
    assert_eq!(weights.unused().len(), 11);
    let refusal = weights.finish().expect_err("is refused").to_string();
    assert!(refusal.contains("\"blk.0.attn_k.weight\" belongs to nothing"), "{refusal}");
    assert_eq!(weights.identity().parameter_count, 8 * 4 * 2 + 4 * 3 + 6 * 4 * 3 + 4 * 4 * 2 + 16);
    assert_eq!(weights.identity().quantisation, "F32");
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let folder = model(|_, _| {});
    let weights = Weights::open(folder.path()).expect("opens");
    let name = "token_embd.weight";
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    for (rows, size) in [(0..9, 144), (0..2, 31), (3..2, 0), (8..9, 16), (0..usize::MAX, 16)] {
        let refusal = weights.read_rows(name, rows.clone(), &mut vec![0; size]);
        assert!(matches!(refusal, Err(WeightError::Rows { .. })), "{rows:?}, {size}: {refusal:?}");
    }
    weights.read_rows(name, 8..8, &mut []).expect("nothing is nothing");
    assert!(matches!(weights.matrix(name, 8, 5), Err(WeightError::Shape { .. })));
    assert!(matches!(weights.matrix("other", 8, 4), Err(WeightError::Missing { .. })));
}

#[test]
fn norms_of_gemma_are_read_with_one_added() {
    let folder = model(|_, config| config["model_type"] = json!("gemma"));
    let weights = Weights::open(folder.path()).expect("opens");
    assert_eq!(weights.vector("blk.0.ffn_norm.weight", 4).expect("reads"), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn fused_tensors_are_shown_as_their_parts() {
    let folder = model(|tensors, config| {
        config["model_type"] = json!("phi3");
        let is_split = |name: &str| {
            ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]
                .iter()
                .any(|it| name.contains(it))
        };
        tensors.retain(|(name, _)| !is_split(name));
        tensors.push(("model.layers.0.self_attn.qkv_proj.weight", &[8, 4]));
        tensors.push(("model.layers.0.mlp.gate_up_proj.weight", &[12, 4]));
    });
    let weights = Weights::open(folder.path()).expect("opens");
    let first = |name: &str, rows: usize| {
        weights.matrix(name, rows, 4).expect("has the shape");
        let mut bytes = [0; 16];
        weights.read_rows(name, 0..1, &mut bytes).expect("reads");
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    };
    assert_eq!(
        [("attn_q", 4), ("attn_k", 2), ("attn_v", 2), ("ffn_gate", 6), ("ffn_up", 6)]
            .map(|(part, rows)| first(&format!("blk.0.{part}.weight"), rows)),
        [0.0, 16.0, 24.0, 0.0, 24.0]
    );
    let folder = model(|tensors, config| {
        config["model_type"] = json!("phi3");
        tensors.push(("model.layers.0.self_attn.qkv_proj.weight", &[9, 4]));
    });
    refuse(folder.path(), "has the shape [9, 4], the model's settings need [8, 4]");
    let folder = model(|tensors, _| {
        tensors.push(("model.layers.0.self_attn.qkv_proj.weight", &[8, 4]));
    });
    refuse(folder.path(), "are the same part of the model");
}

#[test]
fn a_tied_model_has_no_output_matrix_and_an_untied_one_needs_it() {
    let tied = model(|_, config| config["tie_word_embeddings"] = json!(true));
    let weights = Weights::open(tied.path()).expect("opens");
    assert_eq!(weights.tensor("output.weight"), None, "what lies there is not used");
    let untied = model(|tensors, config| {
        tensors.retain(|(name, _)| *name != "lm_head.weight");
        config["tie_word_embeddings"] = json!(false);
    });
    refuse(untied.path(), "no tensor \"output.weight\"");
}

#[test]
fn names_that_carry_nothing_are_passed_over_and_others_are_not() {
    let folder = model(|tensors, _| {
        tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq", &[1]));
        tensors.push(("model.layers.00.mlp.up_proj.weight", &[6, 4]));
        tensors.push(("model.vision_tower.patch.weight", &[6, 4]));
    });
    let weights = Weights::open(folder.path()).expect("opens");
    let unknown = |name: &String| name.starts_with("model.");
    let unknown: Vec<_> = weights.unused().into_iter().filter(unknown).collect();
    assert_eq!(unknown, ["model.layers.00.mlp.up_proj.weight", "model.vision_tower.patch.weight"]);
}

#[test]
fn a_file_that_shrinks_gives_an_error() {
    let folder = model(|_, _| {});
    let weights = Weights::open(folder.path()).expect("opens");
    let path = folder.path().join("model.safetensors");
    std::fs::OpenOptions::new().write(true).open(path).expect("opens").set_len(40).expect("cuts");
    let refusal = weights.read_rows("token_embd.weight", 0..1, &mut [0; 16]);
    assert!(matches!(refusal, Err(WeightError::Read { .. })), "{refusal:?}");
    assert!(matches!(weights.hash(), Err(WeightError::Hash { .. })));
}

/// A folder whose tensors lie in two files, and the list.
fn sharded(index: impl FnOnce(&mut Json)) -> tempfile::TempDir {
    let tensors = tensors();
    let (first, second) = tensors.split_at(5);
    let mut map = serde_json::Map::new();
    for (shard, tensors) in [("a.safetensors", first), ("b.safetensors", second)] {
        map.extend(tensors.iter().map(|(name, _)| ((*name).to_owned(), json!(shard))));
    }
    let mut list = json!({"metadata": {"total_size": 1}, "weight_map": map});
    index(&mut list);
    folder_of(&[
        ("config.json", config("llama").to_string().as_bytes()),
        (INDEX_NAME, list.to_string().as_bytes()),
        ("a.safetensors", &file_of(first)),
        ("b.safetensors", &file_of(second)),
    ])
}

#[test]
fn a_model_in_several_files_is_read_by_its_list() {
    let folder = sharded(|_| {});
    let weights = Weights::open(folder.path()).expect("opens");
    assert_eq!(weights.vector("output_norm.weight", 4).expect("reads"), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(weights.tensors().count(), 12);
    let single = model(|_, _| {});
    let single = Weights::open(single.path()).expect("opens");
    assert_ne!(weights.hash().expect("hashes"), single.hash().expect("hashes"));
}

#[test]
fn a_list_that_leads_out_of_the_folder_or_lies_is_refused() {
    let name = "model.norm.weight";
    for bad in [
        "../b.safetensors",
        "/etc/b.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "c:b.safetensors",
        ".safetensors",
        "..safetensors",
        "b.bin",
        "",
        "b\0.safetensors",
    ] {
        let folder = sharded(|list| list["weight_map"][name] = json!(bad));
        refuse(folder.path(), "is not the plain name of a safetensors file");
    }
    let missing = sharded(|list| {
        let names = list["weight_map"].as_object_mut().expect("an object");
        names
            .values_mut()
            .filter(|it| *it == "b.safetensors")
            .for_each(|it| *it = json!("c.safetensors"));
    });
    refuse(missing.path(), "failed to open");
    let elsewhere = sharded(|list| list["weight_map"][name] = json!("a.safetensors"));
    refuse(elsewhere.path(), "which is not listed there");
    let absent = sharded(|list| list["weight_map"]["other"] = json!("a.safetensors"));
    refuse(absent.path(), "\"other\" is not in a.safetensors");
    let empty = sharded(|list| list["weight_map"] = json!({}));
    refuse(empty.path(), "it names 0 files");
    let twice = r#"{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}"#;
    assert!(folder::parse_index(twice.as_bytes()).expect_err("is refused").contains("twice"));
}

#[test]
fn folders_that_are_no_model_are_refused_by_name() {
    let config = config("llama").to_string();
    refuse(folder_of(&[]).path(), "config.json");
    refuse(folder_of(&[("config.json", b"{}")]).path(), "no value for \"model_type\"");
    refuse(folder_of(&[("config.json", config.as_bytes())]).path(), "neither model.safetensors");
    let large = vec![b' '; (1 << 20) + 1];
    refuse(folder_of(&[("config.json", &large)]).path(), "larger than 1048576 bytes");
    let files: [(&str, &[u8]); 2] =
        [("config.json", config.as_bytes()), ("model.safetensors", &[1, 2])];
    refuse(folder_of(&files).path(), "it has 2 bytes, its first 8 are a length");
    let other = with_header(
        r#"{"model.norm.weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}"#,
        &[0; 4],
    );
    let files: [(&str, &[u8]); 2] =
        [("config.json", config.as_bytes()), ("model.safetensors", &other)];
    refuse(folder_of(&files).path(), "has the type F8_E4M3, which is not supported");
}

/// What a header of one tensor named `a` before 64 bytes of data is refused with.
fn refuse_header(json: &str, wanted: &str) {
    let start = 8 + json.len() as u64;
    let text = safetensors::parse(json.as_bytes(), start, start + 64).expect_err("is refused");
    assert!(text.contains(wanted), "{json}: {text:?} does not say {wanted:?}");
}

#[test]
fn headers_that_lie_are_refused() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#)
    };
    for (shape, offsets, wanted) in [
        ("[4]", "[0, 12]", "is not [4] numbers of F32"),
        ("[17]", "[0, 68]", "lies outside the file"),
        ("[4]", "[16, 0]", "lies outside the file"),
        ("[4]", "[18446744073709551600, 18446744073709551615]", "beyond every file"),
        ("[18446744073709551615, 2]", "[0, 16]", "impossible shape"),
        ("[4611686018427387905]", "[0, 4]", "is not"),
        ("[1,1,1,1,1,1,1,1,4]", "[0, 16]", "has 9 dimensions"),
        ("[-4]", "[0, 16]", "invalid value"),
        ("[4.5]", "[0, 16]", "invalid type"),
        ("[4]", "[0]", "invalid length"),
        ("[4]", "[0, 16, 32]", "trailing characters"),
    ] {
        refuse_header(&one("F32", shape, offsets), wanted);
    }
    let entry = r#"{"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}"#;
    refuse_header(&format!(r#"{{"a": {entry}, "a": {entry}}}"#), "appears twice");
    refuse_header(&format!(r#"{{"a": {entry}, "b": {entry}}}"#), "overlap");
    refuse_header(&format!(r#"{{"{}": {entry}}}"#, "n".repeat(513)), "too long");
    refuse_header(r#"{"a": {"dtype": "F32", "shape": [4]}}"#, "missing field");
    refuse_header("[]", "expected an object");
    refuse_header(&"[".repeat(1 << 20), "");
    refuse_header(&format!(r#"{{"__metadata__": {}"#, "[".repeat(1 << 16)), "");
}

#[test]
fn numbers_that_are_not_finite_are_found_in_every_format() {
    for kind in TensorType::ALL {
        let columns = usize::try_from(kind.block_len()).expect("is small") * 2;
        let row = usize::try_from(kind.block_size()).expect("is small") * 2;
        let sound = vec![0u8; row * 3];
        assert_eq!(check_finite(kind, columns, &sound), Ok(()), "{kind}");
        let block = row / 2;
        let places: &[usize] = match kind {
            TensorType::F32 => &[2],
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => &[0, 2],
            TensorType::Q6K => &[208],
            _ => &[0],
        };
        for place in places {
            for bad in [0x7f80u16, 0xff81, 0x7fff] {
                let mut bytes = sound.clone();
                let at = row + block + place;
                bytes[at..at + 2].copy_from_slice(&bad.to_le_bytes());
                assert_eq!(check_finite(kind, columns, &bytes), Err(1), "{kind} at {place}");
            }
        }
    }
}

#[test]
fn a_vector_that_is_not_finite_is_refused_by_name() {
    let mut file = GgufWriter::new();
    file.set("general.architecture", Value::String("llama".into()));
    for (key, value) in [
        ("block_count", 1),
        ("embedding_length", 4),
        ("feed_forward_length", 6),
        ("attention.head_count", 2),
        ("context_length", 16),
    ] {
        file.set(format!("llama.{key}"), Value::U32(value));
    }
    file.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    file.tensor_f32("token_embd.weight", &[8, 4], &[0.0; 32]).expect("fits");
    file.tensor_f32("output_norm.weight", &[4], &[1.0, f32::NAN, 1.0, 1.0]).expect("fits");
    file.tensor("blk.0.attn_norm.weight", &[32], TensorType::Q8_0, vec![0; 34]).expect("fits");
    let folder = folder_of(&[("m.gguf", &file.to_bytes())]);
    let weights = Weights::open(&folder.path().join("m.gguf")).expect("opens");
    let text = |name, len| weights.vector(name, len).expect_err("is refused").to_string();
    assert!(text("output_norm.weight", 4).contains("\"output_norm.weight\" holds a number"));
    assert!(text("blk.0.attn_norm.weight", 32).contains("is a vector of Q8_0"));
    let plain = commons_record::Hash::of_content(&file.to_bytes());
    assert_eq!(weights.hash().expect("hashes"), plain, "a file's name is that of its bytes");
}

#[test]
fn the_hash_of_a_folder_follows_its_content_and_not_its_place() {
    let hash = |folder: &Path| Weights::open(folder).expect("opens").hash().expect("hashes");
    let (first, second) = (model(|_, _| {}), model(|_, _| {}));
    assert_eq!(hash(first.path()), hash(second.path()));
    std::fs::write(second.path().join("README.md"), "a readme").expect("writes");
    assert_eq!(hash(first.path()), hash(second.path()), "it decides nothing");
    std::fs::write(second.path().join("tokenizer.json"), "{}").expect("writes");
    assert_ne!(hash(first.path()), hash(second.path()));
}

proptest! {
    /// However rows are cut, they are the same bytes: also where a tensor is made of parts.
    #[test]
    fn rows_read_in_pieces_are_rows_read_at_once(cuts in proptest::collection::vec(0usize..=60, 0..6)) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/qwen3moe");
        let weights = Weights::open(&path).expect("opens");
        let name = "blk.1.ffn_gate_exps.weight";
        let facts = weights.matrix(name, 60, 32).expect("five experts of twelve rows");
        let mut whole = vec![0; facts.row_size() * 60];
        weights.read_rows(name, 0..60, &mut whole).expect("reads");
        let mut cuts = [cuts, vec![0, 60]].concat();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        for pair in cuts.windows(2) {
            let mut piece = vec![0; facts.row_size() * (pair[1] - pair[0])];
            weights.read_rows(name, pair[0]..pair[1], &mut piece).expect("reads");
            pieces.extend(piece);
        }
        prop_assert_eq!(whole, pieces);
    }
}
