//! What the environment says, in the words of Python's `huggingface_hub`.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the Hub is, who asks, and where files are kept.
#[derive(Clone)]
pub struct Settings {
    /// The Hub's address without a slash at its end.
    pub endpoint: String,
    /// Sent to that address alone.
    pub token: Option<String>,
    /// Directory of the cache.
    pub cache: PathBuf,
    /// Whether nothing may be asked of the network.
    pub offline: bool,
    /// How often a request is tried.
    pub tries: u32,
    /// The wait before the second try; it doubles with each.
    pub pause: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A token is in no message.
        let token = self.token.as_ref().map(|_| "set");
        let Self { endpoint, cache, offline, .. } = self;
        f.debug_struct("Settings")
            .field("endpoint", endpoint)
            .field("token", &token)
            .field("cache", cache)
            .field("offline", offline)
            .finish()
    }
}

impl Settings {
    /// `HF_ENDPOINT`, `HF_TOKEN` (else the file that `HF_TOKEN_PATH` names, else `token` in `HF_HOME`), `HF_HUB_CACHE` or
    /// `HF_HOME`, `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        Self::of(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn of(value: impl Fn(&str) -> Option<String>) -> Self {
        let user = || value("HOME").or_else(|| value("USERPROFILE")).map_or_else(std::env::temp_dir, PathBuf::from);
        let caches = || value("XDG_CACHE_HOME").map_or_else(|| user().join(".cache"), PathBuf::from);
        let home = value("HF_HOME").map_or_else(|| caches().join("huggingface"), |home| expanded(&home, &user));
        let cache = value("HF_HUB_CACHE").or_else(|| value("HUGGINGFACE_HUB_CACHE"));
        let truth = |name: &str| {
            value(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
        };
        let file = value("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token =
            value("HF_TOKEN").or_else(|| if truth("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { read(&file) });
        let endpoint = value("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            cache: cache.map_or_else(|| home.join("hub"), |cache| expanded(&cache, &user)),
            offline: truth("HF_HUB_OFFLINE"),
            tries: 5,
            pause: Duration::from_millis(500),
        }
    }
}

fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

fn expanded(path: &str, user: &dyn Fn() -> PathBuf) -> PathBuf {
    path.strip_prefix("~/").map_or_else(|| path.into(), |rest| user().join(rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Settings;
    use std::path::Path;

    fn of(pairs: &[(&str, &str)]) -> Settings {
        Settings::of(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        assert_eq!(of(&[("HOME", "/u")]).cache, Path::new("/u/.cache/huggingface/hub"));
        assert_eq!(of(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(of(&[("HOME", "/u"), ("HF_HOME", "~/h")]).cache, Path::new("/u/h/hub"));
        assert_eq!(of(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
    }

    #[test]
    fn tokens_come_from_the_environment_or_a_file_and_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = dir.path().to_string_lossy().into_owned();
        assert_eq!(of(&[("HF_HOME", &home)]).token.as_deref(), Some("hf_file"));
        assert_eq!(of(&[("HF_HOME", &home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
        let settings = of(&[("HF_HOME", &home), ("HF_TOKEN", "hf_own"), ("HF_ENDPOINT", "http://h/")]);
        assert_eq!((settings.token.as_deref(), settings.endpoint.as_str()), (Some("hf_own"), "http://h"));
        assert!(!format!("{settings:?}").contains("hf_own"));
        assert!(of(&[("HF_HUB_OFFLINE", "True")]).offline && !of(&[("HF_HUB_OFFLINE", "0")]).offline);
    }
}
