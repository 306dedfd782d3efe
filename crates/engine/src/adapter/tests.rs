//! Adapters from both sources against merged weights and each other, and what is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use commons_kernels::Isa;
use serde_json::{Value as Json, json};

use super::mix::Input;
use super::*;
use crate::gguf::{GgufWriter, TensorType, Value};
use crate::noise::write_noise_model;
use crate::team::Tile;

mod files;
mod refused;

use files::{Files, base, gguf_of, numbers};

/// A file that nobody here wrote; `None`, loudly, where the folder is absent.
fn fixture(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is absent", path.display());
    None
}

/// `scale * B A` of one matrix, row by row.
fn difference(adapter: &Adapter, at: (usize, Group, usize)) -> Option<Vec<Vec<f64>>> {
    let stack = adapter.stack(at.0, at.1)?;
    let part = stack.parts[at.2].as_ref()?;
    let rank = part.up.columns();
    let down: Vec<_> =
        (part.first..part.first + rank).map(|row| stack.down.dequantise_row(row)).collect();
    let row = |row| {
        let up = part.up.dequantise_row(row);
        let number = |column: usize| {
            let products = down.iter().zip(&up);
            let sum: f64 =
                products.map(|(down, &up)| f64::from(down[column]) * f64::from(up)).sum();
            f64::from(part.scale) * sum
        };
        (0..stack.down.columns()).map(number).collect()
    };
    Some((0..part.up.rows()).map(row).collect())
}

/// Every matrix that can be adapted: its place and its canonical name.
const MATRICES: [(Group, usize, &str); 7] = [
    (Group::Inputs, 0, "attn_q"),
    (Group::Inputs, 1, "attn_k"),
    (Group::Inputs, 2, "attn_v"),
    (Group::Output, 0, "attn_output"),
    (Group::Inner, 0, "ffn_gate"),
    (Group::Inner, 1, "ffn_up"),
    (Group::Down, 0, "ffn_down"),
];

fn weight_rows(weights: &Weights, name: &str) -> Vec<Vec<f32>> {
    let facts = weights.tensor(name).expect("is there");
    let mut bytes = vec![0; facts.row_size() * facts.rows];
    weights.read_rows(name, 0..facts.rows, &mut bytes).expect("reads");
    let all = crate::weights::widen(facts.kind, &bytes).expect("floats");
    all.chunks_exact(facts.columns).map(<[f32]>::to_vec).collect()
}

#[test]
fn a_base_with_an_adapter_on_top_is_the_merged_model() {
    let (Some(base), Some(merged)) =
        (fixture("models/stories260K.gguf"), fixture("models/lora-r4/merged-F32.gguf"))
    else {
        return;
    };
    let (base, merged) = (Weights::open(&base).unwrap(), Weights::open(&merged).unwrap());
    for source in ["models/lora-r4", "models/lora-r4/adapter.gguf"] {
        let adapter = Adapter::load(&fixture(source).expect("beside the others"), &base).unwrap();
        let facts = adapter.facts();
        assert_eq!((facts.rank_max, facts.site_count, facts.method), (4, 10, Method::Lora));
        assert_eq!(facts.precision, "F32");
        for layer in 0..base.settings().layer_count {
            for (group, part, name) in MATRICES {
                let name = format!("blk.{layer}.{name}.weight");
                let (plain, merged) = (weight_rows(&base, &name), weight_rows(&merged, &name));
                let Some(difference) = difference(&adapter, (layer, group, part)) else {
                    assert_eq!(plain, merged, "{name} is not adapted");
                    continue;
                };
                for ((plain, merged), added) in plain.iter().zip(&merged).zip(&difference) {
                    for ((plain, merged), added) in plain.iter().zip(merged).zip(added) {
                        let off = f64::from(*plain) + added - f64::from(*merged);
                        assert!(off.abs() < 1e-6, "{source} {name}: off by {off}");
                    }
                }
            }
        }
    }
}

#[test]
fn both_sources_of_an_adapter_are_one_adapter_on_every_base() {
    for base in ["models/stories260K.gguf", "models/stories260K-hf"] {
        let Some(path) = fixture(base) else { return };
        let weights = Weights::open(&path).unwrap();
        let [folder, file] = ["models/lora-r4", "models/lora-r4/adapter.gguf"].map(|source| {
            Adapter::load(&fixture(source).expect("beside the others"), &weights).unwrap()
        });
        assert_ne!(folder.facts().adapter, file.facts().adapter, "other files, other names");
        for layer in 0..weights.settings().layer_count {
            for (group, part, name) in MATRICES {
                let of = |adapter| difference(adapter, (layer, group, part));
                assert_eq!(of(&folder), of(&file), "{base} {layer} {name}");
            }
        }
    }
}

#[test]
fn facts_say_what_the_adapter_is_and_its_name_is_its_content() {
    let (folder, base) = (Files::all_sites(4).write(), base());
    let adapter = Adapter::load(folder.path(), &base).unwrap();
    let facts = adapter.facts().clone();
    assert_eq!((facts.rank_max, facts.site_count, facts.method), (4, 4 * 7, Method::Lora));
    let per_layer = 4 * (3 * (64 + 64) + 2 * (64 + 32) + 2 * (64 + 176) + (176 + 64) - 128);
    assert_eq!(facts.parameter_count, 4 * per_layer);
    assert_eq!(facts.claimed_base.as_deref(), Some("somebody/base"));
    // Approved: a change of the name of an adapter is a change of every receipt that has it.
    assert_eq!(facts.adapter.to_string(), include_str!("tests/adapter.golden").trim());
    std::fs::write(folder.path().join("README.md"), "a word").unwrap();
    assert_eq!(*Adapter::load(folder.path(), &base).unwrap().facts(), facts);
    let direct = Adapter::load(&folder.path().join(WEIGHTS_NAME), &base).unwrap();
    assert_eq!(*direct.facts(), facts);
}

#[test]
fn the_scale_is_alpha_through_the_rank_or_its_root() {
    let check = |change: Json, site: (usize, Group, usize), wanted: f32| {
        let mut files = Files::all_sites(4);
        files.change(change.clone());
        let adapter = Adapter::load(files.write().path(), &base()).unwrap();
        let stack = adapter.stack(site.0, site.1).expect("is adapted");
        let scale = stack.parts[site.2].as_ref().expect("is adapted").scale;
        assert!((scale - wanted).abs() < 1e-6, "{change}: {scale}");
    };
    let (query, down) = ((1, Group::Inputs, 0), (1, Group::Down, 0));
    check(json!({}), query, 2.0);
    check(json!({"use_rslora": true}), query, 4.0);
    check(json!({"alpha_pattern": {"q_proj": 12}}), query, 3.0);
    check(json!({"alpha_pattern": {"q_proj": 12}}), down, 2.0);
    check(json!({"alpha_pattern": {"layers.1.self_attn.q_proj": 2}}), query, 0.5);
    check(json!({"rank_pattern": {"q_proj": 4}, "r": 4, "bias": "none"}), query, 2.0);
}

/// One site, computed by its definition.
struct Expected<'a> {
    adapter: &'a Adapter,
    at: (usize, Group, usize),
}

impl Expected<'_> {
    /// What becomes of an output `y` of a row.
    fn of(&self, x: &[f32], y: f32, output: usize) -> f64 {
        let Some(difference) = difference(self.adapter, self.at) else { return f64::from(y) };
        let added: f64 = difference[output].iter().zip(x).map(|(w, &x)| w * f64::from(x)).sum();
        let stack = self.adapter.stack(self.at.0, self.at.1).expect("is adapted");
        let factors = stack.parts[self.at.2].as_ref().and_then(|part| part.row_factors.as_ref());
        (f64::from(y) + added) * factors.map_or(1.0, |it| f64::from(it[output]))
    }
}

#[test]
fn each_row_of_a_mixed_batch_gets_its_own_adapter_and_the_bits_it_gets_alone() {
    let base = base();
    let mut dora = Files::only(8, &["self_attn.k_proj", "mlp.up_proj"], 3);
    dora.make_dora();
    let adapters =
        [Files::all_sites(4), Files::only(37, &["self_attn.v_proj", "mlp.gate_proj"], 2), dora]
            .map(|files| Arc::new(Adapter::load(files.write().path(), &base).unwrap()));
    let owners = [Some(0), None, Some(2), Some(1), Some(0), Some(0), None, Some(2)];
    let shared = |index: &Option<usize>| index.map(|index| Arc::clone(&adapters[index]));
    let mix = Mix::new(owners.iter().map(shared));
    assert!(!mix.is_empty() && Mix::new([None, None]).is_empty());
    let settings = base.settings();
    for (group, part, name) in MATRICES {
        let facts = base.tensor(&format!("blk.2.{name}.weight")).expect("is there");
        let (inputs, outputs) = (facts.columns, facts.rows);
        let (x, y) = (numbers(3, owners.len() * inputs), numbers(4, owners.len() * outputs));
        let at = (2, group, part);
        let together = adapted(&mix, at, (&x, inputs), (&y, outputs), 16);
        for (row, owner) in owners.iter().enumerate() {
            let (x, y) = (&x[row * inputs..][..inputs], &y[row * outputs..][..outputs]);
            let alone = adapted(&Mix::new([shared(owner)]), at, (x, inputs), (y, outputs), 1 << 16);
            let got = &together[row * outputs..][..outputs];
            assert_eq!(bits(got), bits(&alone), "{name} row {row}");
            let Some(owner) = owner else {
                assert_eq!(got, y);
                continue;
            };
            let expected = Expected { adapter: &adapters[*owner], at };
            for output in 0..outputs {
                let wanted = expected.of(x, y[output], output);
                let off = (f64::from(got[output]) - wanted).abs();
                assert!(off < 1e-3 * wanted.abs().max(1.0), "{name} row {row}: off by {off}");
            }
        }
    }
    assert_eq!(mix.width(settings.layer_count, Group::Down), 0, "there is no such layer");
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|it| it.to_bits()).collect()
}

/// Adapts outputs as the forward pass does: hidden rows in tiles, then tiles of `columns` outputs.
fn adapted(
    mix: &Mix,
    (layer, group, part): (usize, Group, usize),
    (x, inputs): (&[f32], usize),
    (y, outputs): (&[f32], usize),
    columns: usize,
) -> Vec<f32> {
    let (isa, rows, width) = (Isa::best(), y.len() / outputs, mix.width(layer, group));
    let mut hidden = vec![f32::NAN; rows * width];
    for start in (0..width).step_by(16) {
        let tile = Tile { rows: 0..rows, columns: start..width.min(start + 16) };
        let mut values = vec![f32::NAN; rows * tile.columns.len()];
        let input = Input { values: x, width: inputs, first_row: 0 };
        mix.shrink(isa, (layer, group), input, &tile, &mut values);
        for (row, values) in values.chunks_exact(tile.columns.len()).enumerate() {
            hidden[row * width + start..][..values.len()].copy_from_slice(values);
        }
    }
    let mut out = y.to_vec();
    for start in (0..outputs).step_by(columns) {
        let end = outputs.min(start + columns);
        for first in (0..rows).step_by(3) {
            let tile = Tile { rows: first..rows.min(first + 3), columns: start..end };
            let of = |row: usize| row * outputs + start..row * outputs + end;
            let mut values: Vec<f32> =
                tile.rows.clone().flat_map(|row| out[of(row)].to_vec()).collect();
            mix.expand(isa, (layer, group, part), &hidden, &tile, &mut values);
            for (row, values) in tile.rows.clone().zip(values.chunks_exact(end - start)) {
                out[of(row)].copy_from_slice(values);
            }
        }
    }
    out
}

#[test]
fn the_rows_of_a_dora_get_the_length_of_their_magnitude() {
    let mut files = Files::only(4, &["self_attn.o_proj"], 5);
    files.make_dora();
    let (folder, base) = (files.write(), base());
    let adapter = Adapter::load(folder.path(), &base).unwrap();
    assert_eq!(adapter.facts().method, Method::Dora);
    let at = (1, Group::Output, 0);
    let added = difference(&adapter, at).expect("is adapted");
    let stack = adapter.stack(1, Group::Output).expect("is adapted");
    let factors = stack.parts[0].as_ref().and_then(|part| part.row_factors.as_ref());
    let plain = weight_rows(&base, "blk.1.attn_output.weight");
    let magnitudes = files.numbers("layers.1.self_attn.o_proj.lora_magnitude_vector");
    for (row, &factor) in factors.expect("is a DoRA").iter().enumerate() {
        let square = plain[row].iter().zip(&added[row]);
        let square: f64 = square.map(|(&w, added)| (f64::from(w) + added).powi(2)).sum();
        let len = square.sqrt() * f64::from(factor);
        assert!((len - f64::from(magnitudes[row])).abs() < 1e-5, "{len}");
    }
}

#[test]
fn rows_of_queries_are_brought_into_the_order_of_the_base() {
    use crate::settings::RopeStyle::{Interleaved, Split};
    let of = |style| build::reorder(2, 6, style).collect::<Vec<_>>();
    assert_eq!(of(Interleaved), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    let (there, back) = (of(Interleaved), of(Split));
    assert!((0..12).all(|row| there[back[row]] == row), "one undoes the other");
}
