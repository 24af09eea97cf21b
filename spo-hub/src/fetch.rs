//! The one place where a name becomes files.

use crate::{Fetched, HubError, Name, Progress, Settings, Want};

/// Brings what is needed of a name into the cache. A data set at no revision comes from the Parquet files that the Hub has
/// made of it, where there are some. With `HF_HUB_OFFLINE`, and where the Hub cannot be reached, the cache alone is used.
///
/// # Errors
/// The repository, revision, configuration or file is not there or not to be had; the network or the disk fails; or what
/// comes is not what the Hub has.
#[cfg(feature = "online")]
pub fn fetch(
    name: &Name,
    want: &Want,
    settings: &Settings,
    heard: &mut dyn FnMut(Progress),
) -> Result<Fetched, HubError> {
    if settings.offline {
        return online::from_cache(name, want, settings);
    }
    let client = crate::client::Client::new(settings);
    match online::download(&client, name, want, heard) {
        Err(error @ HubError::Unreachable { .. }) => {
            let Ok(found) = online::from_cache(name, want, settings) else { return Err(error) };
            let commit = &found.commit;
            heard(Progress::Note(format!("{error}; {name} is taken from the cache as it was, at commit {commit}")));
            Ok(found)
        }
        done => done,
    }
}

/// Built without the Hub: refuses.
///
/// # Errors
/// Always.
#[cfg(not(feature = "online"))]
pub fn fetch(name: &Name, _: &Want, _: &Settings, _: &mut dyn FnMut(Progress)) -> Result<Fetched, HubError> {
    Err(HubError::NotBuilt { name: name.to_string() })
}

#[cfg(feature = "online")]
mod online {
    use crate::cache::Cache;
    use crate::client::Client;
    use crate::files::{PARQUET, Repository, chosen, fetched};
    use crate::{Fetched, HubError, Kind, Name, Progress, Settings, Want, download};

    /// Where a data set is looked for: in the Parquet files of the Hub, then as it was uploaded.
    fn places(name: &Name, want: &Want) -> Vec<Name> {
        let converted =
            name.kind == Kind::Dataset && name.revision.is_none() && name.file.is_none() && name.commit.is_none();
        match (converted, want) {
            (true, Want::Rows { .. }) => vec![name.at(PARQUET), name.clone()],
            _ => vec![name.clone()],
        }
    }

    /// The repository at the first of its places that is there.
    fn found(client: &Client<'_>, name: &Name, want: &Want) -> Result<(Name, Repository), HubError> {
        let places = places(name, want);
        let (last, before) = places.split_last().expect("there is one");
        for place in before {
            match Repository::ask(client, place) {
                Err(HubError::NoRevision { .. }) => {}
                other => return other.map(|repository| (place.clone(), repository)),
            }
        }
        let repository = Repository::ask(client, last)?;
        if let (Want::Rows { config, split, .. }, false) = (want, last.revision.as_deref() == Some(PARQUET))
            && let Some(found) = config.as_ref().or(split.as_ref())
        {
            return Err(HubError::Nothing {
                name: name.to_string(),
                found: format!("found no Parquet conversion, in which `{found}` would be"),
                expected: "files by name: hf://datasets/org/name/data/train-*.jsonl",
            });
        }
        Ok((last.clone(), repository))
    }

    pub fn download(
        client: &Client<'_>,
        name: &Name,
        want: &Want,
        heard: &mut dyn FnMut(Progress),
    ) -> Result<Fetched, HubError> {
        let (place, repository) = found(client, name, want)?;
        let files = repository.wanted(&place, want)?;
        let cache = Cache::new(&client.settings.cache, &place);
        let (total, mut done) = (files.iter().map(|file| file.bytes).sum(), 0);
        for file in &files {
            let before = done;
            let mut told = |bytes: u64| {
                done += bytes;
                heard(Progress::Bytes { name: name.to_string(), done: done.min(total), total });
            };
            download::file(client, &cache, (&place, &repository.commit), file, &mut told)?;
            done = before + file.bytes;
        }
        if place.commit.is_none() {
            cache.remember(place.revision(), &repository.commit)?;
        }
        let paths: Vec<String> = files.into_iter().map(|file| file.path).collect();
        Ok(fetched(&place, &repository.commit, &cache.snapshot(&repository.commit), &paths))
    }

    /// What the cache has of a name.
    pub fn from_cache(name: &Name, want: &Want, settings: &Settings) -> Result<Fetched, HubError> {
        let places = places(name, want);
        let cached = places.iter().find_map(|place| {
            let cache = Cache::new(&settings.cache, place);
            Some((place, cache.commit(place.commit.as_deref().unwrap_or(place.revision()))?, cache))
        });
        let absent = || HubError::Offline { name: name.to_string(), cache: settings.cache.clone() };
        let (place, commit, cache) = cached.ok_or_else(absent)?;
        let all = cache.files(&commit);
        let paths: Vec<&str> = all.iter().map(String::as_str).collect();
        let files = chosen(place, want, &paths).map_err(|error| match error {
            HubError::Choice { .. } => error,
            _ => absent(),
        })?;
        // A link whose blob is gone is no file.
        let snapshot = cache.snapshot(&commit);
        if files.iter().any(|file| !snapshot.join(file).is_file()) {
            return Err(absent());
        }
        Ok(fetched(place, &commit, &snapshot, &files))
    }
}
