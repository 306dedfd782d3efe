//! Fuzz targets of what reads strangers' files. `cargo test` runs each for a moment;
//! `cargo bolero test TARGET` for as long as one likes.

use commons_engine::gguf::Gguf;
use commons_engine::noise::noise_model;
use commons_engine::settings::Settings;
use commons_engine::template::Template;
use commons_engine::tokenizer::Tokenizer;

/// Everything that is done with a file before its weights are touched.
fn read_all(bytes: &[u8]) {
    let Ok(gguf) = Gguf::parse(bytes) else { return };
    for info in gguf.tensors().values() {
        assert!(info.bytes().end <= bytes.len());
    }
    let _ = Template::from_gguf(&gguf);
    if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
        let ids = tokenizer.encode("bace difo <s> \u{1f999}").unwrap_or_default();
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.token_count()));
    }
    if let Ok(settings) = Settings::from_gguf(&gguf, &|_| Ok(None)) {
        assert!(settings.head_count.is_multiple_of(settings.kv_head_count));
        assert!(settings.ropes.iter().all(|rope| 2 * rope.pairs() <= settings.head_size));
        assert_eq!(settings.layers.len(), settings.layer_count);
    }
}

#[test]
fn any_bytes_behind_a_header() {
    bolero::check!().for_each(|input: &[u8]| {
        read_all(input);
        read_all(&[b"GGUF\x03\0\0\0", input].concat());
    });
}

#[test]
fn a_model_with_changed_bytes() {
    let model = noise_model(1).expect("builds").to_bytes();
    // Only the part before the weights: the rest is numbers, of which every pattern is valid.
    let head = 24_000;
    bolero::check!().with_type::<Vec<(u16, u8)>>().for_each(|changes| {
        let mut bytes = model.clone();
        for &(at, byte) in changes.iter().take(32) {
            bytes[usize::from(at) % head] = byte;
        }
        read_all(&bytes);
    });
}
