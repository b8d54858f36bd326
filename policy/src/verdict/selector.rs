//! Label selectors, requirement by requirement.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

type Labels = BTreeMap<String, String>;

/// `None` = it cannot be understood.
pub(super) fn matches(selector: &LabelSelector, labels: &Labels) -> Option<bool> {
    let answers: Option<Vec<bool>> = requirements(selector, labels).into_iter().collect();
    Some(answers?.into_iter().all(|answer| answer))
}

/// As far as it can be understood.
pub(super) fn might_match(selector: &LabelSelector, labels: &Labels) -> bool {
    requirements(selector, labels).into_iter().flatten().all(|answer| answer)
}

pub(super) fn is_readable(selector: &LabelSelector) -> bool {
    matches(selector, &Labels::new()).is_some()
}

fn requirements(selector: &LabelSelector, labels: &Labels) -> Vec<Option<bool>> {
    let mut answers = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        let readable = is_key(key) && is_value(value);
        answers.push(readable.then(|| labels.get(key) == Some(value)));
    }
    for expression in selector.match_expressions.iter().flatten() {
        answers.push(holds(expression, labels));
    }
    answers
}

fn holds(expression: &LabelSelectorRequirement, labels: &Labels) -> Option<bool> {
    let values = expression.values.as_deref().unwrap_or_default();
    if !is_key(&expression.key) || !values.iter().all(|value| is_value(value)) {
        return None;
    }
    let value = labels.get(&expression.key);
    match (expression.operator.as_str(), values.is_empty()) {
        ("In", false) => Some(value.is_some_and(|value| values.contains(value))),
        ("NotIn", false) => Some(value.is_none_or(|value| !values.contains(value))),
        ("Exists", true) => Some(value.is_some()),
        ("DoesNotExist", true) => Some(value.is_none()),
        _ => None,
    }
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_word(key),
        Some((domain, word)) => {
            let part = |part: &str| {
                !part.is_empty()
                    && part.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
                    && !part.starts_with('-')
                    && !part.ends_with('-')
            };
            domain.len() <= 253 && domain.split('.').all(part) && is_word(word)
        }
    }
}

fn is_value(value: &str) -> bool {
    value.is_empty() || is_word(value)
}

fn is_word(word: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    word.len() <= 63
        && edge(word.chars().next())
        && edge(word.chars().next_back())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
