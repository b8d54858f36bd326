//! Conditions as `metav1.Condition` wants them: the time is that of the last change of `status`.

use api::crd::Condition;
use jiff::Timestamp;

/// Longest message: enough for a person, and for 5,000 objects in the API server.
const LONGEST: usize = 512;

/// A condition without its time.
pub(super) fn condition(
    kind: &str,
    status: Option<bool>,
    reason: impl Into<String>,
    message: impl Into<String>,
) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: match status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
        .to_owned(),
        reason: reason.into(),
        message: shorten(message.into()),
        ..Condition::default()
    }
}

/// At most [`LONGEST`] octets, cut between characters.
pub(super) fn shorten(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST - 3).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push_str("...");
    }
    text
}

/// Gives each its time: that of the old one while the status is the same, else now.
pub(super) fn timed(mut new: Vec<Condition>, old: &[Condition], now: Timestamp) -> Vec<Condition> {
    for condition in &mut new {
        let same = old.iter().find(|o| o.type_ == condition.type_ && o.status == condition.status);
        condition.last_transition_time = same.map_or_else(
            || now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            |old| old.last_transition_time.clone(),
        );
    }
    new
}

/// The same but for times.
pub(super) fn same(one: &[Condition], other: &[Condition]) -> bool {
    let untimed = |conditions: &[Condition]| -> Vec<Condition> {
        let strip = |c: &Condition| Condition { last_transition_time: String::new(), ..c.clone() };
        conditions.iter().map(strip).collect()
    };
    untimed(one) == untimed(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_changes_with_the_status_only() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = timed(vec![condition("Ready", Some(false), "A", "x")], &[], at(0));
        assert_eq!(first[0].last_transition_time, "1970-01-01T00:00:00Z");
        let same_status = timed(vec![condition("Ready", Some(false), "B", "y")], &first, at(60));
        assert_eq!(same_status[0].last_transition_time, "1970-01-01T00:00:00Z");
        assert!(!same(&first, &same_status));
        let changed = timed(vec![condition("Ready", Some(true), "B", "y")], &same_status, at(60));
        assert_eq!(changed[0].last_transition_time, "1970-01-01T00:01:00Z");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = shorten("ä".repeat(LONGEST));
        assert!(text.len() <= LONGEST && text.ends_with("..."), "{}", text.len());
        assert_eq!(shorten("short".to_owned()), "short");
    }
}
