//! What was set when Rampart was installed is kept when it is upgraded: noted at the DaemonSet.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};

use super::{IMAGE_TAG, is_agent};
use crate::failure::{Exit, Failure};

/// Annotation of the DaemonSet that has the note.
pub const SETTINGS_NOTE: &str = "rampart.network/rctl-settings";

/// The note.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Version of the manifests that the values were set for.
    version: String,
    /// Keys and values of `--set`.
    set: BTreeMap<String, String>,
}

/// A value, and whether it was said now or is kept from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Key of `--set`.
    pub key: String,
    /// Value.
    pub value: String,
    /// It is of an earlier installation.
    pub kept: bool,
}

/// The values of the note with those that are said now, which win. The tag of an image is kept only
/// for the version that it was said for: else an upgrade would install the old one again.
///
/// # Errors
/// The note is not one that this version wrote.
pub fn merged(note: Option<&str>, said: &[(String, String)]) -> Result<Vec<Setting>, Failure> {
    let note: Note = match note {
        None => Note::default(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Failure::plain(
                Exit::Negative,
                format!("annotation {SETTINGS_NOTE} of the DaemonSet is not understood"),
                "--reset-values goes on without the values that were set before",
            )
            .because(error.to_string())
        })?,
    };
    let same = note.version == env!("CARGO_PKG_VERSION");
    let said_now = |key: &str| said.iter().any(|(said, _)| said == key);
    let kept = note.set.into_iter().filter(|(key, _)| !said_now(key) && (same || key != IMAGE_TAG));
    let kept = kept.map(|(key, value)| Setting { key, value, kept: true });
    let now = said.iter().cloned().map(|(key, value)| Setting { key, value, kept: false });
    Ok(kept.chain(now).collect())
}

/// Notes them at the DaemonSet of `objects`.
pub fn note(objects: &mut [DynamicObject], settings: &[Setting]) {
    if settings.is_empty() {
        return;
    }
    let set = settings.iter().map(|s| (s.key.clone(), s.value.clone())).collect();
    let note = Note { version: env!("CARGO_PKG_VERSION").to_owned(), set };
    let text = serde_json::to_string(&note).unwrap_or_default();
    for object in objects.iter_mut().filter(|object| is_agent(object)) {
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(SETTINGS_NOTE.to_owned(), text.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn told(settings: &[Setting]) -> Vec<String> {
        let told = settings
            .iter()
            .map(|s| format!("{}={}{}", s.key, s.value, if s.kept { " kept" } else { "" }));
        told.collect()
    }

    #[test]
    fn what_is_noted_is_kept_until_something_else_is_said() {
        let first =
            merged(None, &said(&[("logging.level", "debug"), ("image.tag", "v1")])).unwrap();
        let mut objects = super::super::objects(&[]).unwrap();
        note(&mut objects, &first);
        let agent = objects.iter().find(|object| is_agent(object)).unwrap();
        let text = agent.metadata.annotations.as_ref().unwrap().get(SETTINGS_NOTE).unwrap();
        let second = merged(Some(text), &said(&[("cni.install", "false")])).unwrap();
        assert_eq!(
            told(&second),
            ["image.tag=v1 kept", "logging.level=debug kept", "cni.install=false"]
        );
        let third = merged(Some(text), &said(&[("logging.level", "info")])).unwrap();
        assert_eq!(told(&third), ["image.tag=v1 kept", "logging.level=info"]);
    }

    #[test]
    fn the_tag_of_an_older_version_is_not_kept() {
        let text = r#"{"version":"0.0.9","set":{"image.tag":"v1","logging.level":"debug"}}"#;
        assert_eq!(told(&merged(Some(text), &[]).unwrap()), ["logging.level=debug kept"]);
    }

    #[test]
    fn a_note_that_is_not_understood_is_an_error_that_says_how_to_go_on() {
        let failure = merged(Some("{"), &[]).unwrap_err();
        assert!(failure.next.contains("--reset-values"), "{failure:?}");
    }
}
