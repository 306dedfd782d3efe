//! Where a model is: a `.gguf` file, or a folder as Hugging Face lays it out.
//!
//! Behind the path may stand where that model alone is computed: `PATH,device=cpu`.
//!
//! Not here: whether what is there can be used (the engine).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use commons_engine::place::Device;
use commons_engine::weights::CONFIG_NAME;

/// What stands between a path and a device.
const DEVICE: &str = ",device=";

/// A model to load, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The file or folder.
    pub(crate) path: PathBuf,
    /// Where it is computed; none means where all others are.
    pub(crate) device: Option<Device>,
}

impl Named {
    /// Takes what was typed. What is there under the whole text is meant, whatever its name has in
    /// it.
    pub(crate) fn checked(typed: &Path) -> anyhow::Result<Self> {
        let split = typed.to_str().and_then(|it| it.rsplit_once(DEVICE));
        let Some((path, device)) = split.filter(|_| !typed.exists()) else {
            return Ok(Self { path: checked(typed)?, device: None });
        };
        let device = device.parse::<Device>()?;
        Ok(Self { path: checked(Path::new(path))?, device: Some(device) })
    }
}

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
    fn a_device_may_stand_behind_the_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a,b.gguf");
        std::fs::write(&file, "").expect("is written");
        let typed = |end: &str| PathBuf::from(format!("{}{end}", file.display()));
        let check = |end: &str, device: Option<Device>| {
            let named = Named::checked(&typed(end)).expect("is a model");
            assert_eq!(named, Named { path: file.clone(), device }, "{end:?}");
        };
        check("", None);
        check(",device=cpu", Some(Device::Cpu));
        check(",device=cuda:1", Some(Device::Cuda(1)));
        let refused = |end: &str, part: &str| {
            let error = Named::checked(&typed(end)).expect_err("is refused").to_string();
            assert!(error.contains(part), "no {part:?} in {error}");
        };
        refused(",device=gpu", "cuda:N");
        refused(",device=", "cuda:N");
        refused(",slots=4", "there is no model");
        std::fs::write(typed(",device=cpu"), "").expect("is written");
        let odd = Named::checked(&typed(",device=cpu")).expect("is a model");
        assert_eq!(odd, Named { path: typed(",device=cpu"), device: None });
    }

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
