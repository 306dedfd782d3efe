//! Where a model is: a `.gguf` file, or a folder as Hugging Face lays it out.
//!
//! Not here: whether what is there can be used (the engine).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use commons_engine::weights::CONFIG_NAME;

/// A model's path, if a file or a model's folder is there: a typing error is told before anything
/// is opened.
pub(crate) fn checked(path: &Path) -> anyhow::Result<PathBuf> {
    let name = path.display();
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(path.to_owned()),
        Ok(meta) if meta.is_dir() && path.join(CONFIG_NAME).is_file() => Ok(path.to_owned()),
        Ok(meta) if meta.is_dir() => bail!(
            "the folder {name} is no model: it has no {CONFIG_NAME}; name the .gguf file itself, \
             or the folder that holds {CONFIG_NAME} and the .safetensors files"
        ),
        Ok(_) => bail!("the model {name} is neither a file nor a folder: name the .gguf file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("there is no model {name}: check the path")
        }
        Err(error) => Err(error).with_context(|| format!("failed to look at the model {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_file_or_a_folder_with_its_settings() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |path: &Path, part: &str| {
            let error = checked(path).expect_err("is refused").to_string();
            assert!(error.contains(part), "no {part:?} in {error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
        };
        refused(&folder.path().join("missing.gguf"), "there is no model");
        refused(folder.path(), CONFIG_NAME);
        let file = folder.path().join(CONFIG_NAME);
        std::fs::write(&file, "{}").expect("is written");
        assert_eq!(checked(folder.path()).ok().as_deref(), Some(folder.path()));
        assert_eq!(checked(&file).ok(), Some(file));
    }
}
