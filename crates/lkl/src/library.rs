//! The loaded library.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::sys::Api;

/// A loaded kernel library. It stays loaded until the process ends: kernel code has no notion of
/// being unloaded.
#[derive(Clone, Debug)]
pub struct Library {
    path: PathBuf,
    pub(crate) api: Api,
}

impl Library {
    /// Loads the library, with `RTLD_NOW` and its symbols kept to itself.
    ///
    /// Loading one file twice gives the same library. For a second kernel in one process load a
    /// copy of the file.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Load`], or [`Error::Version`] if it does not fit this crate.
    pub fn load(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            return Err(Error::Missing { looked: vec![path.to_owned()] });
        }
        let api = Api::load(path).map_err(|source| Error::Load { path: path.to_owned(), source })?;
        let (found, wanted) = (api.version(), Api::VERSION);
        if found != wanted {
            return Err(Error::Version { path: path.to_owned(), found, wanted });
        }
        Ok(Self { path: path.to_owned(), api })
    }

    /// The kernel's release, such as `6.12.117`.
    pub fn version(&self) -> String {
        self.api.release()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
