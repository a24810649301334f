//! The Authorization header of requests to Ollama. A token file may change while the worker runs.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::{Login, OllamaConfig, Secret};
use crate::sys::secrets;

pub(crate) struct Credentials {
    login: Mutex<Option<Login>>,
    /// OLLAMA_TOKEN_FILE.
    file: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(crate) fn new(config: &OllamaConfig) -> Self {
        Self { login: Mutex::new(config.login.clone()), file: config.token_file.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Login>> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header's value; None: the header is not sent.
    pub(crate) fn header(&self) -> Option<String> {
        self.lock().as_ref().map(Login::header)
    }

    pub(crate) fn kind(&self) -> Option<&'static str> {
        self.lock().as_ref().map(Login::setting)
    }

    /// Reads the token file again. True: the token has changed.
    pub(crate) fn renew(&self) -> bool {
        let read = self.file.as_ref().and_then(|file| secrets::read_again(file).ok()).and_then(Secret::new);
        let Some(token) = read.map(Login::Token) else { return false };
        let mut login = self.lock();
        let changed = login.as_ref() != Some(&token);
        *login = Some(token);
        changed
    }
}
